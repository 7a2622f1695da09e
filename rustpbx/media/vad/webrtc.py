"""The WebRTC detector (`webrtcvad-wheels`): cheap, most aggressive mode, 20 ms frames of 16 kHz."""

from __future__ import annotations

import webrtcvad

RATE = 16000
AGGRESSIVE = 3


class WebrtcDetector:
    """One stream's detector; it adapts to the noise of its stream, so each leg has its own."""

    def __init__(self) -> None:
        self._is_speech = webrtcvad.Vad(AGGRESSIVE).is_speech

    def voiced(self, frame: bytes) -> bool:
        """Whether 20 ms (640 bytes, int16 native order, 16 kHz mono) sound like speech."""
        return bool(self._is_speech(frame, RATE))
