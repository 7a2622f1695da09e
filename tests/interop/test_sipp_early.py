"""Before the answer, with sipp: reliable provisional responses both ways, early media, late offers, forks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.calls import SPEECH, audio_port, destinations, echoed, over, sipp_answers, sipp_calls
from tests.kit.sipp import CALLEE, CALLER, INVITED, audio, callee, expect, respond

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.real_time]

RELIABLE = {"RSeq": "rseq"}
PRACK = "RAck: [$rseq] 1 INVITE"


@pytest.mark.rfc("3262", "3")
async def test_a_caller_that_requires_reliable_responses(tmp_path: Path) -> None:
    """The 180 comes with an RSeq, its PRACK gets 200, and then the call is answered."""
    steps = [
        CALLER.invite("Require: 100rel", body=audio()),
        expect(180, RELIABLE, Require="100rel"),
        CALLER.request("PRACK", PRACK, cseq=2),
        expect(200, CSeq="2 PRACK"),
        expect(200, CSeq="1 INVITE"),
        CALLER.request("ACK"),
        *CALLER.hangs_up(3),
    ]
    async with sipp_calls(tmp_path, *steps) as (house, agent):
        await agent.send("ringing")
        await house.sip.until("in PRACK")
        await agent.send("accept", option=SPEECH)
        await over(agent, "caller", "caller")
    assert house.sip.flow == [
        *("in INVITE", "out 100 INVITE", "out 180 INVITE", "in PRACK", "out 200 PRACK"),
        *("out 200 INVITE", "in ACK", "in BYE", "out 200 BYE"),
    ]


@pytest.mark.rfc("3311", "5.2")
async def test_early_media_moves_by_update(tmp_path: Path) -> None:
    """A reliable 183 is the answer; an UPDATE before the 200 wants the audio elsewhere, and there it goes."""
    moved = audio(port="[media_port+2]", version=2)
    steps = [
        CALLER.invite("Supported: 100rel", body=audio()),
        expect(183, RELIABLE, Require="100rel"),
        CALLER.request("PRACK", PRACK, cseq=2),
        expect(200, CSeq="2 PRACK"),
        CALLER.request("UPDATE", body=moved, cseq=3),
        expect(200, CSeq="3 UPDATE"),
        expect(200, CSeq="1 INVITE"),
        CALLER.request("ACK"),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.send("ringing", earlyMedia=True)
        await house.sip.until("out 200 UPDATE")
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert audio_port(house, "in UPDATE") == audio_port(house, "in INVITE") + 2
    assert audio_port(house, "out 200 UPDATE") == audio_port(house, "out 183 INVITE")
    assert destinations(house)[-1] == audio_port(house, "in UPDATE")


@pytest.mark.rfc("3960", "3")
async def test_early_media_for_a_caller_without_reliable_responses(tmp_path: Path) -> None:
    """The 183 is not reliable, and the 200 has the same answer; what is said is heard."""
    steps = [
        CALLER.invite(body=audio()),
        expect(183),
        expect(200),
        CALLER.request("ACK"),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.send("ringing", earlyMedia=True)
        early = await house.sip.until("out 183 INVITE")
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert house.sip.find("out 200 INVITE").message.body == early.message.body
    assert early.message.header("Require") is None


@pytest.mark.rfc("3264", "5")
async def test_a_caller_that_offers_nothing(tmp_path: Path) -> None:
    """Our offer is in the 200, the answer in the ACK; then sound passes both ways."""
    steps = [
        CALLER.invite(),
        expect(200, Content_Type="application/sdp"),
        CALLER.request("ACK", body=audio()),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert house.sip.flow[:4] == ["in INVITE", "out 100 INVITE", "out 200 INVITE", "in ACK"]
    assert destinations(house) == [audio_port(house, "in ACK")]


@pytest.mark.rfc("3262", "5")
async def test_a_caller_that_answers_in_its_prack(tmp_path: Path) -> None:
    """An INVITE without an offer gets ours in the reliable 183; the answer is in the PRACK."""
    steps = [
        CALLER.invite("Supported: 100rel"),
        expect(183, RELIABLE, Require="100rel", Content_Type="application/sdp"),
        CALLER.request("PRACK", PRACK, body=audio(), cseq=2),
        expect(200, CSeq="2 PRACK"),
        expect(200, CSeq="1 INVITE"),
        CALLER.request("ACK"),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.send("ringing", earlyMedia=True)
        await house.sip.until("in PRACK")
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert destinations(house) == [audio_port(house, "in PRACK")]


@pytest.mark.rfc("3262", "4")
async def test_a_callee_that_rings_reliably(tmp_path: Path) -> None:
    """Each provisional response gets its PRACK; the answer is in the second, moves by UPDATE, and is not in the 200."""
    steps = [
        expect("INVITE", INVITED, Supported="100rel"),
        CALLEE.answers("180 Ringing", "Require: 100rel", "RSeq: 7"),
        expect("PRACK", RAck="7 [0-9]+ INVITE"),
        respond("200 OK"),
        CALLEE.answers("183 Session Progress", "Require: 100rel", "RSeq: 8", body=audio()),
        expect("PRACK", RAck="8 [0-9]+ INVITE"),
        respond("200 OK"),
        CALLEE.request("UPDATE", body=audio(port="[media_port+2]", version=2)),
        expect(200),
        CALLEE.answers("200 OK"),
        expect("ACK"),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert house.sip.flow == [
        *("out INVITE", "in 180 INVITE", "out PRACK", "in 200 PRACK", "in 183 INVITE", "out PRACK", "in 200 PRACK"),
        *("in UPDATE", "out 200 UPDATE", "in 200 INVITE", "out ACK", "out BYE", "in 200 BYE"),
    ]
    assert destinations(house)[-1] == audio_port(house, "in UPDATE")


@pytest.mark.rfc("3261", "13.2.2.1")
async def test_a_callee_with_several_announcements(tmp_path: Path) -> None:
    """180 without SDP, two 183 with, and a 200: the agent is told of each, and which of them bring sound."""
    steps = [
        expect("INVITE", INVITED),
        CALLEE.answers("180 Ringing"),
        CALLEE.answers("183 Session Progress", body=audio()),
        CALLEE.answers("183 Session Progress", "X-Announcement: 2", body=audio(port="[media_port+2]", version=2)),
        CALLEE.answers("200 OK", body=audio(port="[media_port+2]", version=2)),
        expect("ACK"),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps, options=("-rtp_echo",)) as (house, agent):
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert [event["earlyMedia"] for event in agent.events if event["event"] == "ringing"] == [False, True, True]
    assert destinations(house)[-1] == audio_port(house, "in 200 INVITE")


@pytest.mark.rfc("3261", "13.2.2.4")
async def test_a_fork_that_answers_too_late(tmp_path: Path) -> None:
    """Two phones ring and both answer: the first has the call, the second is acknowledged and hung up."""
    other = callee("other")
    steps = [
        expect("INVITE", INVITED),
        CALLEE.answers("180 Ringing"),
        other.answers("183 Session Progress", body=audio()),
        CALLEE.answers("200 OK", body=audio()),
        expect("ACK", To="callee"),
        other.answers("200 OK", body=audio(port="[media_port+2]")),
        expect("ACK", To="other"),
        expect("BYE", To="other"),
        respond("200 OK"),
        expect("BYE", To="callee"),
        respond("200 OK"),
    ]
    async with sipp_answers(tmp_path, *steps) as (house, agent):
        await house.sip.until("out BYE")
        await agent.send("hangup")
        assert (await over(agent, "system", "system")).count("answer") == 1
