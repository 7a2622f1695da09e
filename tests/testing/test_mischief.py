"""What misbehaving phones do to the server: the right answer, the right events, and nothing left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.sip import events as sip
from rustpbx.testing import matching
from rustpbx.testing.agent import Agent
from rustpbx.testing.house import Plan
from rustpbx.testing.mischief import SDP, Mischief
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.voice import spoken
from rustpbx.testing.wire import Fate, Wire
from tests.kit.house import AGENT, PHONE, SERVER, House, open_house
from tests.test_calls import DIAL, SCRIPTED, over

STRANGER = "10.0.0.66"
NO_ACK = 64 * 0.5


@asynccontextmanager
async def trouble() -> AsyncIterator[tuple[House, Mischief]]:
    """A house whose phone may misbehave; at the end it owns nothing."""
    async with open_house() as house:
        yield house, house.mischief
        house.wire.mend_all()
        await house.settle()


@asynccontextmanager
async def talking(house: House) -> AsyncIterator[tuple[PhoneCall, Agent]]:
    """A call that is up."""
    call = await house.phone.dial(DIAL)
    async with house.incoming() as (agent, _):
        await agent.send("accept", option=SCRIPTED)
        await agent.until("answer")
        await call.answered()
        yield call, agent


def finals(house: House) -> set[int]:
    """The final statuses that the phone's INVITE got."""
    return {status for status in (200, 480, 487) if house.wire.carried(matching.response(status, "INVITE", to=PHONE))}


def statuses(answers: list[bytes]) -> list[int]:
    """The final ones."""
    found = [int(answer[8:11]) for answer in answers]
    return [status for status in found if status >= 200]


async def test_a_phone_that_never_acks_is_hung_up_on() -> None:
    """The 200 is repeated for 64*T1, then the call ends by BYE, and the agent is told once."""
    async with trouble() as (house, mischief):
        mischief.never_acks()
        begin = trio.current_time()
        async with talking(house) as (call, agent):
            hangup = await over(agent)
            await call.ended()
        assert trio.current_time() - begin == pytest.approx(NO_ACK, abs=2)
        assert hangup["initiator"] == "system"
        oks = house.wire.carried(matching.response(200, "INVITE", to=PHONE))
        assert len(oks) == 11  # at 0, 0.5, 1.5, 3.5 and then every 4 s (RFC 3261 section 13.3.1.4)


async def test_a_phone_that_never_answers_our_bye() -> None:
    """The agent's hang-up is over for it at once; BYE is repeated and given up."""
    async with trouble() as (house, mischief):
        async with talking(house) as (_, agent):
            mischief.never_answers("BYE")
            await agent.send("hangup")
            await over(agent)
        await trio.sleep(40)
        byes = house.wire.carried(matching.request("BYE", to=PHONE))
        assert len(byes) == 11  # Timer E: 0.5, 1, 2, 4, 4, ... until 64*T1


@pytest.mark.parametrize("seconds", [0.0, 0.3, 7.0], ids=str)
async def test_everything_twice_is_like_everything_once(seconds: float) -> None:
    """Each datagram arrives two times, at once or late, some when the call is over: one call, one set of events."""
    async with trouble() as (house, mischief):
        repeated = mischief.repeats_everything(seconds)
        async with talking(house) as (call, agent):
            await trio.sleep(0.5)
            await call.say(spoken("hello there"))
            assert (await agent.until("asrFinal"))["text"] == "hello there"
            call.hang_up()
            await over(agent)
        await trio.sleep(seconds + 0.1)
        datagrams = house.wire.carried(fates=[Fate.DELIVERED])
        assert repeated.hits > 100
        assert len(datagrams) > repeated.hits
        assert agent.names.count("answer") == 1
        assert agent.names.count("asrFinal") == 1
        assert house.webhook.calls.statistics().current_buffer_used == 0


async def test_a_phone_that_dies_while_it_rings_us() -> None:
    """Its call is answered, the answer is never acknowledged, and after 64*T1 the call is given up."""
    async with trouble() as (house, mischief):
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            mischief.dies()
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            assert (await over(agent))["initiator"] == "system"
        call.hang_up()
        await call.ended()


async def test_a_phone_that_dies_while_talking_is_given_up_by_the_agent() -> None:
    """The call stands until the agent ends it; then it is over for the agent at once, and for us after 64*T1."""
    async with trouble() as (house, mischief), talking(house) as (_, agent):
        mischief.dies()
        await trio.sleep(20)
        assert agent.closed is None
        await agent.send("hangup")
        await over(agent)


