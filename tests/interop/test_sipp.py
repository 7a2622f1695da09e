"""sipp as caller and as callee, with RTP both ways: its exit code and what each side heard are checked."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trio

from rustpbx.media.codec.g711 import PCMU
from rustpbx.testing.speech import tone
from tests.interop.calls import SIGNAL, SPEECH, echoed, over, signal, sipp_answers, sipp_calls
from tests.kit.real import LOOPBACK, free_port, open_real_house
from tests.kit.sipp import CALLEE, CALLER, INVITED, audio, expect, playing, sipp

SCENARIOS = Path(__file__).parent / "sipp"

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.real_time]


def scenario_with_sound(folder: Path) -> str:
    """The caller's scenario, streaming a file of one second of tone and one of silence, again and again."""
    pcm = np.concatenate([tone(1.0), np.zeros(8000, np.int16)])
    (folder / "sound.ul").write_bytes(PCMU.encode(pcm).tobytes())
    text = (SCENARIOS / "uac.xml").read_text().replace("SOUND", "sound.ul")
    (folder / "uac.xml").write_text(text)
    return str(folder / "uac.xml")


async def test_sipp_calls_and_streams_and_is_hung_up_on(tmp_path: Path) -> None:
    """What sipp streams is heard by our VAD; our BYE ends its scenario well."""
    async with open_real_house(tmp_path) as house, trio.open_nursery() as nursery:
        host, port = house.address
        nursery.start_soon(
            sipp,
            tmp_path,
            scenario_with_sound(tmp_path),
            f"{host}:{port}",
            "-p",
            str(free_port(socket.SOCK_DGRAM)),
        )
        async with house.incoming() as agent:
            await agent.send("ringing")
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            for count in (1, 2):
                speaking, silence = await agent.until("speaking", count), await agent.until("silence", count)
                assert silence["startTime"] > speaking["startTime"]
            await agent.send("hangup")
            assert (await agent.ended())[-1] == "hangup"


async def test_sipp_calls_hears_us_and_hangs_up(tmp_path: Path) -> None:
    """The peer echoes what it hears, so our own voice comes back as speech; its BYE is the caller's."""
    offer = audio("rtpmap:8 PCMA/8000", "rtpmap:0 PCMU/8000", formats="8 0")
    steps = [CALLER.invite(body=offer), expect(200), CALLER.request("ACK"), *SIGNAL, *CALLER.hangs_up()]
    async with sipp_calls(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.send("accept", option=SPEECH)
        assert "a=rtpmap:8 PCMA/8000" in (await agent.until("answer"))["sdp"]
        await echoed(agent)
        await signal(house, agent)
        await over(agent, "caller", "caller")


async def test_we_call_sipp(tmp_path: Path) -> None:
    """INVITE, 180, 200, ACK, audio out and echoed back, BYE."""
    ringing, answer = CALLEE.answers("180 Ringing"), CALLEE.answers("200 OK", body=audio())
    steps = [expect("INVITE", INVITED), ringing, answer, expect("ACK"), *CALLEE.is_hung_up()]
    async with sipp_answers(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.until("ringing")
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert house.sip.flow == ["out INVITE", "in 180 INVITE", "in 200 INVITE", "out ACK", "out BYE", "in 200 BYE"]


@pytest.mark.parametrize(("password", "outcome"), [("secret", "answer"), ("wrong", "reject")])
async def test_sipp_asks_for_a_password(tmp_path: Path, password: str, outcome: str) -> None:
    """Another implementation checks our digest: the right password is answered, a wrong one refused with 403."""
    async with open_real_house(tmp_path) as house, trio.open_nursery() as nursery:
        port = str(free_port(socket.SOCK_DGRAM))
        nursery.start_soon(sipp, tmp_path, str(SCENARIOS / "uas_auth.xml"), "-p", port)
        async with house.agent() as agent:
            credentials = {"username": "bot", "password": password, "realm": "pbx.test"}
            await agent.send("invite", option={"callee": f"sip:sipp@{LOOPBACK}:{port}", "sip": credentials})
            event = await agent.until(outcome)
            assert event.get("code", 403) == 403
            await agent.send("hangup")
            assert (await agent.ended())[-1] == "hangup"


async def test_sipp_offers_what_we_do_not_speak(tmp_path: Path) -> None:
    """An offer of G.729 alone gets 488, nobody is asked."""
    steps = [CALLER.invite(body=audio("rtpmap:18 G729/8000", formats="18")), *CALLER.takes_no(488)]
    async with open_real_house(tmp_path) as house:
        host, port = house.address
        async with playing(tmp_path, steps, f"{host}:{port}"):
            await house.sip.until("in ACK")
        assert house.server.registry.summaries() == []


def test_sipp_is_the_one_we_know() -> None:
    """The scenarios use rtp_stream, which a sipp built without it would ignore in silence."""
    said = subprocess.run(["sipp", "-v"], capture_output=True, text=True, check=False)
    assert "RTPSTREAM" in said.stdout + said.stderr
