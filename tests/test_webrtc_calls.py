"""Whole calls on `/call/webrtc`: a scripted browser, whose offer comes through the agent's socket, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from rustpbx.core import Address
from rustpbx.media.dtls import Certificate
from rustpbx.media.dtls.handshake import Handshake
from rustpbx.media.dtls.record import pack
from rustpbx.media.events import Codec, SrtpKey, SrtpSuite
from rustpbx.media.ice.stun import check_request, success
from rustpbx.media.rtcp import Bye, parse_rtcp
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.sdp.fingerprint import Setup
from rustpbx.media.srtp import Sealer
from rustpbx.settings import IceServer
from rustpbx.testing.browser import Browser, Habits
from rustpbx.testing.house import BROWSER, SERVER
from rustpbx.testing.nat import ADDRESS_RESTRICTED, FULL_CONE, PORT_RESTRICTED, SYMMETRIC, Behaviour
from rustpbx.testing.voice import heard_text, spoken
from rustpbx.testing.wire import Link
from tests.kit.agent import Agent
from tests.kit.house import House, server_config
from tests.test_calls import SCRIPTED, over, quiet_house

PHONE_OFFER = "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

EVERY_CODEC = [Codec.OPUS, Codec.G722, Codec.PCMU, Codec.PCMA]


@asynccontextmanager
async def calling(
    house: House, habits: Habits | None = None, option: Mapping[str, object] = SCRIPTED
) -> AsyncIterator[tuple[Browser, Agent]]:
    """A browser and its agent, up to the answer; media is not there yet."""
    async with house.browser(habits) as browser, house.agent("/call/webrtc?id=s1") as agent:
        await agent.send("invite", option={"offer": browser.offer, **option})
        browser.accept((await agent.until("answer"))["sdp"])
        yield browser, agent


async def speak(browser: Browser, text: str) -> None:
    """Say it, and then nothing for a second."""
    await browser.say(np.concatenate([spoken(text, rate=16000), np.zeros(16000, np.int16)]))


@pytest.mark.parametrize("codec", EVERY_CODEC, ids=[codec.value for codec in EVERY_CODEC])
async def test_a_conversation(codec: Codec) -> None:
    """What the browser says is heard by VAD and ASR, what the agent says is heard by it; then the agent hangs up."""
    async with quiet_house() as house, calling(house, Habits(codecs=(codec,))) as (browser, agent):
        await browser.connected()
        await speak(browser, "good morning")
        await agent.hears("good morning")
        await agent.says("how can I help you")
        await agent.send("hangup")
        hangup = await over(agent)
        await browser.ended()
        names = [name for name in agent.names if name not in ("asrDelta", "metrics")]
        assert names == [
            "trackStart", "answer", "speaking", "silence", "asrFinal", "trackStart", "trackEnd", "trackEnd", "hangup"
        ]  # fmt: skip
        assert (hangup["reason"], hangup["initiator"]) == ("system", "system")
        assert heard_text(browser.hear(), 16000) == "how can I help you"
        assert browser.unopened == 0
        last = parse_rtcp(browser.rtcp[-1])
        assert any(isinstance(report, Bye) for report in last)


async def test_the_browser_hangs_up() -> None:
    """Its goodbye ends the call at once: who called hung up, and nothing went wrong."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        await speak(browser, "bye")
        browser.close()
        hangup = await over(agent)
        assert (hangup["reason"], hangup["initiator"]) == ("caller", "caller")
        assert "error" not in agent.names
        assert agent.names[-2:] == ["trackEnd", "hangup"]


async def problem_of(agent: Agent) -> str:
    """What went wrong with the browser, by the one `error` of a call that the caller's side ended."""
    hangup = await over(agent)
    assert (hangup["reason"], hangup["initiator"]) == ("caller", "caller")
    assert agent.names[-3:] == ["error", "trackEnd", "hangup"]
    (error,) = (event for event in agent.events if event["event"] == "error")
    assert error["sender"] == "webrtc"
    return str(error["error"])


