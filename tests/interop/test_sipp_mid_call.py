"""In the middle of calls with sipp: hold, other addresses and codecs, late offers, glare, transfers, keys."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from rustpbx.media.dtmf import digit_packets
from rustpbx.media.events import Direction
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.sip.events import SendOffer
from tests.interop.calls import (
    SIGNAL,
    SPEECH,
    audio_port,
    destinations,
    direction,
    echoed,
    over,
    signal,
    sipp_answers,
    sipp_calls,
)
from tests.kit.agent import Agent
from tests.kit.real import LOOPBACK, RealHouse
from tests.kit.sipp import CALLEE, CALLER, INVITED, audio, expect, playing, respond

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.real_time]

ECHO = ("-rtp_echo",)
CALLS = (CALLER.invite(body=audio()), expect(200), CALLER.request("ACK"))
ANSWERS = (expect("INVITE", INVITED), CALLEE.answers("200 OK", body=audio()), expect("ACK"))


def reinvites(*fields: str, body: str, cseq: int = 2, ack: str = "") -> tuple[str, str, str]:
    """Sipp's re-INVITE, and its ACK with `ack` in it."""
    again = CALLER.request("INVITE", *fields, body=body, cseq=cseq)
    return again, expect(200, CSeq=f"{cseq} INVITE"), CALLER.request("ACK", body=ack, cseq=cseq)


async def offer(house: RealHouse, agent: Agent, *, update: bool = False) -> None:
    """Our side of the call offers once more what is agreed."""
    track = (await agent.until("answer"))["trackId"]
    await house.sip.until("in ACK")
    agreed = house.sip.find("out 200 INVITE").message.body
    assert house.server.stack is not None
    house.server.stack.wish(SendOffer(track, agreed, update=update))


async def hang_up(agent: Agent) -> None:
    """The agent ends the call."""
    await agent.send("hangup")
    await over(agent, "system", "system")


@pytest.mark.rfc("3264", "8.4")
@pytest.mark.rfc("3264", "8.3.1")
async def test_a_caller_holds_and_comes_back_elsewhere(tmp_path: Path) -> None:
    """Sendonly is answered by recvonly; the resume wants audio at another port, and there it is heard."""
    steps = [
        *CALLS,
        *SIGNAL,
        *reinvites(body=audio("sendonly", version=2)),
        *reinvites(body=audio("sendrecv", port="[media_port+2]", version=3), cseq=3),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps, options=ECHO) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await signal(house, agent)
        await house.sip.until("in ACK", 3)
        await echoed(agent)
        await hang_up(agent)
    answers = [direction(house.sip.find("out 200 INVITE", count)) for count in (1, 2, 3)]
    assert answers == [Direction.SENDRECV, Direction.RECVONLY, Direction.SENDRECV]
    assert destinations(house) == [audio_port(house, "in INVITE"), audio_port(house, "in INVITE", 3)]
    assert destinations(house)[1] == destinations(house)[0] + 2


@pytest.mark.rfc("3264", "8.3.2")
async def test_a_caller_changes_the_codec(tmp_path: Path) -> None:
    """From one law to the other: what we send changes with the answer, and is understood."""
    steps = [*CALLS, *SIGNAL, *reinvites(body=audio(formats="8", version=2)), *CALLER.is_hung_up()]
    async with sipp_calls(tmp_path, *steps, options=ECHO) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await signal(house, agent)
        await house.sip.until("in ACK", 2)
        await echoed(agent)
        await hang_up(agent)
    assert (house.rtp.sent[0].payload_type, house.rtp.sent[-1].payload_type) == (0, 8)


@pytest.mark.rfc("6141", "3.3")
async def test_a_change_that_we_cannot_follow(tmp_path: Path) -> None:
    """488, and the call goes on as it was."""
    refused = CALLER.request("INVITE", body=audio(formats="18", port="[media_port+2]", version=2), cseq=2)
    steps = [*CALLS, refused, *CALLER.takes_no(488, cseq=2, within=True), *CALLER.is_hung_up()]
    async with sipp_calls(tmp_path, *steps, options=ECHO) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await house.sip.until("in ACK", 2)
        await echoed(agent)
        await hang_up(agent)
    assert destinations(house) == [audio_port(house, "in INVITE")]


@pytest.mark.rfc("3311", "5.2")
async def test_a_caller_moves_by_update(tmp_path: Path) -> None:
    """In the middle of a call as before it: answered in the 200, and our audio goes where it says."""
    moved = CALLER.request("UPDATE", body=audio(port="[media_port+2]", version=2), cseq=2)
    steps = [*CALLS, *SIGNAL, moved, expect(200, CSeq="2 UPDATE", Content_Type="sdp"), *CALLER.is_hung_up()]
    async with sipp_calls(tmp_path, *steps, options=ECHO) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await signal(house, agent)
        await house.sip.until("out 200 UPDATE")
        await echoed(agent)
        await hang_up(agent)
    assert destinations(house) == [audio_port(house, "in INVITE"), audio_port(house, "in UPDATE")]


