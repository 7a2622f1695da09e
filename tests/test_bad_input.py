"""Whatever comes in from outside gets its own clear answer, is counted, and no other call notices.

Each test has a call up that it knows nothing of; in the end that call must still hear, speak and hang up.
"""

from __future__ import annotations

import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import av
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.events import Pcm
from rustpbx.settings import OutboundConfig
from rustpbx.testing.phone import CallRefusedError, PhoneCall
from rustpbx.testing.speech import tone
from rustpbx.values import network
from tests.kit.agent import Agent
from tests.kit.files import File, serve_files, wav
from tests.kit.house import AGENT, PHONE, SERVER, House, open_house, server_config
from tests.test_calls import SCRIPTED, answered, over

OPTIONS = (
    b"OPTIONS sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.66:5060;branch=z9hG4bKx;rport\r\n"
    b"From: <sip:a@b>;tag=1\r\nTo: <sip:10.0.0.1>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
)
BOMB = OPTIONS + b"".join(b"X-%d: y\r\n" % n for n in range(3000)) + b"\r\n"
LIAR = OPTIONS + b"Content-Length: 9999\r\n\r\nabc"
SDP_VIDEO = b"v=0\r\no=- 1 1 IN IP4 10.0.0.66\r\ns=-\r\nc=IN IP4 10.0.0.66\r\nt=0 0\r\nm=video 9 RTP/AVP 96\r\n"
INVITE = (
    OPTIONS.replace(b"OPTIONS", b"INVITE")
    + b"Contact: <sip:a@10.0.0.66>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s"
)


@asynccontextmanager
async def beside_a_call(**options: Any) -> AsyncIterator[tuple[House, PhoneCall, Agent]]:
    """A house with a call up, which must be unharmed in the end."""
    async with open_house(**options) as house, answered(house) as (call, agent):
        yield house, call, agent
        before = len(agent.events)
        await call.say(tone(0.8))
        await agent.until("silence", agent.names[:before].count("silence") + 1)
        await agent.send("tts", text="still here", playId="after", endOfStream=True)
        await call.line.sound(trio.current_time())
        await agent.send("hangup")
        await over(agent)