async def test_the_browser_vanishes() -> None:
    """A closed lid: two unanswered questions for consent, a little patience, and the call is over."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        began = trio.current_time()
        house.wire.cut(SERVER, BROWSER)
        assert await problem_of(agent) == "the peer does not answer any more"
        assert 19 < trio.current_time() - began < 21


async def test_a_browser_that_was_away_for_a_moment() -> None:
    """Fourteen seconds without a network, from one cell to the next, end no call."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        house.wire.cut(SERVER, BROWSER)
        await trio.sleep(14)
        house.wire.mend(SERVER, BROWSER)
        await trio.sleep(20)
        await speak(browser, "here again")
        await agent.hears("here again")
        await agent.send("hangup")
        await over(agent)
        assert "error" not in agent.names


@pytest.mark.parametrize(("asked", "seconds"), [(None, 15), (4, 4), ("6", 6), ("7s", 7)])
async def test_a_browser_that_never_finishes_ice(asked: object, seconds: float) -> None:
    """It takes no answer: the call ends when `handshakeTimeout` is over, and says why."""
    option = {} if asked is None else {"handshakeTimeout": asked}
    async with quiet_house() as house, house.browser() as browser, house.agent("/call/webrtc?id=s1") as agent:
        await agent.send("invite", option={"offer": browser.offer, **option})
        await agent.until("answer")
        began = trio.current_time()
        assert await problem_of(agent) == "there is no path to the peer yet"
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_a_browser_that_never_begins_the_handshake() -> None:
    """There is a path and no hello on it: the same end, another reason."""
    async with quiet_house() as house, calling(house, Habits(never_begins=True)) as (_, agent):
        assert await problem_of(agent) == "no DTLS with the peer: the peer did not begin"


async def test_somebody_else_s_certificate() -> None:
    """The offer promised another one: there are no keys, no media, and no call."""
    async with quiet_house() as house, house.browser() as browser, house.agent("/call/webrtc?id=s1") as agent:
        digest = browser.offer.partition("a=fingerprint:sha-256 ")[2][:2]
        other = f"{int(digest, 16) ^ 1:02X}"
        offer = browser.offer.replace(f"sha-256 {digest}:", f"sha-256 {other}:")
        await agent.send("invite", option={"offer": offer})
        browser.accept((await agent.until("answer"))["sdp"])
        assert "not the one that its SDP has the fingerprint of" in await problem_of(agent)
        assert browser.hear().size == 0


@pytest.mark.parametrize(
    ("offer", "problem"),
    [
        (None, "option.offer is missing"),
        ("", "option.offer is missing"),
        ("hello", "option.offer: SDP line 'hello' is not of the form x=..."),
        (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n",
            "option.offer: no audio under DTLS in the offer of no media at all",
        ),
        (PHONE_OFFER, "option.offer: no audio under DTLS in the offer of audio 4000 RTP/AVP PCMU/8000 (0)"),
        ("x" * 70_000, "option.offer: SDP of 70000 bytes is too large"),
    ],
)
async def test_offers_that_are_none(offer: str | None, problem: str) -> None:
    """One `error` that says it, and the end; no port is bound for it."""
    async with quiet_house() as house, house.agent("/call/webrtc?id=s1") as agent:
        await agent.send("invite", option={} if offer is None else {"offer": offer})
        hangup = await over(agent)
        assert agent.names == ["error", "hangup"]
        assert (agent.events[0]["sender"], agent.events[0]["error"]) == ("invite", problem)
        assert hangup["reason"] == "failed"


async def test_no_second_invite() -> None:
    """It is refused, and the call goes on."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        await agent.send("invite", option={"offer": browser.offer})
        assert (await agent.until("error"))["error"] == "invite is not possible while the call is talking"
        await speak(browser, "still here")
        await agent.hears("still here")
        await agent.send("hangup")
        await over(agent)


async def test_candidates_that_come_late() -> None:
    """An offer without any, then one at a time: as strings, as a script's objects, and things that are none."""
    async with quiet_house() as house, calling(house, Habits(trickles=True)) as (browser, agent):
        await agent.send("candidate", candidates=["candidate:", {"candidate": ""}, 7, {"sdpMid": "0"}])
        await agent.send("candidate", candidates=[{"candidate": browser.late[0], "sdpMid": "0", "sdpMLineIndex": 0}])
        await browser.connected()
        await speak(browser, "late but here")
        await agent.hears("late but here")
        await agent.send("candidate", candidates=browser.late)
        await agent.send("hangup")
        await over(agent)
        assert "error" not in agent.names


