"""Speech that is kept: asked for once, whole, and for nobody else's words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import SpeechError
from rustpbx.media.events import Pcm
from rustpbx.shell.offload import InlineOffload
from rustpbx.shell.store import FileStore
from rustpbx.speech.base import SpeechChunk, Utterance
from rustpbx.speech.cache import LARGEST, Ask, SpeechCache, cache_key
from rustpbx.speech.registry import SynthesizerOptions

RATE = 16000
SOUND = np.arange(16000, dtype=np.int16)
WORDS = Utterance(rate=RATE, text="hello")


def kept(directory: Path) -> SpeechCache:
    """A cache on disk."""
    return SpeechCache(FileStore(InlineOffload(), directory))


def files(directory: Path) -> list[Path]:
    """What is in it."""
    return list(directory.iterdir())


@attrs.define
class Service:
    """Says `sound` in pieces of `size` samples, one each 0.1 s, with a mark on the first; then fails, if it is to."""

    sound: Pcm = attrs.field(factory=SOUND.copy)
    size: int = 1600
    pace: float = 0.1
    problem: SpeechError | None = None
    asked: int = 0
    sent: int = 0

    async def ask(self, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say it."""
        self.asked += 1
        for at in range(0, len(self.sound), self.size):
            await audio.send(SpeechChunk(self.sound[at : at + self.size], RATE, at // self.size))
            self.sent += 1
            await trio.sleep(self.pace)
        if self.problem is not None:
            raise self.problem


@attrs.define(eq=False)
class Call:
    """One that wants the audio: what it got, and whether it was kept; `over` with a problem, or None."""

    chunks: list[SpeechChunk] = attrs.field(factory=list)
    cached: bool | None = None
    problem: SpeechError | None = None
    first_at: float | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def pcm(self) -> Pcm:
        """All of it."""
        return np.concatenate([chunk.pcm for chunk in self.chunks]) if self.chunks else np.zeros(0, np.int16)

    async def say(self, cache: SpeechCache, ask: Ask, key: str = "key") -> None:
        """Want it now."""
        send, chunks = trio.open_memory_channel[SpeechChunk](0)
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take, chunks)
                with send:
                    try:
                        self.cached = await cache.say(key, RATE, ask, send)
                    except SpeechError as problem:
                        self.problem = problem

    async def _take(self, chunks: trio.MemoryReceiveChannel[SpeechChunk]) -> None:
        async for chunk in chunks:
            if self.first_at is None:
                self.first_at = trio.current_time()
            self.chunks.append(chunk)


async def test_the_second_time_nobody_is_asked(tmp_path: Path) -> None:
    """Samples and marks come from the disk, in another server too."""
    service, first, second = Service(), Call(), Call()
    await first.say(kept(tmp_path), service.ask)
    cache = kept(tmp_path)
    await second.say(cache, service.ask)
    assert (first.cached, second.cached, service.asked) == (False, True, 1)
    assert np.array_equal(second.pcm, SOUND)
    assert [chunk.mark for chunk in second.chunks] == list(range(10))
    assert (cache.hits, cache.misses) == (1, 0)


async def test_the_first_audio_does_not_wait_for_the_last(tmp_path: Path) -> None:
    """Who asks, and who joins later, both hear at once what there is."""
    service, leader, follower, began = Service(), Call(), Call(), trio.current_time()
    cache = kept(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader.say, cache, service.ask)
        await trio.sleep(0.55)
        nursery.start_soon(follower.say, cache, service.ask)
    assert (leader.first_at, follower.first_at) == (began, began + 0.55)
    assert trio.current_time() == pytest.approx(began + 1.0)
    assert service.asked == 1
    assert np.array_equal(follower.pcm, SOUND)
    assert (leader.cached, follower.cached) == (False, True)


async def test_a_call_that_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    """The leader takes nothing, as one on hold; the others hear all of it in time."""
    service, follower, cache = Service(), Call(), kept(tmp_path)
    send, _unread = trio.open_memory_channel[SpeechChunk](0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.say, "key", RATE, service.ask, send)
        await trio.sleep(0.05)
        await follower.say(cache, service.ask)
        assert trio.current_time() == pytest.approx(began + 1.0)
        nursery.cancel_scope.cancel()
    assert np.array_equal(follower.pcm, SOUND)


async def test_when_the_one_that_asked_hangs_up_another_asks(tmp_path: Path) -> None:
    """Ten calls share; the first is cut off in the middle: one more request, and each hears every sample once."""
    service, calls, cache = Service(), [Call() for _ in range(10)], kept(tmp_path)
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call.say, cache, service.ask)
            await trio.sleep(0.01)
        await trio.sleep(0.35)
        calls[0].scope.cancel()
    assert service.asked == 2
    assert all(np.array_equal(call.pcm, SOUND) for call in calls[1:])
    assert [call.cached for call in calls].count(True) == 8
    again = Call()
    await again.say(cache, service.ask)
    assert again.cached is True


async def test_half_an_utterance_is_never_kept(tmp_path: Path) -> None:
    """A service that fails in the middle fails for all that share it, and the next call asks again."""
    service, calls, cache = Service(problem=SpeechError("died", 500)), [Call(), Call()], kept(tmp_path)
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call.say, cache, service.ask)
    assert [str(call.problem) for call in calls] == ["died", "died"]
    assert all(np.array_equal(call.pcm, SOUND) for call in calls)
    assert not files(tmp_path)
    service.problem, later = None, Call()
    await later.say(cache, service.ask)
    assert (later.cached, service.asked) == (False, 2)


