"""What is done with the remote party's audio: the option's VAD in the plane's units, and what cannot be had here."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from rustpbx.media.events import VadParams, WatchFailed
from rustpbx.session.options import CallOption, VadOption

VAD_ENGINES = ("webrtc", "silero", "ten")
"""The engines of this version; any other is reported and replaced by the first, and so is one that cannot be had."""


def vad_params(option: VadOption) -> VadParams:
    """Milliseconds to seconds; a timeout of 0 is off."""
    return VadParams(
        engine=option.type if option.type in VAD_ENGINES else VAD_ENGINES[0],
        speech_padding=max(0, option.speech_padding) / 1000,
        silence_padding=max(0, option.silence_padding) / 1000,
        threshold=option.voice_threshold,
        silence_timeout=option.silence_timeout / 1000 if option.silence_timeout else None,
    )


def instead(option: VadOption | None, failed: WatchFailed) -> tuple[str, VadParams]:
    """What to say of an engine that cannot be had, and what to watch with in its place."""
    problem = f"vad type {failed.engine} is not available: {failed.problem}; {VAD_ENGINES[0]} is used instead"
    return problem, attrs.evolve(vad_params(option or VadOption()), engine=VAD_ENGINES[0])


def unavailable(option: CallOption) -> Iterator[tuple[str, str]]:
    """What the option asks for and this version does not have, as (sender, problem): one error event each."""
    if option.vad is not None and option.vad.type not in VAD_ENGINES:
        yield "vad", f"vad type {option.vad.type} is not available in this version; {VAD_ENGINES[0]} is used instead"
