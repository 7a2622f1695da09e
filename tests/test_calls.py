"""Whole calls in virtual time: a phone, the server, its webhook and an agent, over an in-memory network.

After each call nothing of it is left: no leg, no dialog, no transaction, no task, no bound port.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import pytest
import trio
import trio_websocket

from rustpbx.media.events import Codec, Direction
from rustpbx.settings import UaConfig
from rustpbx.sip import events as sip
from rustpbx.testing.phone import CallRefusedError, PhoneCall
from rustpbx.testing.speech import ScriptedSynthesizer, tone
from rustpbx.testing.wire import Link
from tests.kit.agent import Agent
from tests.kit.house import SERVER, House, open_house, server_config

DIAL = f"sip:800@{SERVER}:5060"
SCRIPTED = {"asr": {"provider": "scripted"}, "tts": {"provider": "scripted"}, "vad": {"type": "webrtc"}}
SETTLED = 64 * 0.5 + 31
"""Virtual seconds after a call until its transactions (64*T1) and its port's quarantine are over."""


@asynccontextmanager
async def quiet_house(**options: Any) -> AsyncIterator[House]:
    """A house that must own nothing of any call once it has settled."""
    async with open_house(**options) as house:
        tasks = trio.lowlevel.current_statistics().tasks_living
        bound = len(house.wire.bound)
        yield house
        await trio.sleep(SETTLED)
        assert house.leftovers() == {"calls": 0, "legs": 0, "dialogs": 0, "transactions": 0}
        assert len(house.wire.bound) == bound
        assert trio.lowlevel.current_statistics().tasks_living == tasks


@asynccontextmanager
async def answered(house: House, **option: Any) -> AsyncIterator[tuple[PhoneCall, Agent]]:
    """A phone's call that the agent has accepted."""
    call = await house.phone.dial(DIAL)
    async with house.incoming() as (agent, _):
        await agent.send("accept", option=option or SCRIPTED)
        await agent.until("answer")
        await call.answered()
        yield call, agent