async def test_a_camera_is_refused_and_the_voice_heard() -> None:
    """Video on the same path: its m= line has port 0, nothing else changes."""
    async with quiet_house() as house, calling(house, Habits(video=True)) as (browser, agent):
        await browser.connected()
        answer = agent.events[1]["sdp"]
        assert "m=video 0 UDP/TLS/RTP/SAVPF 96" in answer
        assert "a=group:BUNDLE 0\r\n" in answer
        await speak(browser, "look at me")
        await agent.hears("look at me")
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("setup", [Setup.ACTPASS, Setup.ACTIVE, Setup.PASSIVE])
async def test_either_side_begins_the_handshake(setup: Setup) -> None:
    """As the offer leaves it."""
    async with quiet_house() as house, calling(house, Habits(setup=setup)) as (browser, agent):
        await browser.connected()
        await speak(browser, "hello")
        await agent.hears("hello")
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("codec", [Codec.OPUS, Codec.PCMU], ids=["opus", "PCMU"])
async def test_keys_both_ways(codec: Codec) -> None:
    """Telephone-event at the codec's clock: `dtmf` from the browser, and to it."""
    async with quiet_house() as house, calling(house, Habits(codecs=(codec,))) as (browser, agent):
        await browser.connected()
        await browser.press("5")
        assert (await agent.until("dtmf"))["digit"] == "5"
        await agent.send("dtmf", digits="7#")
        await trio.sleep(2)
        assert browser.digits == ["7", "#"]
        await agent.send("hangup")
        await over(agent)


async def test_words_before_the_answer_wait_for_the_keys() -> None:
    """What is to be said is said once media is secured, and nothing of it is lost."""
    async with quiet_house() as house, house.browser() as browser, house.agent("/call/webrtc?id=s1") as agent:
        await agent.send("invite", option={"offer": browser.offer, **SCRIPTED})
        await agent.send("tts", text="welcome aboard", playId="1", endOfStream=True)
        answer = await agent.until("answer")
        await trio.sleep(3)  # a slow page
        browser.accept(answer["sdp"])
        await agent.until("trackEnd")
        await trio.sleep(0.2)
        assert heard_text(browser.hear(), 16000) == "welcome aboard"
        await agent.send("hangup")
        await over(agent)


async def test_barge_in() -> None:
    """An interruption is heard within two frames."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        await agent.starts_saying("one two three four five six seven eight nine ten")
        await trio.sleep(1)
        interruption = await agent.interrupts()
        await trio.sleep(1)
        heard = np.flatnonzero(np.abs(browser.hear().astype(np.int32)) > 500)
        assert abs((heard[-1] - heard[0]) / 16 - interruption["current"]) < 60
        await agent.send("hangup")
        await over(agent)


async def test_the_agent_vanishes() -> None:
    """No close frame: the browser is told goodbye all the same."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        await agent.drop()
        await browser.ended()


async def test_the_server_stops() -> None:
    """Running calls end with their events, and with goodbye to the browser."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        await house.server.shutdown()
        assert (await over(agent))["reason"] == "system"
        await browser.ended()


async def test_copies_of_both_sides() -> None:
    """With `subscribe` both sides come as binary messages, too."""
    async with quiet_house() as house, calling(house, option={**SCRIPTED, "subscribe": True}) as (browser, agent):
        await browser.connected()
        await speak(browser, "hello there")
        await agent.hears("hello there")
        await agent.says("good day")
        await agent.send("hangup")
        await over(agent)
        frames = [bytes(agent.audio[at : at + 641]) for at in range(0, len(agent.audio), 641)]
        words = [
            heard_text(np.frombuffer(b"".join(frame[1:] for frame in frames if frame[0] == track), "<i2"), 16000)
            for track in (0, 1)
        ]
        assert words == ["good day", "hello there"]


@pytest.mark.parametrize("seed", [0, 5])
async def test_a_network_that_loses_a_fifth(seed: int) -> None:
    """ICE and DTLS come through, the talk goes on, and nobody takes a few lost questions for the end."""
    async with quiet_house(seed=seed) as house:
        house.wire.link(SERVER, BROWSER, Link(loss=0.2, delay=0.05, jitter=0.02, reorder=0.05))
        async with calling(house, Habits(codecs=(Codec.PCMU,))) as (browser, agent):
            await browser.connected()
            await trio.sleep(60)
            assert "error" not in agent.names
            assert browser.hear().size > 55 * 16000
            await agent.send("hangup")
            await over(agent)


# -- those who mean no good -----------------------------------------------------------------------------------------

MALLORY = ("10.0.0.66", 6666)


def server_end(browser: Browser) -> Address:
    """Where the server's end of the path is."""
    path = browser.transport.agent.path
    assert path is not None
    return path.remote.address


