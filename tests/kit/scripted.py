"""The speech provider `scripted`, for the length of a block."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rustpbx.testing.speech import SCRIPTED, ScriptedSpeech, ScriptedSynthesizer


def scripted_speech(
    transcripts: tuple[str, ...] = (), synthesizer: ScriptedSynthesizer | None = None
) -> AbstractContextManager[None]:
    """Every call's recognizer says `transcripts` in turn; all calls share one synthesizer."""
    return ScriptedSpeech(synthesizer=synthesizer or ScriptedSynthesizer(), transcripts=transcripts).serving(SCRIPTED)
