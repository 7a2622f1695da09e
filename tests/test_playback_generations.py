"""Stale audio is impossible: whatever is commanded, and however late a service answers, no playback outlives its end.

Every text and file sounds as one value that nothing else has, so each byte that leaves for the phone tells whose it is.
"""

from __future__ import annotations

import random
from typing import Any, cast

import attrs
import numpy as np
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from rustpbx.core import Address
from rustpbx.errors import MediaError, SpeechError
from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.events import Pcm
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.rtp import is_rtcp, parse_rtp
from rustpbx.session import commands
from rustpbx.session.call import CallConfig, CallCore
from rustpbx.session.events import Event, HungUp, Interruption, TrackEnd, TrackStart
from rustpbx.session.options import CallOption, CallType, SynthesisOption
from rustpbx.session.params import SessionParams
from rustpbx.session.shell.attachment import Attachment
from rustpbx.session.shell.call_task import CallTask
from rustpbx.session.shell.services import Services
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.offload import InlineOffload
from rustpbx.sip import events as sip
from rustpbx.sip.message import NameAddr
from rustpbx.sip.uri import parse_uri
from rustpbx.speech.base import SpeechChunk, Utterance, Voice
from rustpbx.speech.registry import SpeechServices, stand_in
from tests.kit.session import OFFER
from tests.media.plane_rig import ListPorts

TRACK = "T"
FIRST_TAG = 0x81
"""The mu-law byte of the first command's audio; each further one has the next. 0xFF is silence."""


@attrs.frozen
class Words:
    """What a text or URL of this test says: whose audio it is, how long, how late, and how it fails."""

    tag: int
    length: float
    delay: float
    stubborn: bool
    fails: bool

    @classmethod
    def read(cls, text: str) -> Words:
        """Back from `str`."""
        tag, length, delay, stubborn, fails = text.strip().split(":")
        return cls(int(tag), float(length), float(delay), stubborn == "True", fails == "True")

    def __str__(self) -> str:
        return ":".join(map(str, attrs.astuple(self)))

    def pcm(self, rate: int = 8000) -> Pcm:
        """One value, so long."""
        value = PCMU.decode(np.array([self.tag], np.uint8))[0]
        return np.full(round(self.length * rate), value, np.int16)