def own_end(browser: Browser) -> Address:
    """Where the browser's end is, as a forger would write it."""
    path = browser.transport.agent.path
    assert path is not None
    return path.base


async def goes_on(browser: Browser, agent: Agent, words: str) -> None:
    """The call is as it was: heard and hearing."""
    await speak(browser, words)
    await agent.hears(words)
    await agent.says(words)
    await trio.sleep(0.2)
    assert words in heard_text(browser.hear(), 16000)
    await agent.send("hangup")
    await over(agent)
    assert "error" not in agent.names


@pytest.mark.parametrize("forged", [False, True], ids=["own address", "the browser's address"])
async def test_hellos_of_a_stranger_steal_no_call(*, forged: bool) -> None:
    """A spray of ClientHellos before and after the real one, from elsewhere or in the browser's name."""
    hello = Handshake(Certificate(1_760_000_000.0), active=True)
    hello.feed()
    datagrams = pack(hello.said())
    async with quiet_house() as house, house.browser() as browser, house.agent("/call/webrtc?id=s1") as agent:
        await agent.send("invite", option={"offer": browser.offer, **SCRIPTED})
        answer = (await agent.until("answer"))["sdp"]
        port = int(answer.partition("m=audio ")[2].split()[0])
        browser.accept(answer)

        async def spray() -> None:
            source = own_end(browser) if forged and browser.transport.agent.path else MALLORY
            for _ in range(200):
                for datagram in datagrams:
                    house.wire.send(source, (SERVER, port), datagram)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spray)
            await browser.connected()
            await spray()
        await goes_on(browser, agent, "nobody else")
        dropped = house.server.plane.counters
        assert dropped["dtls_bare_hellos" if forged else "payload_from_elsewhere"] > 100


async def test_foreign_and_damaged_media_is_dropped() -> None:
    """RTP in the clear, sealed with other keys, replayed and corrupted, from the browser's address and others."""
    async with quiet_house() as house, calling(house, Habits(codecs=(Codec.PCMU,))) as (browser, agent):
        await browser.connected()
        await speak(browser, "first")
        await agent.hears("first")
        to, source = server_end(browser), own_end(browser)
        real = [c.data for c in house.wire.carried(to=SERVER) if c.source == source and c.data[0] == 0x80][:20]
        plain = build_rtp(RtpPacket(payload_type=0, sequence=1, timestamp=1, ssrc=9, payload=b"\x10" * 160))
        foreign = Sealer(SrtpKey(SrtpSuite.AEAD_AES_128_GCM, bytes(28))).sealed(plain) or b""
        for data in real:
            damaged = data[:40] + bytes([data[40] ^ 1]) + data[41:]
            for origin in (source, MALLORY):
                for bad in (data, damaged, foreign, plain, data[:13], b"\x80", b"\x16\xfe", b"\xff" * 50):
                    house.wire.send(origin, to, bad)
            await trio.sleep(0.02)
        await goes_on(browser, agent, "second")
        dropped = house.server.plane.counters
        assert dropped["srtp_replayed"] == 40  # the damaged ones, too: that they are old is seen first
        assert dropped["srtp_rejected"] >= 60
        assert dropped["payload_from_elsewhere"] >= 120