async def refused_upgrade(house: House, path: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON that a WebSocket upgrade is refused with."""
    try:
        async with house.agent(path):
            raise AssertionError("the upgrade went through")
    except* trio_websocket.ConnectionRejected as group:
        (rejected,) = group.exceptions
        assert isinstance(rejected, trio_websocket.ConnectionRejected)
        answer = rejected.status_code, json.loads(rejected.body or b"{}")
    return answer


async def over(agent: Agent) -> dict[str, Any]:
    """The `hangup` event, checked to be the last, followed by a normal close."""
    names = await agent.ended()
    assert names[-1] == "hangup"
    assert names.count("hangup") == 1
    assert agent.closed == 1000
    return agent.events[-1]


async def test_a_phone_rings_an_agent_answers_listens_speaks_and_hangs_up() -> None:
    """The main job, whole: webhook, incoming, answer, speech heard, transcript, speech back, goodbye."""
    async with quiet_house(transcripts=("hello agent",)) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, notice):
            assert notice["event"] == "invite"
            assert notice["caller"] == house.phone.uri
            await agent.send("ringing")
            assert (await call.progressed()).status == 180
            await agent.send("accept", option=SCRIPTED)
            await call.answered()
            await agent.send("tts", text="good morning", playId="greeting", endOfStream=True)
            await agent.until("trackEnd")
            spoken = tone(1.2)
            await call.say(spoken)
            speaking, silence = await agent.until("speaking"), await agent.until("silence")
            assert abs(silence["startTime"] - speaking["startTime"] - 1200) < 150
            final = await agent.until("asrFinal")
            assert final["text"] == "hello agent"
            assert abs(final["startTime"] - speaking["startTime"]) < 200
            await agent.send("tts", text="you said hello", playId="reply", endOfStream=True, autoHangup=True)
            hangup = await over(agent)
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        assert (hangup["reason"], hangup["initiator"]) == ("system", "system")
        assert agent.names[:3] == ["incoming", "trackStart", "answer"]
        assert agent.names[-4:] == ["trackStart", "trackEnd", "trackEnd", "hangup"]
        # Both texts at 50 ms a character; the samples around a tone's zeros are quiet.
        loud = int((np.abs(call.hear().astype(np.int32)) > 1000).sum())
        assert loud / 8000 == pytest.approx(0.05 * (12 + 14), abs=0.4)


async def test_an_agent_calls_a_phone() -> None:
    """Out: trackStart, ringing, answer with the phone's SDP, speech, and the phone hangs up."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri, "caller": "sip:bot@10.0.0.1", **SCRIPTED})
        call = await house.phone.ring()
        call.ringing()
        await agent.until("ringing")
        call.answer()
        answer = await agent.until("answer")
        assert "m=audio" in answer["sdp"]
        await agent.send("tts", text="hello", endOfStream=True)
        await agent.until("trackEnd")
        call.hang_up()
        hangup = await over(agent)
        assert agent.names == ["trackStart", "ringing", "answer", "trackStart", "trackEnd", "trackEnd", "hangup"]
        assert (hangup["reason"], hangup["initiator"], hangup["refer"]) == ("callee", "callee", False)
        assert hangup["to"]["source"] == house.phone.uri
        assert (np.abs(call.hear()) > 1000).any()


async def test_a_phone_without_sound_hears_silence_from_the_answer_on() -> None:
    """RTP flows both ways as soon as the call is up, so no carrier times it out."""
    async with quiet_house() as house, answered(house, vad={"type": "webrtc"}) as (call, agent):
        await trio.sleep(2)
        assert len(call.hear()) / 8000 == pytest.approx(2.0, abs=0.1)
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize(("code", "sent"), [(None, 603), (486, 486)])
async def test_an_agent_rejects(code: int | None, sent: int) -> None:
    """The phone gets the agent's code."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("reject", reason="not now", **({} if code is None else {"code": code}))
            with pytest.raises(CallRefusedError) as refused:
                await call.answered()
            assert refused.value.status == sent
            assert (await over(agent))["reason"] == "rejected"


async def test_a_busy_phone() -> None:
    """486 from the callee is `reject` with its code and phrase, then the end."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri})
        (await house.phone.ring()).reject(486)
        reject = await agent.until("reject")
        assert (reject["code"], reject["reason"]) == (486, "Busy Here")
        assert (await over(agent))["initiator"] == "callee"
        assert agent.names == ["trackStart", "reject", "trackEnd", "hangup"]


async def test_a_caller_gives_up() -> None:
    """CANCEL: 487 to the phone, `hangup` canceled to the agent."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("ringing")
            await call.progressed()
            call.hang_up()
            hangup = await over(agent)
            assert (hangup["reason"], hangup["initiator"]) == ("canceled", "caller")


async def test_an_agent_gives_up_ringing() -> None:
    """`hangup` while it rings cancels at once."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri})
        call = await house.phone.ring()
        call.ringing()
        await agent.until("ringing")
        await agent.send("hangup")
        assert isinstance((await call.ended()).cause, sip.CallCancelled)
        await over(agent)


async def test_nobody_claims_a_call() -> None:
    """An unclaimed call waits accept_timeout and gets 480."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL)
        began = trio.current_time()
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 480
        assert trio.current_time() - began == pytest.approx(50, abs=1)


async def test_a_phone_that_never_answers() -> None:
    """The ring limit cancels the INVITE and rejects with 408."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri})
        call = await house.phone.ring()
        call.ringing()
        reject = await agent.until("reject")
        assert reject["code"] == 408
        assert (await over(agent))["reason"] == "noAnswer"
        assert isinstance((await call.ended()).cause, sip.CallCancelled)


async def test_a_call_may_ring_as_long_as_the_configuration_says() -> None:
    """A `ring_timeout` of five minutes is above what the user agent allows by itself; the answer after four counts."""
    ua = attrs.evolve(server_config().ua or UaConfig(), ring_timeout=300.0)
    async with open_house(server_config(ua=ua)) as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri})
        call = await house.phone.ring()
        call.ringing()
        await agent.until("ringing")
        await trio.sleep(240)
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await call.ended()


async def test_a_phone_that_is_not_there() -> None:
    """Nothing answers our INVITE: timer B, `reject` 408."""
    async with quiet_house() as house, house.agent() as agent:
        began = trio.current_time()
        await agent.send("invite", option={"callee": "sip:nobody@10.0.0.77"})
        assert (await agent.until("reject"))["code"] == 408
        assert trio.current_time() - began == pytest.approx(32, abs=0.5)
        await over(agent)


