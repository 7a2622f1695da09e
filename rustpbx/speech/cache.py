"""Synthesised speech that is kept: on disk, and while it comes, for calls that want the same words at the same time.

The one that asks first (the leader) asks the service; the others take what comes of it as it comes. When the leader is
cut off, one of them asks anew and leaves out what it has had already.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable

import attrs
import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.codec.resample import EMPTY
from rustpbx.shell.store import FileStore
from rustpbx.speech.base import SpeechChunk, Utterance
from rustpbx.speech.registry import SynthesizerOptions
from rustpbx.speech.socket import first_error

LARGEST = 4 * 1024 * 1024
"""Bytes of one utterance: two minutes at 16 kHz. A longer one is neither kept nor shared."""

_NOTHING = SpeechChunk(EMPTY, 0)

Ask = Callable[[trio.MemorySendChannel[SpeechChunk]], Awaitable[None]]
"""What asks the service: it sends chunks, and returns after the last one or raises `SpeechError`."""


def cache_key(options: SynthesizerOptions, utterance: Utterance, own: str | None = None) -> str:
    """The name of an utterance's audio: SHA-256 of all that shapes it, or of the key that the agent has for it.

    Secrets are not part of it, so that new ones find the audio again.
    """
    if own:
        shape: list[object] = ["own", own, utterance.rate]
    else:
        voiceapi = [os.environ.get(name) for name in ("VOICEAPI_ENDPOINT", "VOICEAPI_SPEAKER_ID")]
        extra = sorted(options.extra.items())
        who = [options.provider or "local", options.codec, options.app_id, options.endpoint, extra]
        shape = ["tts", *who, attrs.asdict(utterance), voiceapi if options.provider == "voiceapi" else None]
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


@attrs.define(eq=False)
class _Request:
    """The audio of one utterance, while it comes."""

    chunks: list[SpeechChunk] = attrs.field(factory=list)
    size: int = 0
    ended: bool = False
    lost: bool = False
    """Cut off, or too long to be kept: those who do not lead it must do without."""
    problem: SpeechError | None = None
    _led: int = 0  # chunks that the leader has had
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def news(self) -> None:
        """Wait for the next change."""
        await self._news.wait()

    async def put(self, chunk: SpeechChunk) -> None:
        """One more. What has become too long waits for the leader, and is forgotten behind it."""
        self.chunks.append(chunk)
        self.size += chunk.pcm.nbytes
        self._tell()
        if self.size > LARGEST:
            self.lose()
            while self._led < len(self.chunks):
                await self.news()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._tell()

    def lose(self) -> None:
        """Nobody can have all of it any more."""
        if not self.lost:
            self.lost = True
            self.chunks[: self._led] = [_NOTHING] * self._led
            self._tell()

    def leader_had(self, index: int) -> None:
        """The leader has sent this one."""
        self._led = index + 1
        if self.lost:
            self.chunks[index] = _NOTHING
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@attrs.define(eq=False)
class _Taker:
    """A call that wants the audio, from however many requests it takes."""

    audio: trio.MemorySendChannel[SpeechChunk]
    had: int = 0
    """Samples sent so far."""

    async def take(self, request: _Request, *, leads: bool) -> bool:
        """Send what comes, from where it was. False if the request was lost; raises what it failed with."""
        skip, index = self.had, 0
        while leads or not request.lost:
            if index < len(request.chunks):
                skip = await self._send(request.chunks[index], skip)
                if leads:
                    request.leader_had(index)
                index += 1
            elif not request.ended:
                await request.news()
            elif request.problem is not None:
                raise request.problem
            else:
                return True
        return False

    async def _send(self, chunk: SpeechChunk, skip: int) -> int:
        """Send a chunk without the samples that were sent already; how many are still to be left out."""
        new = chunk.pcm[skip:]
        if new.size:
            self.had += new.size
            await self.audio.send(attrs.evolve(chunk, pcm=new))
        return max(0, skip - chunk.pcm.size)


class SpeechCache:
    """One for a server: `store` keeps the audio, `hits` and `misses` are counted."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._running: dict[str, _Request] = {}
        self.hits = 0
        self.misses = 0

    async def say(self, key: str, rate: int, ask: Ask, audio: trio.MemorySendChannel[SpeechChunk]) -> bool:
        """Send the audio of `key`, by `ask` only if nobody has it. True if it did not come by `ask`.

        Raises the `SpeechError` of whoever asked.
        """
        taker = _Taker(audio)
        while (request := self._running.get(key)) is not None and not request.lost:
            if await taker.take(request, leads=False):
                self.hits += 1
                return True
        return await self._lead(key, rate, ask, taker)

    async def _lead(self, key: str, rate: int, ask: Ask, taker: _Taker) -> bool:
        request = self._running[key] = _Request()
        try:
            found = _chunks(await self._store.load(key), rate)
            if found:
                self.hits += 1
                request.chunks = found
                request.end()
                return await taker.take(request, leads=True)
            self.misses += 1
            with first_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_collect, ask, request)
                    await taker.take(request, leads=True)
            if request.size and not request.lost:
                await self._store.save(key, _content(request.chunks))
        finally:
            if self._running.get(key) is request:
                del self._running[key]
            if not request.ended:
                request.lose()
        return False


async def _collect(ask: Ask, request: _Request) -> None:
    """What the service sends, as fast as it does."""
    send, chunks = trio.open_memory_channel[SpeechChunk](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask, ask, send, request)
        async for chunk in chunks:
            await request.put(chunk)
    request.end()


async def _ask(ask: Ask, send: trio.MemorySendChannel[SpeechChunk], request: _Request) -> None:
    with send:
        try:
            await ask(send)
        except SpeechError as error:
            request.problem = error


# -- on disk ---------------------------------------------------------------------------------------------------------


def _content(chunks: list[SpeechChunk]) -> bytes:
    """A line of JSON that says where in the text the audio is, then the samples, s16le."""
    lengths = [chunk.pcm.size for chunk in chunks]
    head = json.dumps({"lengths": lengths, "marks": [chunk.mark for chunk in chunks]})
    samples = np.concatenate([chunk.pcm for chunk in chunks])
    return head.encode() + b"\n" + samples.astype("<i2", copy=False).tobytes()


def _chunks(content: bytes | None, rate: int) -> list[SpeechChunk]:
    """Back from `_content`; nothing if it is something else."""
    head, _, data = (content or b"").partition(b"\n")
    try:
        said = json.loads(head)
        lengths, marks = [int(length) for length in said["lengths"]], said["marks"]
    except (ValueError, KeyError, TypeError):
        return []
    if 2 * sum(lengths) != len(data) or len(marks) != len(lengths):
        return []
    samples = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
    ends = np.cumsum(lengths)
    return [
        SpeechChunk(samples[end - length : end], rate, mark)
        for end, length, mark in zip(ends, lengths, marks, strict=True)
    ]
