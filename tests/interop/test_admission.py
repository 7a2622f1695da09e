"""Who may call in, as others see it: sipp and baresip with passwords, and sipp as those who have none."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import trio

from rustpbx.settings import AuthConfig, LimitsConfig, SipUser
from rustpbx.testing.speech import tone
from rustpbx.values import network
from tests.interop.calls import SPEECH, called, over
from tests.interop.test_sipp import SCENARIOS
from tests.kit.baresip import open_baresip
from tests.kit.linphone import open_linphone
from tests.kit.real import RealHouse, free_port, open_real_house
from tests.kit.sipp import sipp

PASSWORD = "secret"
USER = SipUser(username="phone", password=PASSWORD)

pytestmark = pytest.mark.real_time


def scenario(folder: Path, name: str, **words: str) -> str:
    """A scenario of ours, with these words in place of its capitals."""
    text = (SCENARIOS / name).read_text()
    for word, value in words.items():
        text = text.replace(word, value)
    (folder / name).write_text(text)
    return str(folder / name)


def sip_port() -> str:
    """A port for sipp."""
    return str(free_port(socket.SOCK_DGRAM))


def counted(house: RealHouse) -> dict[str, int]:
    """What `/health` says of requests that were not served."""
    return dict(house.server.registry.health().refused)


@pytest.mark.interop("sipp")
async def test_sipp_calls_with_a_password(tmp_path: Path) -> None:
    """Another implementation's digest is right for us; this one knows MD5 only, and stumbles over more."""
    auth = AuthConfig(users=(USER,), algorithms=("MD5",))
    async with open_real_house(tmp_path, auth=auth) as house, trio.open_nursery() as nursery:
        host, port = house.address
        calling = scenario(tmp_path, "uac_auth.xml", PASSWORD=PASSWORD)
        nursery.start_soon(sipp, tmp_path, calling, f"{host}:{port}", "-p", sip_port())
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            assert (await agent.ended())[-1] == "hangup"
        assert counted(house) == {"no_credentials": 1}


@pytest.mark.interop("baresip")
async def test_baresip_calls_with_a_password(tmp_path: Path) -> None:
    """As sipp, it knows MD5 only (version 1.0)."""
    auth = AuthConfig(users=(USER,), algorithms=("MD5",))
    account = f"regint=0;auth_user=phone;auth_pass={PASSWORD}"
    async with open_real_house(tmp_path, auth=auth) as house, open_baresip(tmp_path, account=account) as phone:
        async with called(house, phone) as agent:
            await agent.send("hangup")
            await over(agent, "system", "system")
        assert counted(house) == {"no_credentials": 1}


@pytest.mark.interop("linphonec")
@pytest.mark.parametrize("algorithms", [("SHA-256", "MD5"), ("SHA-256",), ("MD5",)])
async def test_linphone_calls_with_a_password(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    """It takes the first challenge of several that it understands."""
    auth = AuthConfig(users=(SipUser(username="linphone", password=PASSWORD),), algorithms=algorithms)
    known = f"[auth_info_0]\nusername=linphone\npasswd={PASSWORD}\nrealm=rustpbx\n"
    async with open_real_house(tmp_path, auth=auth) as house, open_linphone(tmp_path, sip_config=known) as phone:
        await phone.type(f"call {house.uri}")
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            invite = await house.sip.until("in INVITE", 2)
            assert f"algorithm={algorithms[0]}" in (invite.message.header("Authorization") or "")
            await agent.send("hangup")
            await over(agent, "system", "system")
        assert counted(house) == {"no_credentials": 1}


@pytest.mark.interop("baresip")
async def test_baresip_is_refused_with_a_wrong_password(tmp_path: Path) -> None:
    """Its call ends with 401, and nobody hears of it."""
    auth = AuthConfig(users=(USER,), algorithms=("MD5",))
    account = "regint=0;auth_user=phone;auth_pass=guess"
    async with open_real_house(tmp_path, auth=auth) as house, open_baresip(tmp_path, account=account) as phone:
        await phone.do("dial", house.uri)
        assert "401" in (await phone.closed())["param"]
        assert counted(house)["wrong_credentials"] >= 1
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()


@pytest.mark.interop("sipp")
async def test_who_guesses_passwords_is_silenced(tmp_path: Path) -> None:
    """After ten wrong ones there is no answer any more, to anything from there."""
    auth = AuthConfig(users=(USER,), algorithms=("MD5",))
    async with open_real_house(tmp_path, auth=auth) as house:
        host, port = house.address
        guessing = scenario(tmp_path, "guess.xml")
        await sipp(tmp_path, guessing, f"{host}:{port}", "-p", sip_port(), "-m", "12", "-l", "1", "-r", "100")
        counts = counted(house)
        assert (counts["wrong_credentials"], counts["no_credentials"]) == (10, 10)
        assert counts["quiet"] == 2


@pytest.mark.interop("sipp", "baresip")
@pytest.mark.parametrize(
    ("method", "agent_name", "reason"),
    [
        ("REGISTER", "friendly-scanner", "scanner"),
        ("OPTIONS", "sipvicious", "scanner"),
        ("REGISTER", "nothing special", "rate"),
        ("INVITE", "nothing special", "invite_rate"),
    ],
)
async def test_a_flood_beside_a_call(tmp_path: Path, method: str, agent_name: str, reason: str) -> None:
    """Two thousand requests, a thousand a second: named, counted, not answered; the call beside them stays whole."""
    limits = LimitsConfig(
        requests=5.0 if reason == "rate" else 0.0,
        invites=1.0 if reason == "invite_rate" else 0.0,
        unlimited=(network("10.255.255.255"),),
    )
    says = np.tile(np.concatenate([tone(0.8), np.zeros(6400, np.int16)]), 3)
    async with (
        open_real_house(tmp_path, limits=limits) as house,
        open_baresip(tmp_path, says=says) as phone,
        called(house, phone) as agent,
    ):
        host, port = house.address
        flooding = scenario(tmp_path, "burst.xml", METHOD=method, AGENT=agent_name)
        more = ("-m", "2000", "-r", "1000", "-l", "2000")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sipp, tmp_path, flooding, f"{host}:{port}", "-p", sip_port(), *more)
            await agent.until("speaking", 3)
            await agent.until("silence", 3)
        counts = counted(house)
        assert set(counts) == {reason}
        assert counts[reason] > 200  # a slow machine takes longer to send them, and loses some
        assert house.server.stack is not None
        assert house.server.stack.counters["transactions_running"] < 50
        await agent.send("hangup")
        await over(agent, "system", "system")