async def test_a_callee_without_an_address() -> None:
    """A name nobody knows is an error of the invite, and the end."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": "sip:x@nowhere.test"})
        error = await agent.until("error")
        assert error["sender"] == "invite"
        assert "nowhere.test" in error["error"]
        await over(agent)


async def test_the_webhook_refuses() -> None:
    """A webhook that fails is a 503 to the phone."""
    async with quiet_house() as house:
        house.webhook.status = 500
        call = await house.phone.dial(DIAL)
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 503


async def test_a_webhook_that_answers_late_loses_nothing() -> None:
    """The agent comes before the webhook's answer, which never comes."""
    async with quiet_house() as house:
        house.webhook.silent = True
        async with answered(house) as (call, agent):
            await trio.sleep(20)
            await agent.send("hangup")
            await over(agent)
            assert (await call.ended()).cause is not None


async def test_no_webhook_at_all() -> None:
    """503 with the reason, for a server that nobody configured to take calls."""
    config = server_config(ua=UaConfig(addr=SERVER, udp_port=5060))
    async with quiet_house(config=config) as house:
        call = await house.phone.dial(DIAL)
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 503
        assert any(b'text="No invite handler configured"' in traced.data for traced in house.phone.trace)


async def test_the_agents_socket_drops_before_it_claimed_the_call() -> None:
    """The call waits for the next agent, who accepts it."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL)
        notice = await house.webhook.calls.receive()
        path = f"/call/sip?id={notice['dialogId']}"
        async with house.agent(path) as first:
            await first.until("incoming")
            await first.drop()
        async with house.agent(path) as second:
            await second.until("incoming")
            await second.send("accept", option={})
            await call.answered()
            await second.send("hangup")
            await over(second)


async def test_the_agents_socket_drops_after_the_answer() -> None:
    """A call without an agent never stays up: the phone gets its BYE."""
    async with quiet_house() as house, answered(house) as (call, agent):
        await agent.drop()
        assert isinstance((await call.ended()).cause, sip.ByeReceived)


async def test_the_agents_socket_drops_while_the_phone_rings() -> None:
    """An outgoing call without its agent is cancelled."""
    async with quiet_house() as house:
        async with house.agent() as agent:
            await agent.send("invite", option={"callee": house.phone.uri})
            call = await house.phone.ring()
            call.ringing()
            await agent.until("ringing")
            await agent.drop()
        assert isinstance((await call.ended()).cause, sip.CallCancelled)


async def test_a_second_socket_for_a_call_is_refused() -> None:
    """409: never two sockets that steer one call."""
    async with quiet_house() as house, answered(house) as (_, agent):
        dialog = agent.events[0]["trackId"]
        status, body = await refused_upgrade(house, f"/call/sip?id={dialog}")
        assert (status, body) == (409, {"error": "session already exists", "id": dialog})
        await agent.send("hangup")
        await over(agent)


async def test_kill_ends_a_call() -> None:
    """As a dropped socket would, but the agent is told."""
    async with quiet_house() as house, answered(house) as (call, agent):
        (summary,) = house.server.registry.summaries()
        assert house.server.registry.kill(summary.session_id)
        assert (await over(agent))["reason"] == "system"
        assert isinstance((await call.ended()).cause, sip.ByeReceived)


async def test_shutdown_hangs_up_and_refuses_new_calls() -> None:
    """Running calls get their BYE and `hangup`; the next INVITE gets 503."""
    async with quiet_house() as house, answered(house) as (call, agent):
        await house.server.shutdown()
        await over(agent)
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        late = await house.phone.dial(DIAL)
        with pytest.raises(CallRefusedError) as refused:
            await late.answered()
        assert refused.value.status == 503


async def test_dtmf_is_one_event_a_key() -> None:
    """RFC 4733 from the phone, once per press."""
    async with quiet_house() as house, answered(house) as (call, agent):
        for digit in "05*":
            await call.press(digit)
        await agent.until("dtmf", 3)
        assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == ["0", "5", "*"]
        await agent.send("hangup")
        await over(agent)


async def test_barge_in_stops_the_voice_within_two_frames() -> None:
    """`interrupt` tells what was heard, and the phone hears no more than that."""
    synthesizer = ScriptedSynthesizer()
    async with quiet_house(synthesizer=synthesizer) as house, answered(house) as (call, agent):
        await agent.send("tts", text="x" * 100, playId="long")
        await call.line.sound()
        await trio.sleep(1.0)
        await agent.send("interrupt")
        cut = await agent.until("interruption")
        stopped = trio.current_time()
        await agent.until("trackEnd")
        assert cut["current"] == pytest.approx(1000, abs=60)
        assert cut["subtitle"] == "x" * 100
        await trio.sleep(1.0)
        assert call.line.loud_at <= stopped + 0.04
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("change", ["port", "codec", "hold"])
async def test_a_re_invite_changes_media_within_half_a_second(change: str) -> None:
    """A new port or codec is heard at once; hold stops our audio and unhold brings it back."""
    async with quiet_house() as house, answered(house) as (call, agent):
        await agent.send("tts", text="y" * 400, playId="long")
        await call.line.sound()
        if change == "port":
            await call.re_invite(port=0)
        elif change == "codec":
            await call.re_invite(codecs=(Codec.PCMA,))
            assert call.line.format is not None
            assert call.line.format.codec is Codec.PCMA
        else:
            await call.re_invite(direction=Direction.SENDONLY)
            held = trio.current_time()
            await trio.sleep(2)
            assert call.line.heard[-1].at <= held + 0.1
            await call.re_invite(direction=Direction.SENDRECV)
        changed = trio.current_time()
        assert await call.line.sound(changed) <= changed + 0.5
        await call.say(tone(0.8))
        await agent.until("speaking")
        await agent.send("hangup")
        await over(agent)


async def test_a_reply_to_early_media() -> None:
    """183 with SDP is `ringing` with earlyMedia, and VAD hears the callee before it answers."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri, "vad": {"type": "webrtc"}})
        call = await house.phone.ring()
        call.ringing(183, early_media=True)
        assert (await agent.until("ringing"))["earlyMedia"] is True
        await call.say(tone(1.0))
        await agent.until("speaking")
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await over(agent)