@pytest.mark.rfc("3311", "5.1")
@pytest.mark.parametrize("update", [True, False])
@pytest.mark.parametrize("status", ["200 OK", "488 Not Acceptable Here", "491 Request Pending"])
async def test_we_offer_a_session(tmp_path: Path, status: str, *, update: bool) -> None:
    """By UPDATE or re-INVITE: taken, refused for good, or refused for the moment and made again; the call goes on."""
    name = "UPDATE" if update else "INVITE"
    ack = () if update else (expect("ACK"),)
    refused = () if status == "200 OK" else (expect(name), respond(status), *ack)
    taken = () if status.startswith("488") else (expect(name), respond("200 OK", body=audio()), *ack)
    allow = "Allow: INVITE, ACK, BYE, CANCEL, INFO, UPDATE"
    steps = [CALLER.invite(allow, body=audio()), expect(200), CALLER.request("ACK"), *refused, *taken]
    async with sipp_calls(tmp_path, *steps, *CALLER.is_hung_up(), options=ECHO) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await offer(house, agent, update=update)
        await house.sip.until(f"in {'488' if status.startswith('488') else '200'} {name}")
        await echoed(agent)
        await hang_up(agent)


@pytest.mark.rfc("6337", "3.1.2")
async def test_a_caller_asks_for_our_offer(tmp_path: Path) -> None:
    """A re-INVITE without SDP gets an offer; its ACK has the answer, and moves the audio."""
    moved = audio(port="[media_port+2]", version=2)
    steps = [*CALLS, *SIGNAL, *reinvites(body="", ack=moved), *CALLER.is_hung_up()]
    async with sipp_calls(tmp_path, *steps, options=ECHO) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await agent.until("answer")
        await echoed(agent)
        await signal(house, agent)
        await house.sip.until("in ACK", 2)
        await echoed(agent)
        await hang_up(agent)
    assert destinations(house) == [audio_port(house, "in INVITE"), audio_port(house, "in ACK", 2)]


