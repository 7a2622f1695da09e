"""Whole calls to a server that asks who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from rustpbx.journal import Journal
from rustpbx.settings import AuthConfig, Config, LimitsConfig, SipUser
from rustpbx.sip import endpoint
from rustpbx.sip.events import CallRefused, Credentials
from rustpbx.testing.house import PHONE
from rustpbx.values import network
from tests.kit.house import SERVER, House, server_config
from tests.test_bad_input import beside_a_call
from tests.test_calls import DIAL, over, quiet_house

PASSWORD = "secret"
AUTH = AuthConfig(users=(SipUser(username="phone", password=PASSWORD),))


def guarded_config(auth: AuthConfig | None = AUTH, **limits: Any) -> Config:
    """A configuration with `[ua.auth]` and `[ua.limits]`."""
    config = server_config()
    assert config.ua is not None
    return attrs.evolve(config, ua=attrs.evolve(config.ua, auth=auth, limits=LimitsConfig(**limits)))


@asynccontextmanager
async def guarded_house(auth: AuthConfig | None = AUTH, **limits: Any) -> AsyncIterator[House]:
    """A house whose server has `[ua.auth]` and `[ua.limits]`."""
    async with quiet_house(config=guarded_config(auth, **limits)) as house:
        yield house


async def talk(house: House, credentials: Credentials | None = None) -> None:
    """A call that is accepted and hung up."""
    call = await house.phone.dial(DIAL, credentials=credentials)
    async with house.incoming() as (agent, _):
        await agent.send("accept", option={})
        await call.answered()
        await agent.send("hangup")
        await over(agent)


async def refused(house: House, credentials: Credentials | None = None) -> int:
    """The status that a call is refused with."""
    call = await house.phone.dial(DIAL, credentials=credentials)
    return (await call.until(CallRefused)).status


async def test_with_a_password_the_call_comes_through() -> None:
    """Challenged once, proven, answered; nobody hears of the calls of others."""
    async with guarded_house() as house:
        await talk(house, Credentials("phone", PASSWORD))
        assert await refused(house) == 401
        assert await refused(house, Credentials("phone", "wrong")) == 401
        assert house.server.registry.health().total == 1


async def test_a_trusted_network_needs_none() -> None:
    """Its calls come as they are."""
    async with guarded_house(attrs.evolve(AUTH, trusted=(network(PHONE),))) as house:
        await talk(house)


async def test_a_server_that_drops_strangers_is_not_there() -> None:
    """No answer at all: the phone gives up as if there were nobody."""
    async with guarded_house(attrs.evolve(AUTH, unknown="drop")) as house:
        assert await refused(house) == 408
        await trio.sleep(60)


async def test_a_source_has_so_many_calls_at_a_time() -> None:
    """The second call is told to come later, and comes when the first is over."""
    async with guarded_house(None, calls=1) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await call.answered()
            assert await refused(house) == 503
            await agent.send("hangup")
            await over(agent)
        await trio.sleep(1)
        await talk(house)


# -- beside a call with sound ----------------------------------------------------------------------------------------

REQUEST = (
    "{method} sip:800@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{number};rport\r\n"
    "From: <sip:{number}@{host}>;tag=t{number}\r\nTo: <sip:800@10.0.0.1>\r\nCall-ID: {number}@{host}\r\n"
    "CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:x@{host}>\r\n{more}Content-Length: 0\r\n\r\n"
)
RESPONSE = (
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{number}\r\nFrom: <sip:a@b>;tag=1\r\n"
    "To: <sip:c@d>;tag=2\r\nCall-ID: {number}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
)
SPOOFED = 100


async def flood(house: House, text: str, times: int, *, sources: int = 1, **fields: str) -> list[bytes]:
    """Send so many messages within two seconds, from so many hosts in turn; the first lines of all answers."""
    hosts = [f"10.6.{n // 250}.{n % 250 + 1}" for n in range(sources)]
    sockets = [await house.wire.host(host).open_datagrams(host, 5060) for host in hosts]
    answers: list[bytes] = []

    async def listen(socket: Any) -> None:
        while True:
            data, _ = await socket.receive()
            answers.append(bytes(data.split(b"\r\n")[0]))

    async with trio.open_nursery() as nursery:
        for socket in sockets:
            nursery.start_soon(listen, socket)
        for number in range(times):
            data = text.format(number=number, host=hosts[number % sources], **{"more": "", **fields})
            await sockets[number % sources].send(data.encode(), (SERVER, 5060))
            if number % 100 == 99:
                await trio.sleep(2 * 100 / times)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    for socket in sockets:
        socket.close()
    return answers


def refusals(house: House) -> dict[str, int]:
    """What `/health` says of requests that were not served."""
    return dict(house.server.registry.health().refused)


def running(house: House) -> int:
    """How many transactions there are."""
    assert house.server.stack is not None
    return house.server.stack.counters["transactions_running"]


@pytest.mark.parametrize("method", ["REGISTER", "SUBSCRIBE", "OPTIONS", "MESSAGE"])
async def test_a_flood_from_one_source_is_cut_off(method: str) -> None:
    """It is answered at its rate and dropped above; nothing is kept; the call beside it hears and speaks on."""
    async with beside_a_call() as (house, _, __):
        before = running(house)
        answers = await flood(house, REQUEST, 3000, method=method)
        assert 1000 <= len(answers) <= 1500
        assert refusals(house) == {"rate": 3000 - len(answers)}
        assert running(house) == before


async def test_a_flood_of_calls_from_one_source_is_cut_off() -> None:
    """Some get through to the webhook, as many as the rate lets; they are nobody's, and leave nothing."""
    async with beside_a_call() as (house, _, __):
        await flood(house, REQUEST, 2000, method="INVITE", more="Content-Type: application/sdp\r\n")
        assert refusals(house)["invite_rate"] + refusals(house)["rate"] >= 1000
        assert running(house) < 1000


