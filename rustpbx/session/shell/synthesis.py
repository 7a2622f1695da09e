"""A `tts` option as the speech services take it."""

from __future__ import annotations

from rustpbx.session.options import SynthesisOption
from rustpbx.speech.base import Voice
from rustpbx.speech.registry import SynthesizerOptions

AHEAD = 16
"""Chunks between a service and its playback; a service that is further ahead waits. The source's own spool is the real
buffer.
"""


def synthesizer_options(option: SynthesisOption) -> SynthesizerOptions:
    """Who speaks."""
    return SynthesizerOptions(
        provider=option.provider,
        codec=option.codec or "pcm",
        app_id=option.app_id,
        secret_id=option.secret_id,
        secret_key=option.secret_key,
        endpoint=option.endpoint,
        extra=dict(option.extra or {}),
    )


def voice(option: SynthesisOption, rate: int) -> Voice:
    """How it is said."""
    return Voice(
        rate=rate,
        speaker=option.speaker,
        speed=1.0 if option.speed is None else option.speed,
        volume=5 if option.volume is None else option.volume,
        emotion=option.emotion,
    )


def sender(option: SynthesisOption) -> str:
    """What `error` events call the service."""
    return f"tts.{option.provider or 'local'}"