async def test_bye_before_ack() -> None:
    """The phone hangs up though its ACK never arrived: BYE is answered, the call is over once."""
    async with trouble() as (house, mischief):
        mischief.never_acks()
        async with talking(house) as (call, agent):
            call.hang_up()
            hangup = await over(agent)
            await call.ended()
        assert (hangup["reason"], hangup["initiator"]) == ("caller", "caller")


async def test_cancel_overtaken_by_the_answer() -> None:
    """The phone cancels after we answered and before it knows: it hangs up, and the agent sees one end."""
    async with trouble() as (house, mischief):
        mischief.hears_late(200)
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            call.hang_up()
            hangup = await over(agent)
            await call.ended()
        assert hangup["initiator"] == "caller"


async def test_accept_overtaken_by_cancel() -> None:
    """The phone has cancelled and has its 487 when the agent's accept comes: that comes to nothing."""
    async with trouble() as (house, _):
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _notice):
            call.hang_up()
            await house.wire.until(matching.response(487, to=PHONE))
            await agent.send("accept", option=SCRIPTED)
            hangup = await over(agent)
        assert (hangup["reason"], hangup["initiator"]) == ("canceled", "caller")
        assert "answer" not in agent.names


@pytest.mark.parametrize("first", ["cancel", "accept"])
async def test_accept_and_cancel_cross_inside_the_server(first: str) -> None:
    """In the same instant, whichever is first: the phone is told one thing, and the call is over for both."""
    async with trouble() as (house, _):
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _notice):
            if first == "cancel":
                call.hang_up()
            await agent.send("accept", option=SCRIPTED)
            if first == "accept":
                call.hang_up()
            hangup = await over(agent)
        assert hangup["initiator"] == "caller"
        assert len(finals(house)) == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"From": None}, [400]),
        ({"To": None}, [400]),
        ({"Call-ID": None}, [400]),
        ({"CSeq": None}, [400]),
        ({"CSeq": "1 BYE"}, [400]),
        ({"CSeq": "99999999999 INVITE"}, [400]),
        ({"Content-Length": "9999"}, [400]),
        ({"Require": "levitation"}, [420]),
    ],
    ids=str,
)
async def test_an_odd_invite_gets_its_answer_and_harms_no_call(
    header: dict[str, str | None], expected: list[int]
) -> None:
    """Header fields missing or wrong: the RFC's status, no webhook, and the call beside it goes on talking."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        answers = await mischief.invites(header=header)
        assert statuses(answers) == expected
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()
        await trio.sleep(0.3)
        await call.say(spoken("still here"))
        assert (await agent.until("asrFinal"))["text"] == "still here"
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize(
    ("sdp", "expected"),
    [
        (SDP.replace("m=audio 4000", "m=video 4000"), [488]),
        (SDP.replace("RTP/AVP 0", "RTP/AVP 97") + "a=rtpmap:97 AMR/8000\r\n", [488]),
        ("this is no SDP", [400]),
        ("v=0\r\n" + "a=x\r\n" * 20000, [513]),
    ],
    ids=["no audio", "unknown codec", "garbage", "huge"],
)
async def test_odd_sdp_is_refused(sdp: str, expected: list[int]) -> None:
    """What cannot be a call is refused at once, without asking anybody."""
    async with trouble() as (house, mischief):
        assert statuses(await mischief.invites(sdp)) == expected
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()


@pytest.mark.parametrize(
    "options",
    [{"host": STRANGER}, {}, {"payload_type": 96}, {"size": 7}],
    ids=["another host", "another port", "another codec", "cut off"],
)
async def test_stray_rtp_is_not_heard_and_moves_nothing(options: dict[str, object]) -> None:
    """Sound from elsewhere in the middle of a call: not transcribed, counted, and our audio goes where it went."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        await trio.sleep(1)
        stray = mischief.sends_rtp(call, spoken("let me in please"), **options)  # type: ignore[arg-type]
        await trio.sleep(1)
        await call.say(spoken("only me"))
        assert (await agent.until("asrFinal"))["text"] == "only me"
        assert house.server.plane.counters["rtp_stranger"] > 0
        assert not [c for c in house.wire.transcript if c.destination == stray]
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("lost", ["nothing", "the begin", "two ends", "all ends"])
async def test_each_key_is_one_event(lost: str) -> None:
    """Key presses whose first packet or whose end packets are lost: one `dtmf` each, in order."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        await trio.sleep(0.3)
        if lost == "the begin":
            mischief.loses_key_packets(call, first=True)
        elif lost != "nothing":
            mischief.loses_key_packets(call, ends=True, count=2 if lost == "two ends" else None)
        for digit in "112#":
            await call.press(digit)
        await agent.until("dtmf", 4)
        await trio.sleep(1)
        await agent.send("hangup")
        await over(agent)
        assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list("112#")


async def test_dialling_a_phone_that_answers_and_then_says_nothing_of_the_ack() -> None:
    """We dial, our ACK gets lost again and again: the phone repeats its 200, we repeat the ACK, the call stands."""
    async with trouble() as (house, _), house.agent() as agent:
        house.wire.lose(matching.request("ACK", to=PHONE), count=3)
        await agent.send("invite", option={"callee": house.phone.uri, "caller": "sip:bot@10.0.0.1", **SCRIPTED})
        call = await house.phone.ring()
        call.answer()
        await agent.until("answer")
        await call.until(sip.CallConfirmed)
        await agent.send("hangup")
        await over(agent)


# -- a phone that we dial -------------------------------------------------------------------------------------------

INVITATION = {"callee": f"sip:phone@{PHONE}:5060", "caller": "sip:bot@10.0.0.1", **SCRIPTED}
PLAIN = SDP.format(host=PHONE)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "No answer received"),
        ("this is no SDP", "'this is no SDP'"),
        (PLAIN.replace("audio", "video"), "our audio was refused"),
        (PLAIN.replace("4000", "0"), "our audio was refused"),
        (PLAIN.replace("RTP/AVP 0", "RTP/AVP 18"), "nothing of our offer"),
        (PLAIN + "a=rtpmap:0 PCMU/16000/9\r\n", "nothing of our offer"),
        (PLAIN.replace(f"c=IN IP4 {PHONE}", "c=IN IP4 nowhere.test"), "only to an IP address"),
    ],
    ids=["none", "garbage", "video", "refused", "another codec", "another rate", "a name"],
)
async def test_an_answer_that_is_of_no_use(body: str, reason: str) -> None:
    """The phone's 200 is acknowledged, the call ended by BYE, and the agent told why in `reject`."""
    async with trouble() as (house, _), house.agent() as agent:
        await agent.send("invite", option=INVITATION)
        call = await house.phone.ring()
        call.answer(body=body.encode())
        reject = await agent.until("reject")
        assert reject["code"] == 488
        assert reason in reject["reason"]
        assert (await over(agent))["initiator"] == "system"
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        assert len(house.wire.carried(matching.request("ACK", to=PHONE))) == 1
        assert "answer" not in agent.names