async def utter(text: str, audio: trio.MemorySendChannel[SpeechChunk], rate: int) -> None:
    """Speak late, in tenths of a second; a stubborn service does not even notice that nobody wants it any more."""
    words = Words.read(text)
    with trio.CancelScope(shield=words.stubborn):
        await trio.sleep(words.delay)
    pcm = words.pcm(rate)
    for start in range(0, len(pcm), rate // 10):
        if words.stubborn:
            try:
                audio.send_nowait(SpeechChunk(pcm[start : start + rate // 10], rate, 0))
            except trio.WouldBlock:
                await trio.lowlevel.checkpoint()
        else:
            await audio.send(SpeechChunk(pcm[start : start + rate // 10], rate, 0))
    if words.fails:
        raise SpeechError("failed")


class LateSynthesizer:
    """Whole texts only."""

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Speak."""
        await utter(utterance.text, audio, utterance.rate)


class LateStreamer(LateSynthesizer):
    """Incremental texts too."""

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Speak."""
        async for text in texts:
            await utter(text, audio, voice.rate)


class LateFetcher:
    """A web server with every file."""

    async def fetch(self, url: str, rate: int) -> Pcm:
        """Answer late."""
        words = Words.read(url)
        with trio.CancelScope(shield=words.stubborn):
            await trio.sleep(words.delay)
        if words.fails:
            raise MediaError("failed")
        return words.pcm(rate)


class Doorman:
    """Knows that somebody is there."""

    async def announce(self, call: sip.IncomingCall, created_at: int) -> None:
        """Say so."""


class LoggingPorts(ListPorts):
    """Puts what leaves for the phone into the log."""

    def __init__(self, log: list[Event | bytes]) -> None:
        super().__init__()
        self.log = log

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:  # noqa: ARG002 - one interface
        """Note the samples."""
        packet = None if is_rtcp(bytes(data)) else parse_rtp(bytes(data))
        if packet is not None:
            self.log.append(packet.payload)
        return True


class LoggingAttachment(Attachment):
    """Puts events into the log in the moment in which they are told."""

    log: list[Event | bytes]

    def tell(self, event: Event) -> None:
        """Note it."""
        self.log.append(event)


class Talk:
    """One answered call, its plane and its shell, without SIP and HTTP. `log` is all that left it, in order."""

    def __init__(self, ptime: int) -> None:
        self.log: list[Event | bytes] = []
        self.owner: dict[int, int] = {}
        self._offer = OFFER + f"a=ptime:{ptime}\r\n".encode()
        clock = TrioClock(1_760_000_000.0)
        self.plane = Plane(LoggingPorts(self.log), clock, PlaneConfig(max_calls=1), random.Random(1))
        services = Services(
            clock=clock,
            network=cast(Any, None),
            plane=self.plane,
            fetcher=cast(Any, LateFetcher()),
            speech=SpeechServices(offload=InlineOffload()),
            announcer=Doorman(),
        )
        config = CallConfig(session_id="s1", server_side_track=TRACK, address="sip:a@b")
        core = CallCore(config, clock.wall, 1, clock.now())
        self.task = CallTask(core, SessionParams(session_id="s1", call_type=CallType.SIP), services)
        attachment = LoggingAttachment("s1", self.task.deliver, lambda: None)
        attachment.log = self.log
        self.task.attachment = attachment

    async def begin(self) -> None:
        """Ring and accept."""
        phone, us = (NameAddr(parse_uri(uri)) for uri in ("sip:phone@192.0.2.9", "sip:800@192.0.2.1"))
        self.task.deliver(
            sip.IncomingCall(
                leg="s1",
                caller=phone,
                callee=us,
                headers=(),
                offer=self._offer,
                source=("192.0.2.9", 5060),
                local_host="192.0.2.1",
            )
        )
        await self.give(commands.Accept(option=CallOption(tts=SynthesisOption(provider="late"))))

    async def give(self, command: commands.Command, tag: int | None = None) -> None:
        """One command; its audio belongs to the playback that is the newest when it has been taken."""
        self.task.deliver(command)
        await trio.testing.wait_all_tasks_blocked()
        if tag is not None:
            self.owner[tag] = sum(isinstance(event, TrackStart) for event in self.events())

    def events(self) -> list[Event]:
        """Those of the server-side track."""
        return [item for item in self.log if not isinstance(item, bytes) and getattr(item, "track_id", "") == TRACK]

    def check(self) -> None:
        """No byte of a playback after its end or after the next one's first; each start has an end, hangup is last."""
        started = ended = newest = interrupted = 0
        for item in self.log:
            if isinstance(item, bytes):
                for tag in sorted(set(item) - {0xFF}):
                    owner = self.owner[tag]
                    assert owner > ended, f"audio of playback {owner} after its trackEnd"
                    assert owner >= newest, f"audio of playback {owner} after some of {newest}"
                    newest = owner
            elif getattr(item, "track_id", "") != TRACK:
                continue
            elif isinstance(item, TrackStart):
                started += 1
                assert started == ended + 1
            elif isinstance(item, TrackEnd):
                ended += 1
                assert started == ended
            elif isinstance(item, Interruption):
                interrupted += 1
                assert started == ended + 1
                assert interrupted <= started
        assert started == ended
        assert isinstance(self.log[-1], HungUp)


plays = st.sampled_from([None, "a", "b"])
flags = st.booleans()
lengths = st.sampled_from([0.03, 0.2, 0.9])
delays = st.sampled_from([0.0, 0.02, 0.3, 1.0])
words = st.tuples(lengths, delays, flags, flags)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("tts"), words, plays, flags, flags),
        st.tuples(st.just("play"), words, plays),
        st.tuples(st.just("interrupt"), flags),
        st.tuples(st.sampled_from(["pause", "resume"])),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.31, 0.8])),
    ),
    min_size=3,
    max_size=14,
)


async def act(talk: Talk, number: int, step: tuple[Any, ...]) -> None:
    """One step of an example."""
    tag = FIRST_TAG + number
    match step:
        case ("tts", said, play_id, streaming, end):
            text = f"{Words(tag, *said)}\n"
            command = commands.Tts(
                text=text,
                play_id=play_id,
                streaming=streaming,
                end_of_stream=end,
                option=SynthesisOption(max_concurrent_tasks=1 + number % 3),
            )
            await talk.give(command, tag)
        case ("play", said, play_id):
            await talk.give(commands.Play(url=str(Words(tag, *said)), play_id=play_id), tag)
        case ("interrupt", graceful):
            await talk.give(commands.Interrupt(graceful=graceful))
        case ("wait", seconds):
            await trio.sleep(seconds)
        case (name,):
            await talk.give(commands.Pause() if name == "pause" else commands.Resume())


ONE_AT_WORK = [
    ("wait", 0.01),
    ("wait", 0.01),
    ("tts", (0.9, 0.0, False, False), "a", False, False),
    ("tts", (0.9, 1.0, True, False), "a", False, False),
    ("wait", 0.31),
    ("interrupt", False),
    ("wait", 0.8),
]
"""Cut while the next text's service does not notice: the track's task lives on, and must not be heard."""


@example(steps=ONE_AT_WORK, ptime=20, native=False, last=0.0)
@given(steps=steps, ptime=st.sampled_from([20, 60]), native=flags, last=st.sampled_from([0.0, 0.5, 4.0]))
async def test_no_sample_outlives_its_playback(
    steps: list[tuple[Any, ...]], ptime: int, native: bool, last: float
) -> None:
    """Random commands, services that answer late, fail, or do not notice that they were cancelled."""
    synthesizer = LateStreamer() if native else LateSynthesizer()
    with stand_in(["late"], lambda _, __: cast(Any, None), lambda _, __: synthesizer):
        talk = Talk(ptime)
        async with trio.open_nursery() as nursery:
            await nursery.start(talk.plane.run)
            async with trio.open_nursery() as calls:
                calls.start_soon(talk.task.run)
                await talk.begin()
                for number, step in enumerate(steps):
                    await act(talk, number, step)
                await trio.sleep(last)
                await talk.give(commands.Hangup())
            assert not talk.task.broken
            nursery.cancel_scope.cancel()
        talk.check()
