"""Real speech for what does not take tones for a voice: a sentence of the embedded voice, silence around it."""

from __future__ import annotations

from functools import cache

import numpy as np

from rustpbx.media.events import Pcm
from rustpbx.speech import local_tts

SENTENCE = "Good morning, I would like to book a table for two people."
PAUSE = 1.0
"""Seconds of silence before and behind it."""


@cache
def utterance(rate: int) -> Pcm:
    """The sentence at 8000 or 16000 Hz. Tests that use it are marked `local_speech`."""
    pause = np.zeros(round(PAUSE * rate), np.int16)
    sound = np.concatenate([pause, local_tts.speak(SENTENCE, rate), pause])
    sound.flags.writeable = False  # it is shared
    return sound