@pytest.mark.parametrize(
    "body",
    [
        PLAIN.replace(f"c=IN IP4 {PHONE}", "c=IN IP4 0.0.0.0"),
        PLAIN.replace(f"c=IN IP4 {PHONE}", f"c=IN IP4 {STRANGER}"),
        PLAIN + "m=audio 4002 RTP/AVP 0\r\n",
        PLAIN + "a=sendonly\r\na=inactive\r\na=ptime:7000\r\n",
    ],
    ids=["on hold", "media elsewhere", "two streams for one", "contradictions"],
)
async def test_an_answer_that_is_odd_and_will_do(body: str) -> None:
    """The call stands as far as the answer allows, and ends as ever, also in the middle of what it says."""
    async with trouble() as (house, _), house.agent() as agent:
        await agent.send("invite", option=INVITATION)
        call = await house.phone.ring()
        call.answer(body=body.encode())
        await agent.until("answer")
        await agent.send("tts", text="hello " * 20, playId="a", endOfStream=True)
        await agent.until("trackStart", 2)
        await trio.sleep(1)
        await agent.send("hangup")
        assert (await over(agent))["reason"] == "system"
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        assert agent.names[-3:] == ["trackEnd", "trackEnd", "hangup"]


async def test_a_phone_that_answers_as_the_agent_gives_up() -> None:
    """Our CANCEL is late, its 200 is first: that is acknowledged and ended by BYE; the CANCEL then finds nothing."""
    async with trouble() as (house, _), house.agent() as agent:
        house.wire.hold(matching.request("CANCEL", to=PHONE), 0.3)
        await agent.send("invite", option=INVITATION)
        call = await house.phone.ring()
        call.ringing()
        await agent.until("ringing")
        await agent.send("hangup")
        await trio.sleep(0.1)
        call.answer()
        assert (await over(agent))["reason"] == "system"
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        await house.wire.until(matching.request("CANCEL", to=PHONE))
        assert "answer" not in agent.names


async def test_a_phone_that_is_dead_when_we_dial_it() -> None:
    """Nothing comes back: 408 after 64*T1, and nothing is left."""
    async with trouble() as (house, mischief), house.agent() as agent:
        mischief.dies()
        await agent.send("invite", option=INVITATION)
        assert (await agent.until("reject"))["code"] == 408
        await over(agent)


