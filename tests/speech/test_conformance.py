"""The conformance checks: every built-in service keeps them, and what breaks a promise is named."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock
from rustpbx.speech import registry
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.registry import RecognizerOptions, SynthesizerOptions
from rustpbx.testing.services.aliyun import EmulatedAliyun
from rustpbx.testing.services.conformance import (
    NonconformityError,
    check_recognizer,
    check_refusal,
    check_synthesizer,
)
from rustpbx.testing.services.deepgram import EmulatedDeepgram
from rustpbx.testing.services.service import EmulatedService
from rustpbx.testing.services.tencent import EmulatedTencent
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from tests.kit.services import HOST, NOW, PORT, loud, quiet, serving

SERVICES: dict[str, tuple[Callable[[], EmulatedService], str, dict[str, str]]] = {
    "aliyun": (EmulatedAliyun, "/api-ws/v1/inference", {"secret_key": "sk-aliyun"}),
    "deepgram": (EmulatedDeepgram, "", {"secret_key": "deepgram-key"}),
    "tencent": (
        lambda: EmulatedTencent(now=NOW),
        "",
        {"app_id": "1250000000", "secret_id": "AKIDEXAMPLE", "secret_key": "example-key"},
    ),
    "tencent_basic": (
        lambda: EmulatedTencent(now=NOW),
        "",
        {"app_id": "1250000000", "secret_id": "AKIDEXAMPLE", "secret_key": "example-key"},
    ),
    "voiceapi": (EmulatedVoiceApi, "", {}),
}
SPEECH = np.concatenate([quiet(0.5), loud(0.6), quiet(2.0), loud(0.4)])


def options(provider: str) -> dict[str, Any]:
    """What a call says to use the emulated service."""
    _, path, account = SERVICES[provider]
    scheme = "ws" if path else "http"  # the whole URL of a WebSocket, or the base of everything
    return {"provider": provider, "endpoint": f"{scheme}://{HOST}:{PORT}{path}", **account}


@pytest.mark.parametrize("provider", sorted(SERVICES))
async def test_built_in_recognizers_conform(provider: str) -> None:
    """Words in order, numbered, in time, the last ones too; cancelled anywhere, they are gone."""
    service = SERVICES[provider][0]()
    service.script = Endless()  # type: ignore[attr-defined]  # all of them have one
    async with serving(service, open_to_agents=True) as services:
        make = lambda: registry.make_recognizer(RecognizerOptions(**options(provider)), services)  # noqa: E731
        await check_recognizer(make, SPEECH, ["words", "words"])


class Endless(list[str]):
    """A script that never ends."""

    def popleft(self) -> str:
        """The next text."""
        return "words"

    def __getitem__(self, index: object) -> str:  # type: ignore[override]
        return "words"

    def __bool__(self) -> bool:
        return True


@pytest.mark.parametrize("provider", sorted(SERVICES))
@pytest.mark.parametrize("rate", [8000, 16000])
async def test_built_in_synthesizers_conform(provider: str, rate: int) -> None:
    """Audio at the rate asked for, with places in the text, whole or in pieces; cancelled anywhere, they are gone."""
    async with serving(SERVICES[provider][0](), open_to_agents=True) as services:
        make = lambda: registry.make_synthesizer(SynthesizerOptions(**options(provider)), services)  # noqa: E731
        await check_synthesizer(make, rate)


@pytest.mark.parametrize("provider", sorted(SERVICES))
async def test_built_in_services_fail_by_speech_errors(provider: str) -> None:
    """Nobody listens at the endpoint: an error of the right kind, that may pass, in both directions."""
    asked = {**options(provider), "endpoint": f"http://{HOST}:1"}
    async with serving(SERVICES[provider][0](), open_to_agents=True) as services:
        voice = await check_refusal(lambda: registry.make_synthesizer(SynthesizerOptions(**asked), services))
        ears = await check_refusal(lambda: registry.make_recognizer(RecognizerOptions(**asked), services))
    assert (voice.passing, ears.passing) == (True, True)


class Wrong:
    """A service that breaks its promises as it is told."""

    def __init__(self, chunks: list[SpeechChunk] | None = None, heard: list[Transcript] | None = None) -> None:
        self.chunks = chunks or []
        self.heard = heard or []

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:  # noqa: ARG002
        """Send what it has."""
        for chunk in self.chunks:
            await audio.send(chunk)

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Tell what it has."""
        async for _ in audio:
            pass
        for transcript in self.heard:
            await transcripts.send(transcript)


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([], "no audio came"),
        ([SpeechChunk(loud(0.1), 8000)], "another rate"),
        ([SpeechChunk(quiet(0.0), 16000)], "a chunk is empty"),
        ([SpeechChunk(loud(0.1).astype(np.float32), 16000)], "not int16"),
        ([SpeechChunk(loud(0.1), 16000, 9), SpeechChunk(loud(0.1), 16000, 3)], "marks run backwards"),
        ([SpeechChunk(loud(0.1), 16000, 900)], "outside of the text"),
    ],
)
async def test_a_synthesizer_that_breaks_a_promise_is_named(chunks: list[SpeechChunk], words: str) -> None:
    """Each promise of the interface has its own words."""
    with pytest.raises(NonconformityError, match=words):
        await check_synthesizer(lambda: Wrong(chunks))


def final(index: int, start: float, end: float, text: str = "a") -> Transcript:
    """A final text, its times from the begin of the audio."""
    return Transcript(index, text, True, 1000.0 + start, 1000.0 + end)


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        ([], r"heard \[\] instead"),
        ([final(1, 0, 1)], "not numbered from 0"),
        ([final(0, 5, 6)], "not within the audio"),
        ([final(0, 0.5, 0.1)], "not within the audio"),
    ],
)
async def test_a_recognizer_that_breaks_a_promise_is_named(heard: list[Transcript], words: str) -> None:
    """Each promise of the interface has its own words."""
    with pytest.raises(NonconformityError, match=words):
        await check_recognizer(lambda: Wrong(heard=heard), loud(1.0), ["a"])


async def test_a_service_that_cannot_fail_is_told() -> None:
    """A check that expects an error says when none came."""
    with pytest.raises(NonconformityError, match="did not fail"):
        await check_refusal(Wrong)


# -- packages that bring a service -----------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages with entry points, one of which cannot be loaded."""
    points = {
        name: EntryPoint(name, value, registry.ENTRY_POINTS)
        for name, value in (("mine", "rustpbx.speech.voiceapi"), ("broken", "no_such_module"))
    }
    monkeypatch.setattr(registry, "_installed", lambda: points)


@pytest.mark.usefixtures("installed")
async def test_a_package_brings_a_service_by_an_entry_point() -> None:
    """It is known by its name, and used like one of ours; one that cannot be loaded is an error that says so."""
    service = EmulatedVoiceApi()
    asked: dict[str, Any] = {"provider": "mine", "endpoint": f"http://{HOST}:{PORT}"}
    async with serving(service, open_to_agents=True) as services:
        await check_synthesizer(lambda: registry.make_synthesizer(SynthesizerOptions(**asked), services))
        with pytest.raises(SpeechError, match="provider 'broken' cannot be loaded: ModuleNotFoundError"):
            registry.make_recognizer(RecognizerOptions(provider="broken"), services)
    assert {"mine", "broken"} <= set(registry.known_providers())
