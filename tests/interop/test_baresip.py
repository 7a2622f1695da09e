"""baresip as caller and as callee: what each side says is what the other hears, and both agree how it ends."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from rustpbx.media.events import Direction
from rustpbx.shell.network import RealNetwork
from rustpbx.sip.leg import ALLOW
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import (
    ANSWER,
    IMPATIENT,
    NOTHING,
    QUESTION,
    SPEECH,
    TAIL,
    called,
    calling,
    direction,
    held,
    over,
)
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.files import File, serve_files, wav
from tests.kit.real import LOOPBACK, RealHouse, free_port, open_real_house

pytestmark = [pytest.mark.interop("baresip"), pytest.mark.real_time]


@asynccontextmanager
async def phone_and_house(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[RealHouse, Baresip]]:
    """A server and a phone; all calls must be over at the end of the block, for both."""
    async with open_real_house(tmp_path) as house, open_baresip(tmp_path, **options) as phone:
        yield house, phone
        assert await house.owned() == NOTHING


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_a_phone_calls_talks_and_hangs_up(tmp_path: Path, codec: str) -> None:
    """It rings, both hear each other's words, its BYE ends the call. Once with each law."""
    options = {"says": spoken(QUESTION), "account": f"regint=0;audio_codecs={codec}"}
    async with phone_and_house(tmp_path, **options) as (house, phone):
        await phone.do("dial", house.uri)
        async with house.incoming() as agent:
            await agent.send("ringing")
            await phone.until("CALL_RINGING")
            await agent.send("accept", option=SPEECH)
            assert f"{codec}/8000" in (await agent.until("answer"))["sdp"]
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("speaking")
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            await phone.do("hangup")
            names = await over(agent, "caller", "caller")
        await phone.closed()
        assert [name for name in names if not name.startswith("asr")] == [
            *("incoming", "trackStart", "answer", "trackStart", "speaking", "silence"),
            *("trackEnd", "trackEnd", "hangup"),
        ]
        assert heard_text(phone.heard()).startswith(ANSWER)
        assert house.sip.flow == [
            *("in INVITE", "out 100 INVITE", "out 180 INVITE", "out 200 INVITE", "in ACK"),
            *("in BYE", "out 200 BYE"),
        ]


