"""Which provider name gives which service."""

from __future__ import annotations

import attrs
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock
from rustpbx.outbound import Reach, open_client
from rustpbx.shell.offload import InlineOffload
from rustpbx.speech import registry
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.local import LocalRecognizer, LocalSynthesizer
from rustpbx.speech.registry import RecognizerOptions, SpeechServices, SynthesizerOptions
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.wire import Wire

SERVICES = SpeechServices(offload=InlineOffload())


class Parrot:
    """A service of one's own."""

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Hear nothing."""

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say nothing."""


@pytest.mark.local_speech
@pytest.mark.parametrize("provider", [None, "", "local"])
def test_local_is_the_default(provider: str | None) -> None:
    """Without a provider the embedded one speaks and hears; all its recognizers share one gate."""
    assert isinstance(registry.make_recognizer(RecognizerOptions(provider=provider), SERVICES), LocalRecognizer)
    assert isinstance(registry.make_synthesizer(SynthesizerOptions(provider=provider), SERVICES), LocalSynthesizer)


@pytest.mark.parametrize("provider", sorted(registry.BUILT_IN))
def test_the_protocols_providers_hear_and_speak(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is loaded by its name, and made out of credentials alone."""
    for variable in ("TENCENT_APPID", "TENCENT_SECRET_ID", "TENCENT_SECRET_KEY"):
        monkeypatch.setenv(variable, "x")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "x")
    monkeypatch.setenv("DEEPGRAM_API_KEY", "x")
    network = MemoryNetwork(Wire(), "10.0.0.1")
    services = attrs.evolve(SERVICES, trusted=Reach(network=network, client=open_client(network)))
    assert callable(registry.make_recognizer(RecognizerOptions(provider=provider), services).recognize)
    assert callable(registry.make_synthesizer(SynthesizerOptions(provider=provider), services).synthesize)


def test_unknown_providers_are_named() -> None:
    """A name that nobody knows is refused with the names that are known."""
    with pytest.raises(SpeechError) as caught:
        registry.make_synthesizer(SynthesizerOptions(provider="Local"), SERVICES)
    words, _, available = str(caught.value).partition(": ")
    assert words == "provider 'Local' is unknown; available"
    assert {"local", *registry.BUILT_IN} <= set(available.split(", "))


def test_own_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered service is made from the call's options and the server's services."""
    seen: list[object] = []

    def make(options: object, services: SpeechServices) -> Parrot:
        seen.append((options, services))
        return Parrot()

    monkeypatch.setattr(registry, "_recognizers", {})
    monkeypatch.setattr(registry, "_synthesizers", {})
    registry.register_recognizer("parrot", make)
    registry.register_synthesizer("parrot", make)
    hearing, speaking = RecognizerOptions(provider="parrot", language="en"), SynthesizerOptions(provider="parrot")
    assert isinstance(registry.make_recognizer(hearing, SERVICES), Parrot)
    assert isinstance(registry.make_synthesizer(speaking, SERVICES), Parrot)
    assert seen == [(hearing, SERVICES), (speaking, SERVICES)]


def test_secrets_are_not_shown() -> None:
    """Options may be logged: their secrets are not in their text."""
    assert "s3cret" not in repr(RecognizerOptions(secret_id="s3cret", secret_key="s3cret"))
    assert "s3cret" not in repr(SynthesizerOptions(secret_id="s3cret", secret_key="s3cret"))
