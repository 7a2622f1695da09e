"""The speech provider `scripted`, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rustpbx.speech.registry import register_recognizer, register_synthesizer, unregister
from rustpbx.testing.speech import ScriptedRecognizer, ScriptedSynthesizer


@contextmanager
def scripted_speech(
    transcripts: tuple[str, ...] = (), synthesizer: ScriptedSynthesizer | None = None
) -> Iterator[None]:
    """Every call's recognizer says `transcripts` in turn; all calls share one synthesizer, which speaks in tones."""
    voice = synthesizer or ScriptedSynthesizer()
    register_recognizer("scripted", lambda _, __: ScriptedRecognizer(transcripts))
    register_synthesizer("scripted", lambda _, __: voice)
    try:
        yield
    finally:
        unregister("scripted")