async def test_a_phone_calls_hears_a_file_and_is_hung_up_on(tmp_path: Path) -> None:
    """A wav fetched over HTTP is heard to its last letter before our BYE comes."""
    web = (LOOPBACK, free_port(socket.SOCK_STREAM))
    files = {"/menu.wav": File(wav(spoken(ANSWER, rate=16000), 16000))}
    async with phone_and_house(tmp_path, says=spoken(QUESTION)) as (house, phone), trio.open_nursery() as nursery:
        nursery.start_soon(serve_files, RealNetwork(), web, files)
        async with called(house, phone) as agent:
            await agent.send("play", url=f"http://{web[0]}:{web[1]}/menu.wav", autoHangup=True)
            await over(agent, "system", "system")
        await phone.closed()
        assert heard_text(phone.heard()) == ANSWER
        assert house.sip.flow[-2:] == ["out BYE", "in 200 BYE"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("who", ["agent", "phone"])
async def test_a_phone_is_called(tmp_path: Path, who: str) -> None:
    """180, 200, ACK, words both ways, and a BYE from either side."""
    async with phone_and_house(tmp_path, says=spoken(QUESTION)) as (house, phone):
        async with calling(house, phone) as agent:
            await phone.do("accept")
            await agent.until("answer")
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            if who == "agent":
                await agent.send("hangup")
                await over(agent, "system", "system")
            else:
                await phone.do("hangup")
                await over(agent, "callee", "callee")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        bye = ["out BYE", "in 200 BYE"] if who == "agent" else ["in BYE", "out 200 BYE"]
        assert house.sip.flow == ["out INVITE", "in 180 INVITE", "in 200 INVITE", "out ACK", *bye]


async def test_a_phone_declines(tmp_path: Path) -> None:
    """It rings and is pushed away: the phone's own words and status reach the agent."""
    async with phone_and_house(tmp_path) as (house, phone), calling(house, phone) as agent:
        await phone.do("hangup")
        reject = await agent.until("reject")
        assert (reject["code"], reject["reason"]) == (486, "Rejected")
        assert await over(agent, "callee", "callee") == ["trackStart", "ringing", "reject", "trackEnd", "hangup"]


async def test_a_phone_is_busy(tmp_path: Path) -> None:
    """A phone with one call takes no other, and the first call does not mind."""
    async with phone_and_house(tmp_path, max_calls=1) as (house, phone):
        async with calling(house, phone) as first:
            async with house.agent() as second:
                await second.send("invite", option={"callee": phone.uri})
                assert (await second.until("reject"))["code"] == 486
                assert await over(second, "callee", "callee") == ["trackStart", "reject", "trackEnd", "hangup"]
            await phone.do("accept")
            await first.until("answer")
            await first.send("hangup")
            await over(first, "system", "system")
        await phone.closed()


async def test_we_give_up_while_a_phone_rings(tmp_path: Path) -> None:
    """CANCEL stops the ringing, and the 487 is acknowledged."""
    async with phone_and_house(tmp_path) as (house, phone):
        async with calling(house, phone) as agent:
            await agent.send("hangup")
            assert await over(agent, "system", "system") == ["trackStart", "ringing", "trackEnd", "hangup"]
        await phone.closed()
        assert await house.owned() == NOTHING
        flow = house.sip.flow
        assert flow == [
            *("out INVITE", "in 180 INVITE", "out CANCEL"),
            *("in 200 CANCEL", "in 487 INVITE", "out ACK"),
        ]


async def test_a_phone_gives_up_while_we_ring(tmp_path: Path) -> None:
    """Its CANCEL is answered, the INVITE gets 487, the agent is told."""
    async with phone_and_house(tmp_path) as (house, phone):
        await phone.do("dial", house.uri)
        async with house.incoming() as agent:
            await agent.send("ringing")
            await phone.until("CALL_RINGING")
            await phone.do("hangup")
            await over(agent, "canceled", "caller")
        await phone.closed()


async def test_an_agent_rejects_a_phone(tmp_path: Path) -> None:
    """The phone is told the agent's code, and why in a Reason header."""
    async with phone_and_house(tmp_path) as (house, phone):
        await phone.do("dial", house.uri)
        async with house.incoming() as agent:
            await agent.send("reject", reason="closed on Sundays", code=480)
            await over(agent, "rejected", "callee")
        assert (await phone.closed())["param"] == "480 Temporarily Unavailable"
        refusal = house.sip.find("out 480 INVITE").message
        assert refusal.header("Reason") == 'SIP;cause=480;text="closed on Sundays"'


async def test_a_phones_keys_are_told_once_and_in_order(tmp_path: Path) -> None:
    """RFC 4733 events, each sent as many packets, are one `dtmf` each; the words around them are still heard."""
    keys = "1590*#77"
    async with phone_and_house(tmp_path, says=spoken(QUESTION)) as (house, phone):
        async with called(house, phone) as agent:
            await agent.until("asrFinal")
            await phone.do("sndcode", keys)
            await agent.until("dtmf", len(keys))
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list(keys)
        await phone.closed()


async def test_a_phone_holds_and_resumes(tmp_path: Path) -> None:
    """On hold we hear and send nothing, and our playback waits; then it goes on where it was, and nothing is lost."""
    async with phone_and_house(tmp_path, says=spoken(QUESTION)) as (house, phone):
        async with called(house, phone, vad=IMPATIENT) as agent:
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("speaking")
            await held(phone, agent)
            before = len(house.rtp.sent)
            await phone.do("resume")
            await phone.until("CALL_REMOTE_SDP", 3)
            await agent.until("trackEnd")
            await phone.hears_packets(len(house.rtp.sent))
            await phone.do("hangup")
            names = await over(agent, "caller", "caller")
        await phone.closed()
        assert [name for name in names if name not in {"asrDelta", "asrFinal", "silence"}] == [
            *("incoming", "trackStart", "answer", "trackStart", "speaking", "trackEnd", "trackEnd", "hangup"),
        ]
        hold, resumed = house.sip.find("out 200 INVITE", 2), house.sip.find("out 200 INVITE", 3)
        assert [direction(hold), direction(resumed)] == [Direction.RECVONLY, Direction.SENDRECV]
        resume = house.sip.find("in INVITE", 3)
        assert [packet for packet in house.rtp.sent if hold.at < packet.at < resume.at] == []
        last, first = house.rtp.sent[before - 1], house.rtp.sent[before]
        assert first.sequence == (last.sequence + 1) % 2**16
        assert (first.rtp_time - last.rtp_time) % 2**32 / 8000 == pytest.approx(first.at - last.at, rel=0.5)
        assert heard_text(np.concatenate([packet.pcm for packet in house.rtp.sent])) == ANSWER + TAIL


async def test_a_playback_is_cut_on_hold(tmp_path: Path) -> None:
    """What the agent is told of a playback that it cuts on hold is what the phone was sent; nothing comes after."""
    async with phone_and_house(tmp_path, says=spoken(QUESTION)) as (house, phone):
        async with called(house, phone, vad=IMPATIENT) as agent:
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("speaking")
            await held(phone, agent)
            sent = len(house.rtp.sent)
            await agent.send("interrupt")
            cut = await agent.until("interruption")
            await agent.until("trackEnd")
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()
        voice = np.concatenate([packet.pcm for packet in house.rtp.sent])
        assert cut["current"] == 20 * np.count_nonzero(np.abs(voice).reshape(-1, 160).max(axis=1))
        assert (ANSWER + TAIL).startswith(heard_text(voice)[:-1])
        assert len(house.rtp.sent) == sent


async def test_a_phone_asks_for_longer_packets(tmp_path: Path) -> None:
    """Its `a=ptime:40` is obeyed: 40 ms in each packet we send, and every word arrives."""
    options = {"says": spoken(QUESTION), "account": "regint=0;ptime=40"}
    async with phone_and_house(tmp_path, **options) as (house, phone):
        async with called(house, phone) as agent:
            await agent.send("tts", text=ANSWER, endOfStream=True, autoHangup=True)
            await over(agent, "system", "system")
        await phone.closed()
        assert {len(packet.payload) for packet in house.rtp.sent} == {320}
        steps = [(after.rtp_time - before.rtp_time) % 2**32 for before, after in pairwise(house.rtp.sent)]
        assert min(steps) == 320  # a slow machine may leave some out
        assert heard_text(phone.heard()) == ANSWER


async def test_a_phone_asks_what_we_can_and_may_not_register(tmp_path: Path) -> None:
    """OPTIONS is answered; REGISTER, which we do not serve, gets 405 with what we allow, and the phone goes on."""
    async with phone_and_house(tmp_path) as (house, phone):
        await phone.do("options", house.uri)
        host, port = house.address
        await phone.do("uanew", f"<sip:desk@{host}:{port}>;regint=60")
        failure = await phone.until("REGISTER_FAIL")
        assert failure["param"] == "405 Method Not Allowed"
        flow = house.sip.flow
        assert flow == ["in OPTIONS", "out 200 OPTIONS", "in REGISTER", "out 405 REGISTER"]
        refusal = house.sip.find("out 405 REGISTER").message
        assert refusal.header("Allow") == ALLOW[1]
        assert "REGISTER" not in ALLOW[1]
        async with called(house, phone) as agent:
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()


async def test_calls_do_not_disturb_one_another(tmp_path: Path) -> None:
    """Three phones at once: each agent hears its own phone alone, and each phone its own agent."""
    talks = {
        "anna": ("one coffee please", "with milk"),
        "bert": ("two teas", "any sugar"),
        "carl": ("the bill", "here"),
    }
    finals: dict[str, list[str]] = {}

    async def talk(house: RealHouse, notice: Mapping[str, Any]) -> None:
        async with house.agent(f"/call/sip?id={notice['dialogId']}") as agent:
            user = parse_uri(notice["caller"]).user or ""
            await agent.send("accept", option=SPEECH)
            await agent.until("asrFinal")
            await agent.send("tts", text=talks[user][1], endOfStream=True, autoHangup=True)
            await over(agent, "system", "system")
            finals[user] = [event["text"] for event in agent.events if event["event"] == "asrFinal"]

    async with AsyncExitStack() as exits:
        house = await exits.enter_async_context(open_real_house(tmp_path))
        phones = [
            await exits.enter_async_context(open_baresip(tmp_path, user=user, says=spoken(says)))
            for user, (says, _) in talks.items()
        ]
        async with trio.open_nursery() as nursery:
            for phone in phones:
                await phone.do("dial", house.uri)
                nursery.start_soon(talk, house, await house.webhook.calls.receive())
        for phone in phones:
            await phone.closed()
        assert finals == {user: [says] for user, (says, _) in talks.items()}
        assert {phone.user: heard_text(phone.heard()) for phone in phones} == {
            user: answer for user, (_, answer) in talks.items()
        }
        assert await house.owned() == NOTHING