async def test_a_flood_of_calls_from_everywhere_is_refused() -> None:
    """Nobody of it is over his rate; above `max_calls` there is 503."""
    config = attrs.evolve(server_config(), max_calls=20)
    async with beside_a_call(config=config) as (house, _, __):
        answers = await flood(house, REQUEST, 1000, method="INVITE", sources=SPOOFED)
        assert answers.count(b"SIP/2.0 503 Service Unavailable") >= 900
        assert house.server.registry.health().runnings <= 20


async def test_strangers_are_challenged_without_end_and_for_nothing() -> None:
    """REGISTERs and INVITEs without credentials, from many sources: 401 each, no transaction, no webhook."""
    config = guarded_config(attrs.evolve(AUTH, trusted=(network(PHONE),)))
    async with beside_a_call(config=config) as (house, _, __):
        before = running(house)
        for method in ("REGISTER", "INVITE"):
            answers = await flood(house, REQUEST, 1000, method=method, sources=SPOOFED)
            assert answers == [b"SIP/2.0 401 Unauthorized"] * 1000
        assert refusals(house) == {"no_credentials": 2000}
        assert running(house) == before
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()


async def test_scanners_and_answers_to_nothing_are_met_with_silence() -> None:
    """No word to the one, no effect of the other."""
    async with beside_a_call() as (house, _, __):
        before = running(house)
        assert await flood(house, REQUEST, 200, method="OPTIONS", more="User-Agent: friendly-scanner\r\n") == []
        assert await flood(house, RESPONSE, 1000) == []
        assert refusals(house) == {"scanner": 200}
        assert house.server.stack is not None
        assert (running(house), house.server.stack.counters["strays"]) == (before, 1000)


async def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for a source and a reason, a few for very many; each names both."""
    monkeypatch.setattr(endpoint, "log", Journal("rustpbx.sip.endpoint"))  # which counts from here on
    async with beside_a_call() as (house, _, __):
        await flood(house, REQUEST, 500, method="OPTIONS", more="User-Agent: sipcli/v1\r\n", sources=SPOOFED)
        lines = [record.getMessage() for record in caplog.records if record.name == "rustpbx.sip.endpoint"]
        assert lines[0] == "refused OPTIONS from 10.6.0.1: scanner"
        assert 5 <= len(lines) <= 12
        assert "number" in lines[-1]