class Stranger:
    """A socket of a host that nobody invited."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def send(self, data: bytes, port: int = 5060) -> None:
        """Send to the server."""
        await self._socket.send(data, (SERVER, port))

    async def answer(self) -> bytes:
        """The next final response, its first line."""
        with trio.fail_after(1):
            while True:
                data, _ = await self._socket.receive()
                if not data.startswith(b"SIP/2.0 1"):
                    return bytes(data.split(b"\r\n")[0])


@asynccontextmanager
async def stranger(house: House) -> AsyncIterator[Stranger]:
    """A host at 10.0.0.66."""
    socket = await house.wire.host("10.0.0.66").open_datagrams("10.0.0.66", 5060)
    try:
        yield Stranger(socket)
    finally:
        socket.close()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (BOMB, b"SIP/2.0 513"),
        (LIAR, b"SIP/2.0 400"),
        (OPTIONS.replace(b"SIP/2.0\r\nVia", b"SIP/7.0\r\nVia") + b"\r\n", b"SIP/2.0 505"),
        (OPTIONS.replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE") + b"\r\n", b"SIP/2.0 400"),
        (OPTIONS.replace(b"OPTIONS", b"DANCE") + b"\r\n", b"SIP/2.0 501"),
        (OPTIONS.replace(b"OPTIONS", b"PUBLISH") + b"\r\n", b"SIP/2.0 405"),
        (OPTIONS + b"Require: levitation\r\n\r\n", b"SIP/2.0 420"),
        (
            OPTIONS.replace(b"OPTIONS", b"BYE").replace(b"sip:10.0.0.1>", b"sip:10.0.0.1>;tag=9") + b"\r\n",
            b"SIP/2.0 481",
        ),
        (INVITE % (len(SDP_VIDEO), SDP_VIDEO), b"SIP/2.0 488"),
        (INVITE.replace(b"application/sdp", b"text/plain") % (2, b"hi"), b"SIP/2.0 415"),
        (OPTIONS + b"\r\n", b"SIP/2.0 200"),
    ],
)
async def test_bad_sip_gets_its_own_answer(data: bytes, answer: bytes) -> None:
    """Header bombs, lying lengths, unknown things, SDP without audio: each its status, none a webhook."""
    async with beside_a_call() as (house, _, __), stranger(house) as other:
        await other.send(data)
        assert (await other.answer()).startswith(answer)
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()


@given(data=st.binary(max_size=300), seed=st.integers(0, 2**16))
async def test_any_datagram_on_the_sip_port(data: bytes, seed: int) -> None:
    """Bytes of any kind, and a valid message with any one part destroyed, leave the server answering."""
    rng = random.Random(seed)
    broken = bytearray(OPTIONS + b"\r\n")
    for _ in range(rng.randrange(1, 5)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    async with open_house() as house, stranger(house) as other:
        await other.send(data)
        await other.send(bytes(broken))
        await trio.testing.wait_all_tasks_blocked()
        await other.send(
            OPTIONS.replace(b"z9hG4bKx", b"z9hG4bKgood").replace(b"Call-ID: c", b"Call-ID: good") + b"\r\n"
        )
        answers = [await other.answer()]
        while b"200" not in answers[-1]:
            answers.append(await other.answer())
        assert house.server.stack is not None
        assert house.server.stack.counters["bugs"] == 0


async def test_rtp_from_a_stranger_is_neither_heard_nor_answered() -> None:
    """Packets from another host on the call's port are dropped, whatever they look like."""
    async with beside_a_call() as (house, call, agent), stranger(house) as other:
        await trio.sleep(6)  # the phone's address is known and locked by now
        assert call.line.format is not None
        port = call.line.format.remote[1]
        heard = len(call.line.heard)
        loud = b"\x00" * 160  # the loudest code of PCMU
        for number in range(100):
            header = b"\x80\x00" + (number).to_bytes(2, "big") + (number * 160).to_bytes(4, "big") + b"evil"
            await other.send(header + loud, port)
            await other.send(random.Random(number).randbytes(number), port)
            await trio.sleep(0.02)
        assert "speaking" not in agent.names
        assert all(carried.destination[0] != "10.0.0.66" for carried in house.wire.transcript)
        assert len(call.line.heard) > heard


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"command": 5}',
        '{"command": "dance"}',
        '{"command": "tts"}',
        '{"command": "tts", "text": 5}',
        '{"command": "accept", "option": []}',
        '{"command": "invite", "option": {"callee": "sip:x@y"}}',
        '{"command": "accept", "option": {}}',
        "[" * 10000,
    ],
)
async def test_bad_commands_are_one_error_event_each(text: str) -> None:
    """JSON of the wrong shape and commands in the wrong state name what is wrong and change nothing."""
    async with beside_a_call() as (_, __, agent):
        await agent.send_text(text)
        error = await agent.until("error")
        assert error["sender"] in ("command", "invite", "accept")
        assert error["error"]