@pytest.mark.parametrize("own_port", [True, False])
async def test_sound_before_the_answer(own_port: bool) -> None:
    """RTP before the 200 has told where from is nobody's, or, from there, gives way to the call's own stream."""
    async with trouble() as (house, mischief), house.agent() as agent:
        await agent.send("invite", option=INVITATION)
        call = await house.phone.ring()
        assert call.incoming is not None
        to = (SERVER, parse_sdp(call.incoming.offer).media[0].port)
        mischief.sends_rtp(call, spoken("too early"), to=to, port=call.line.port if own_port else None)
        await trio.sleep(0.3)
        call.answer()
        await agent.until("answer")
        await trio.sleep(0.3)
        assert (house.server.plane.counters["rtp_stranger"] > 0) != own_port
        await call.say(spoken("now you hear me"))
        assert (await agent.until("asrFinal"))["text"] == "now you hear me"
        await agent.send("hangup")
        await over(agent)


# -- noise ----------------------------------------------------------------------------------------------------------

NOISE = [
    b"",
    b"\r\n\r\n",
    b"\x00" * 1200,
    bytes(range(256)) * 5,
    b"INVITE",
    b"INVITE sip:800@10.0.0.1 SIP/2.0\r\n\r\n",
    b"INVITE sip:800@10.0.0.1 SIP/3.0\r\nCall-ID: a\r\n\r\n",
    b"SIP/2.0 200 OK\r\n\r\n",
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\nCall-ID: a\r\nTo: <sip:a@b>\r\n",
    bytes([0x80, 77]) + bytes(170),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"a" * 65000,
]


async def test_garbage_on_the_sip_port() -> None:
    """What is no message of ours gets no answer but an error of the protocol, and the call beside it goes on."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        for data in NOISE:
            assert set(statuses(await mischief.sends(data))) <= {400, 481, 505}
        await trio.sleep(0.3)
        await call.say(spoken("still here"))
        assert (await agent.until("asrFinal"))["text"] == "still here"
        assert house.server.stack is not None
        assert house.server.stack.counters["bugs"] == 0
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("data", NOISE, ids=range(len(NOISE)))
async def test_garbage_on_the_rtp_port(data: bytes) -> None:
    """From the phone's own address, in the middle of its words: they are heard as they were said."""
    async with trouble() as (house, _), talking(house) as (call, agent), trio.open_nursery() as nursery:
        assert call.line.format is not None
        await trio.sleep(0.3)
        nursery.start_soon(call.say, spoken("still here"))
        for _ in range(20):
            house.wire.send((PHONE, call.line.port), call.line.format.remote, data)
            await trio.sleep(0.02)
        assert (await agent.until("asrFinal"))["text"] == "still here"
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize(
    ("payload_type", "counted"), [(0, "rtp_out_of_window"), (8, "rtp_wrong_type"), (96, "rtp_wrong_type")]
)
async def test_another_stream_from_the_phones_own_port(payload_type: int, counted: str) -> None:
    """A burst with another SSRC, or of a codec that was not agreed: not transcribed, and the call's stream goes on."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        await trio.sleep(1)
        mischief.sends_rtp(call, spoken("let me in please"), port=call.line.port, payload_type=payload_type)
        await trio.sleep(1)
        await call.say(spoken("only me"))
        assert (await agent.until("asrFinal"))["text"] == "only me"
        assert set(house.server.plane.counters) == {counted}
        await agent.send("hangup")
        await over(agent)


# -- the agent's network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "lasts"),
    [
        (lambda wire: wire.reset(AGENT, SERVER), 0.0),
        (lambda wire: wire.partition([AGENT], [SERVER, PHONE]), 80.0),
        (lambda wire: wire.cut(AGENT, SERVER, both_ways=False), 80.0),
        (lambda wire: wire.cut(SERVER, AGENT, both_ways=False), 80.0),
    ],
    ids=["reset", "parted", "silent", "deaf"],
)
async def test_an_agent_whose_network_fails(begin: Callable[[Wire], None], lasts: float) -> None:
    """Its stream breaks, or stalls without a word: the phone is hung up on at once, or when pings get no answer."""
    async with House(Plan(signalling_only=True)).open() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await agent.until("answer")
            await call.answered()
            since = trio.current_time()
            begin(house.wire)
            ending = await call.ended()
            assert isinstance(ending.cause, sip.ByeReceived)
            assert ending.at - since == pytest.approx(lasts, abs=1)
            house.wire.mend_all()
        await house.settle()


async def test_an_agent_whose_network_fails_for_half_a_minute() -> None:
    """A stream that stalls and goes on: nobody notices, and nothing of what was sent meanwhile is missing."""
    async with House(Plan(signalling_only=True)).open() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await agent.until("answer")
            await call.answered()
            house.wire.cut(AGENT, SERVER)
            await agent.send("hangup")
            await trio.sleep(30)
            assert call.ending is None
            house.wire.mend(AGENT, SERVER)
            assert (await over(agent))["reason"] == "system"
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        await house.settle()