@pytest.mark.rfc("3261", "14.1")
@pytest.mark.rfc("3261", "14.2")
async def test_two_offers_meet(tmp_path: Path) -> None:
    """491 to both; ours is made again a little later, and taken."""
    steps = [
        *CALLS,
        expect("INVITE", INVITED),
        CALLER.request("INVITE", body=audio(version=2), cseq=2),
        *CALLER.takes_no(491, cseq=2, within=True),
        CALLER.answers("491 Request Pending"),
        expect("ACK"),
        expect("INVITE", INVITED),
        CALLER.answers("200 OK", body=audio()),
        expect("ACK"),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await offer(house, agent)
        await house.sip.until("out ACK", 2)
        await hang_up(agent)


@pytest.mark.rfc("3515", "2.4.4")
async def test_a_caller_asks_for_a_transfer(tmp_path: Path) -> None:
    """The agent is told whom to; the caller hears of each step, and of the end, in a NOTIFY."""
    told = expect("NOTIFY", Event="refer", Subscription_State="active"), respond("200 OK")
    steps = [
        *CALLS,
        CALLER.request("REFER", "Refer-To: <sip:carol@example.com>", cseq=2),
        expect(202),
        *told,
        *told,
        expect("NOTIFY", Event="refer", Subscription_State="terminated"),
        respond("200 OK"),
        *CALLER.hangs_up(3),
    ]
    async with sipp_calls(tmp_path, *steps) as (house, agent):
        await agent.send("accept", option=SPEECH)
        other = await agent.until("other")
        assert (other["sender"], other["extra"]["target"]) == ("refer", "sip:carol@example.com")
        await agent.send("referred", code=180)
        await agent.send("referred", code=200)
        await over(agent, "caller", "caller")
    bodies = [passed.message.body.decode() for passed in house.sip.messages if passed.summary == "out NOTIFY"]
    assert [body.split("\r\n")[0] for body in bodies] == ["SIP/2.0 100 Trying", "SIP/2.0 180 Ringing", "SIP/2.0 200 OK"]


def notify(status: str, state: str, cseq: int) -> tuple[str, str]:
    """Sipp tells what became of our REFER."""
    fields = ("Event: refer", f"Subscription-State: {state}")
    return CALLEE.request("NOTIFY", *fields, body=f"SIP/2.0 {status}\n", kind="message/sipfrag", cseq=cseq), expect(200)


@pytest.mark.rfc("3515", "2.4.5")
@pytest.mark.parametrize("outcome", ["200 OK", "486 Busy Here"])
async def test_the_agent_sends_a_callee_elsewhere(tmp_path: Path, outcome: str) -> None:
    """Our REFER is taken and followed by NOTIFYs: a transfer that worked ends the call, one that did not leaves it."""
    steps = [
        *ANSWERS,
        expect("REFER", Refer_To="sip:carol@example.com"),
        respond("202 Accepted"),
        *notify("100 Trying", "active;expires=60", 1),
        *notify(outcome, "terminated;reason=noresource", 2),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps) as (_, agent):
        await agent.until("answer")
        await agent.send("refer", caller="sip:bot@h", callee="sip:carol@example.com", options={"mode": "blind"})
        if outcome == "200 OK":
            await over(agent, "refer", "system")
        else:
            reject = await agent.until("reject")
            assert (reject["code"], reject["reason"]) == (486, "Busy Here")
            await hang_up(agent)


@pytest.mark.rfc("3891", "3")
async def test_somebody_takes_the_callers_place(tmp_path: Path) -> None:
    """An INVITE with Replaces: the newcomer is heard in the same session, and who was there before is hung up on."""
    (tmp_path / "newcomer").mkdir()
    async with sipp_calls(tmp_path, *CALLS, *CALLER.is_hung_up()) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await house.sip.until("in ACK")
        answer = house.sip.find("out 200 INVITE").message
        call, to, caller = answer.call_id, answer.to.tag, answer.from_.tag
        replaces = f"Replaces: {call};to-tag={to};from-tag={caller}"
        steps = [CALLER.invite(replaces, body=audio()), expect(200), CALLER.request("ACK"), *CALLER.is_hung_up()]
        host, port = house.address
        async with playing(tmp_path / "newcomer", steps, f"{host}:{port}", *ECHO):
            await house.sip.until("in 200 BYE")
            assert (await agent.until("other"))["sender"] == "replaces"
            await echoed(agent)
            await hang_up(agent)
    assert destinations(house)[-1] == audio_port(house, "in INVITE", 2)


async def test_keys_come_in_info(tmp_path: Path) -> None:
    """In both bodies that there are."""
    steps = [
        *CALLS,
        CALLER.request("INFO", body="Signal=5\nDuration=160\n", kind="application/dtmf-relay", cseq=2),
        expect(200, CSeq="2 INFO"),
        CALLER.request("INFO", body="#", kind="application/dtmf", cseq=3),
        expect(200, CSeq="3 INFO"),
        *CALLER.hangs_up(4),
    ]
    async with sipp_calls(tmp_path, *steps) as (_, agent):
        await agent.send("accept", option=SPEECH)
        await over(agent, "caller", "caller")
    assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == ["5", "#"]


async def test_keys_go_out_in_info(tmp_path: Path) -> None:
    """To a callee whose SDP has no telephone-event: one after the other."""
    pressed = [step for key in "4#" for step in (expect("INFO", Content_Type="dtmf-relay"), respond("200 OK"))]
    async with sipp_answers(tmp_path, *ANSWERS, *pressed, *CALLEE.is_hung_up()) as (house, agent):
        await agent.until("answer")
        await agent.send("dtmf", digits="4#")
        await house.sip.until("in 200 INFO", 2)
        await hang_up(agent)
    bodies = [passed.message.body.decode() for passed in house.sip.messages if passed.summary == "out INFO"]
    assert [body.split()[0] for body in bodies] == ["Signal=4", "Signal=#"]


async def press(house: RealHouse, phone: trio.socket.SocketType) -> None:
    """Keys as bad lines bring them: 1 without its first packet, 2 without its ends, 3 with each packet three times."""
    sequence = 0
    for number, key in enumerate("123"):
        packets = [(each.marker, each.payload) for each in digit_packets(key)]
        packets = {"1": packets[1:], "2": packets[:-3], "3": [each for each in packets for _ in range(3)]}[key]
        for marker, payload in packets:
            packet = RtpPacket(
                payload_type=101, sequence=sequence, timestamp=8000 * number, ssrc=7, payload=payload, marker=marker
            )
            await phone.sendto(build_rtp(packet), (LOOPBACK, audio_port(house, "out 200 INVITE")))
            sequence += 1


@pytest.mark.rfc("4733", "2.5.2")
async def test_keys_come_in_the_audio_stream(tmp_path: Path) -> None:
    """A lost marker, lost ends and packets in threes are one key each."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        await phone.bind((LOOPBACK, 0))
        attributes = ("rtpmap:101 telephone-event/8000", "fmtp:101 0-15")
        offer = audio(*attributes, port=str(phone.getsockname()[1]), formats="0 101")
        steps = [CALLER.invite(body=offer), expect(200), CALLER.request("ACK"), *CALLER.is_hung_up()]
        async with sipp_calls(tmp_path, *steps) as (house, agent):
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            await press(house, phone)
            await agent.until("dtmf", 3)
            await hang_up(agent)
        assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list("123")