async def test_a_failing_synthesis_ends_its_playback_and_nothing_else() -> None:
    """`error`, then `trackEnd`; the next text is heard."""
    from rustpbx.errors import SpeechError  # noqa: PLC0415 - only here

    synthesizer = ScriptedSynthesizer(failures={"bad": SpeechError("no such voice", 400)})
    async with quiet_house(synthesizer=synthesizer) as house, answered(house) as (call, agent):
        await agent.send("tts", text="bad", playId="1", endOfStream=True)
        error = await agent.until("error")
        assert (error["sender"], error["error"], error["code"]) == ("tts.scripted", "no such voice", 400)
        await agent.until("trackEnd")
        await agent.send("tts", text="good", playId="2", endOfStream=True)
        await call.line.sound()
        await agent.until("trackEnd", 2)
        await agent.send("hangup")
        await over(agent)


async def test_two_calls_at_once_hear_their_own_voice() -> None:
    """No call's audio or events reach the other."""
    async with quiet_house() as house, answered(house) as (one, first), answered(house) as (two, second):
        await first.send("tts", text="only for one", playId="a", endOfStream=True)
        await first.until("trackEnd")
        assert (np.abs(one.hear()) > 1000).any()
        assert not (np.abs(two.hear()) > 1000).any()
        assert "trackEnd" not in second.names
        for agent in (first, second):
            await agent.send("hangup")
            await over(agent)


@pytest.mark.parametrize("seed", range(3))
async def test_a_call_over_a_wire_that_loses_and_doubles(seed: int) -> None:
    """With a fifth of all datagrams lost and a tenth doubled, both sides still agree, and nothing is left."""
    link = Link(loss=0.2, duplication=0.1, delay=0.03, jitter=0.02)
    async with quiet_house(seed=seed, link=link) as house, answered(house) as (call, agent):
        await agent.send("tts", text="can you hear me", endOfStream=True)
        await agent.until("trackEnd")
        assert (np.abs(call.hear()) > 1000).any()
        await agent.send("hangup")
        await over(agent)
        assert (await call.ended()).cause is not None


async def test_the_advertised_address_is_in_contact_and_sdp() -> None:
    """Behind NAT with `external_ip`: what peers must reach carries it, what we bind does not."""
    config = server_config(external_ip="203.0.113.7")
    async with open_house(config) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            answer = await agent.until("answer")
            assert "c=IN IP4 203.0.113.7" in answer["sdp"]
            (ok,) = (traced.data for traced in house.phone.trace if traced.data.startswith(b"SIP/2.0 200"))
            assert b"Contact: <sip:800@203.0.113.7:5060>" in ok
            call.hang_up()