def mp3(pcm: Pcm, rate: int) -> bytes:
    """A stereo mp3."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.repeat(pcm, 2)[None, :], format="s16", layout="stereo")
        frame.sample_rate = rate
        resampled = av.AudioResampler(stream.format, stream.layout, rate).resample(frame)
        for packet in [p for f in resampled for p in stream.encode(f)] + list(stream.encode(None)):
            container.mux(packet)
    return out.getvalue()


GOOD = wav(tone(1.0))
FILES = {
    "/good.wav": File(GOOD),
    "/stereo44.mp3": File(mp3(tone(1.0, rate=44100), 44100), "audio/mpeg"),
    "/cut.wav": File(GOOD[: len(GOOD) // 2]),
    "/stub.wav": File(GOOD[:20]),
    "/page.mp3": File(b"<!doctype html><html><body>404</body></html>", "audio/mpeg"),
    "/empty.wav": File(b""),
    "/gone.wav": File(b"gone", "text/plain", 404),
}


@asynccontextmanager
async def with_files(*, allowed: bool = True) -> AsyncIterator[tuple[House, PhoneCall, Agent]]:
    """A call whose agent has files to play on its own, private, host."""
    networks = (network(f"{AGENT}/32"),) if allowed else ()
    config = server_config(outbound=OutboundConfig(allow_private=networks, allow_loopback=False))
    async with beside_a_call(config=config) as (house, call, agent), trio.open_nursery() as nursery:
        nursery.start_soon(serve_files, house.agents, (AGENT, 8000), FILES)
        await trio.testing.wait_all_tasks_blocked()
        yield house, call, agent
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("name", "seconds"), [("good.wav", 1.0), ("stereo44.mp3", 1.0), ("cut.wav", 0.5)])
async def test_files_of_any_kind_are_heard(name: str, seconds: float) -> None:
    """Mono and stereo, any rate, and what there is of a truncated file."""
    async with with_files() as (_, call, agent):
        began = len(call.hear())
        await agent.send("play", url=f"http://{AGENT}:8000/{name}", playId="file")
        end = await agent.until("trackEnd")
        assert end["playId"] == "file"
        loud = int((np.abs(call.hear()[began:].astype(np.int32)) > 1000).sum()) / 8000
        assert loud == pytest.approx(seconds * 0.92, abs=0.15)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"http://{AGENT}:8000/page.mp3", "HTML"),
        (f"http://{AGENT}:8000/stub.wav", "wav"),
        (f"http://{AGENT}:8000/empty.wav", "empty"),
        (f"http://{AGENT}:8000/gone.wav", "404"),
        ("file:///etc/passwd", "file"),
        ("http://127.0.0.1/x.wav", "loopback"),
        (f"http://{PHONE}/x.wav", "private"),
        ("http://169.254.169.254/latest/meta-data", "169.254"),
        ("http://nowhere.test/x.wav", "nowhere.test"),
    ],
)
async def test_a_file_that_cannot_be_played_is_an_error_and_the_end_of_its_track(url: str, problem: str) -> None:
    """`error` from `filetrack: <url>` says what was wrong; `trackEnd` follows; the call goes on."""
    async with with_files() as (_, __, agent):
        await agent.send("play", url=url)
        error = await agent.until("error")
        await agent.until("trackEnd")
        assert error["sender"] == f"filetrack: {url}"
        assert problem.lower() in error["error"].lower()


async def test_private_addresses_are_out_of_reach_unless_configured() -> None:
    """The same file that plays above is refused without `outbound.allow_private`."""
    async with with_files(allowed=False) as (_, __, agent):
        await agent.send("play", url=f"http://{AGENT}:8000/good.wav")
        assert "private" in (await agent.until("error"))["error"]


async def test_no_rtp_port_left_is_a_503_and_the_calls_that_are_up_go_on() -> None:
    """A range of one port pair: the second call is refused, the first is unharmed."""
    config = server_config(rtp_start_port=12000, rtp_end_port=12001)
    async with beside_a_call(config=config) as (house, _, __):
        second = await house.phone.dial(f"sip:800@{SERVER}:5060")
        async with house.incoming() as (agent, ___):
            await agent.send("accept", option=SCRIPTED)
            with pytest.raises(CallRefusedError) as refused:
                await second.answered()
            assert refused.value.status == 503
            assert await agent.ended() == ["incoming", "error", "hangup"]


async def test_more_calls_than_allowed_get_503_and_retry_after() -> None:
    """The cap refuses politely and counts nothing against the calls that are up."""
    async with beside_a_call(config=server_config(max_calls=1)) as (house, _, __):
        second = await house.phone.dial(f"sip:800@{SERVER}:5060")
        with pytest.raises(CallRefusedError) as refused:
            await second.answered()
        assert refused.value.status == 503
        assert any(b"Retry-After: " in traced.data for traced in house.phone.trace)