async def test_stun_of_a_stranger_moves_nothing() -> None:
    """Checks without our password, and answers that nobody asked for, change no path."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        to = server_end(browser)
        forged = check_request(bytes(12), "a:b", "p" * 22, 1, 1, controlling=True, nominate=True)
        for origin in (MALLORY, own_end(browser)):
            for data in (forged, success(bytes(12), MALLORY, "p" * 22), forged[:20]):
                house.wire.send(origin, to, data)
        await goes_on(browser, agent, "unmoved")
        assert house.server.plane.counters["stun_not_authentic"] == 2


async def test_candidates_of_our_own_house_are_not_knocked_at() -> None:
    """An offer that names loopback, metadata services and the server itself makes it send nothing there."""
    async with quiet_house() as house, house.browser() as browser, house.agent("/call/webrtc?id=s1") as agent:
        lines = "".join(
            f"a=candidate:9 1 udp 2113937151 {host} 80 typ host\r\n" for host in ("127.0.0.1", "169.254.169.254", "::1")
        )
        await agent.send("invite", option={"offer": browser.offer + lines, "enableIpv6": True, **SCRIPTED})
        browser.accept((await agent.until("answer"))["sdp"])
        await browser.connected()
        await goes_on(browser, agent, "no knocking")
        assert {c.destination[0] for c in house.wire.transcript if c.source[0] == SERVER} <= {BROWSER, SERVER}


# -- where the server is --------------------------------------------------------------------------------------------


async def test_a_server_behind_a_1_1_nat_names_its_address_outside() -> None:
    """`external_ip` is a candidate with the same port, and what stands in m= and c=."""
    config = server_config(external_ip="203.0.113.7")
    async with quiet_house(config=config) as house, calling(house) as (browser, agent):
        answer = agent.events[1]["sdp"]
        port = int(answer.partition("m=audio ")[2].split()[0])
        assert 12000 <= port < 13000
        assert "c=IN IP4 203.0.113.7" in answer
        assert f" {SERVER} {port} typ host\r\n" in answer
        assert f" 203.0.113.7 {port} typ srflx raddr {SERVER} rport {port}\r\n" in answer
        await browser.connected()
        await goes_on(browser, agent, "outside")


async def test_a_lite_server() -> None:
    """With `ice_lite` it says so, asks nothing, and the browser's checks are enough."""
    async with quiet_house(config=server_config(ice_lite=True)) as house, calling(house) as (browser, agent):
        assert "a=ice-lite" in agent.events[1]["sdp"]
        await browser.connected()
        await goes_on(browser, agent, "light")


@pytest.mark.parametrize("kind", [FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC])
async def test_a_browser_behind_a_nat(kind: Behaviour) -> None:
    """Every kind: a server with an address of its own is reached by the browser's checks."""
    async with quiet_house() as house:
        house.wire.nat("198.51.100.9", [BROWSER], kind)
        async with calling(house) as (browser, agent):
            await browser.connected()
            await goes_on(browser, agent, "through the door")


@pytest.mark.parametrize(("asked", "seconds"), [(None, 5.0), (2, 2.0)])
async def test_a_stun_server_that_is_silent(asked: int | None, seconds: float) -> None:
    """The answer waits for it five seconds, or as long as `handshakeTimeout` allows, and names what is known."""
    config = server_config(ice_servers=(IceServer(urls=("stun:10.0.0.99",)),))
    option = {**SCRIPTED} if asked is None else {**SCRIPTED, "handshakeTimeout": asked}
    async with quiet_house(config=config) as house:
        began = trio.current_time()
        async with calling(house, option=option) as (browser, agent):
            assert trio.current_time() - began == pytest.approx(seconds, abs=0.6)
            assert "a=end-of-candidates" in agent.events[1]["sdp"]
            await browser.connected()
            await goes_on(browser, agent, "at last")


async def test_no_port_is_left() -> None:
    """A range that others hold: the error says so, and the call is over."""
    async with quiet_house(config=server_config(rtp_start_port=12000, rtp_end_port=12003, max_calls=2)) as house:
        held = [await house.wire.host(SERVER).open_datagrams(SERVER, port) for port in (12000, 12002)]
        async with house.browser() as browser, house.agent("/call/webrtc?id=s1") as agent:
            await agent.send("invite", option={"offer": browser.offer})
            await over(agent)
            assert agent.names == ["error", "hangup"]
            assert agent.events[0]["error"] == "every RTP port is in use or resting"
        for socket in held:
            socket.close()


async def test_ten_browsers_at_once() -> None:
    """Each hears its own words, and no other's."""
    async with quiet_house() as house, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(one_of_many, house, number)


async def one_of_many(house: House, number: int) -> None:
    """A browser with an IP of its own."""
    habits = Habits(codecs=(EVERY_CODEC[number % 4],))
    async with house.browser(habits, hosts=[f"10.0.1.{number}"]) as browser, house.agent("/call/webrtc") as agent:
        await agent.send("invite", option={"offer": browser.offer, **SCRIPTED})
        browser.accept((await agent.until("answer"))["sdp"])
        await browser.connected()
        await goes_on(browser, agent, f"I am number {number}")