async def test_a_call_that_is_cut_off_keeps_nothing(tmp_path: Path) -> None:
    """Cancelled at any moment: no file, and nothing that the next call would wait for."""
    for moment in range(10):
        service, call, cache = Service(), Call(), kept(tmp_path)
        call.scope.deadline = trio.current_time() + 0.1 * moment
        await call.say(cache, service.ask)
        assert not files(tmp_path)
        again = Call()
        await again.say(cache, service.ask)
        assert np.array_equal(again.pcm, SOUND)
        files(tmp_path)[0].unlink()


async def test_what_is_too_long_is_heard_and_not_kept(tmp_path: Path) -> None:
    """More than LARGEST: each call has a request of its own from there on, and memory does not grow with it."""
    long = np.zeros(LARGEST // 2 + 160_000, np.int16)
    long[::1000] = np.arange(len(long[::1000])) % 1000
    service = Service(long, size=16_000, pace=0.0)
    cache, calls = kept(tmp_path), [Call(), Call()]
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call.say, cache, service.ask)
    assert all(np.array_equal(call.pcm, long) for call in calls)
    assert [call.cached for call in calls] == [False, False]
    assert not files(tmp_path)


async def test_a_service_that_is_too_far_ahead_waits(tmp_path: Path) -> None:
    """Endless audio stops at LARGEST as long as nobody takes it."""
    service, cache = Service(np.zeros(LARGEST, np.int16), size=16_000, pace=0.0), kept(tmp_path)
    send, _unread = trio.open_memory_channel[SpeechChunk](0)
    with trio.move_on_after(10):
        await cache.say("key", RATE, service.ask, send)
    assert service.sent * 32_000 <= LARGEST + 64_000


async def test_nothing_is_kept_of_silence(tmp_path: Path) -> None:
    """A service that says nothing is asked again."""
    service, calls, cache = Service(np.zeros(0, np.int16)), [Call(), Call()], kept(tmp_path)
    for call in calls:
        await call.say(cache, service.ask)
    assert ([call.cached for call in calls], service.asked) == ([False, False], 2)


async def test_a_damaged_file_is_asked_for_again(tmp_path: Path) -> None:
    """Bytes changed behind our back are no audio."""
    service, first, second = Service(), Call(), Call()
    await first.say(kept(tmp_path), service.ask)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-2])
    await second.say(kept(tmp_path), service.ask)
    assert (second.cached, service.asked) == (False, 2)
    assert np.array_equal(second.pcm, SOUND)


async def test_a_whole_file_of_something_else_is_asked_for_again(tmp_path: Path) -> None:
    """What the store vouches for may still be no speech."""
    store = FileStore(InlineOffload(), tmp_path)
    for content in (b"", b"{}\n", b"[1]\nab", b'{"lengths": [2], "marks": [0]}\nab', b"\xff\xfe"):
        service, call = Service(), Call()
        await store.save("key", content)
        await call.say(kept(tmp_path), service.ask)
        assert (call.cached, service.asked) == (False, 1)


def with_option(**changes: object) -> Callable[[], str]:
    """The key after one change of the options."""
    return lambda: cache_key(attrs.evolve(SynthesizerOptions(provider="voiceapi"), **changes), WORDS)  # type: ignore[arg-type]


def with_words(**changes: object) -> Callable[[], str]:
    """The key after one change of the utterance."""
    return lambda: cache_key(SynthesizerOptions(provider="voiceapi"), attrs.evolve(WORDS, **changes))  # type: ignore[arg-type]


def test_all_that_shapes_the_audio_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change any one of it, and the key is another; secrets change nothing."""
    monkeypatch.delenv("VOICEAPI_ENDPOINT", raising=False)
    monkeypatch.delenv("VOICEAPI_SPEAKER_ID", raising=False)
    plain = with_words()()
    changed = [
        with_option(provider="aliyun"),
        with_option(codec="pcmu"),
        with_option(app_id="1"),
        with_option(endpoint="http://a"),
        with_option(extra={"model": "m"}),
        with_words(text="hello "),
        with_words(rate=8000),
        with_words(speaker="1"),
        with_words(speed=1.1),
        with_words(volume=6),
        with_words(emotion="sad"),
    ]
    own = cache_key(SynthesizerOptions(provider="voiceapi"), WORDS, "own")
    keys = {plain, own, *(key() for key in changed)}
    assert len(keys) == 2 + len(changed)
    assert with_option(secret_id="i", secret_key="k")() == plain
    assert with_option(extra={})() == plain
    monkeypatch.setenv("VOICEAPI_SPEAKER_ID", "7")
    assert with_words()() not in keys


def test_a_key_of_the_agents_own_stands_for_all_of_it() -> None:
    """Another text and voice under the same key are the same audio; at another rate they are not."""
    options, other = SynthesizerOptions(provider="aliyun"), attrs.evolve(WORDS, text="else", speaker="x")
    assert cache_key(SynthesizerOptions(), WORDS, "own") == cache_key(options, other, "own")
    assert cache_key(options, attrs.evolve(WORDS, rate=8000), "own") != cache_key(options, WORDS, "own")


@given(own=st.text(), text=st.text())
def test_a_key_is_safe_as_a_name(own: str, text: str) -> None:
    """Whatever an agent sends, the file's name is 64 hexadecimal digits."""
    key = cache_key(SynthesizerOptions(), attrs.evolve(WORDS, text=text), own)
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")
