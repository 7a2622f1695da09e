"""Real speech for what does not take tones for a voice: a sentence of the embedded voice, silence around it."""

from __future__ import annotations

from functools import cache

import numpy as np

from rustpbx.media.events import Pcm
from rustpbx.speech import local_tts

SENTENCE = "Good morning, I would like to book a table for two people."
PAUSE = 1.0
"""Seconds of silence before and behind it."""

QUIET = 300


@cache
def utterance(rate: int) -> Pcm:
    """The sentence at 8000 or 16000 Hz. Tests that use it are marked `local_speech`."""
    speech = local_tts.speak(SENTENCE, rate)
    loud = np.flatnonzero(np.abs(speech.astype(np.int32)) > QUIET)  # the voice has pauses of its own at both ends
    pause = np.zeros(round(PAUSE * rate), np.int16)
    sound = np.concatenate([pause, speech[loud[0] : loud[-1]], pause])
    sound.flags.writeable = False  # it is shared
    return sound
