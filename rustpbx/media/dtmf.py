"""DTMF digits as RTP events (RFC 4733): one digit per press however the packets arrive, and packets for a digit."""

from __future__ import annotations

import struct
from collections import deque

import attrs

from rustpbx.errors import MediaError

DIGITS = "0123456789*#ABCD"
"""Event codes 0 to 15 (section 3.2)."""

LOW = (697.0, 770.0, 852.0, 941.0)
HIGH = (1209.0, 1336.0, 1477.0, 1633.0)
"""The tones of the keypad's rows and columns, in Hz (ITU-T Q.23)."""

KEYPAD = ("123A", "456B", "789C", "*0#D")
"""The keypad: a row for each of `LOW`, a column for each of `HIGH`."""

LONGEST = 0xFFFF
"""The largest duration, in ticks; a longer press goes on in a new segment (2.5.1.3)."""

END_PACKETS = 3
"""The last packet of an event is sent so often (2.5.1.4)."""

_EVENT = struct.Struct("!BBH")


@attrs.define
class _Press:
    ssrc: int
    event: int
    timestamp: int
    duration: int
    ended: bool


class DigitReceiver:
    """Turns telephone-event payloads into digits, at the first packet seen of each press.

    A press is known by its SSRC, timestamp and event, never by marker or end bit, so any of its packets may be lost,
    tripled or late. The last 16 presses are remembered.
    """

    def __init__(self) -> None:
        self._press: _Press | None = None
        self._seen: deque[tuple[int, int, int]] = deque(maxlen=16)

    def receive(self, ssrc: int, timestamp: int, payload: bytes) -> str | None:
        """Take one packet's payload; the digit if a press begins with it, else None (as for events above 15)."""
        if len(payload) < _EVENT.size:
            return None
        event, flags, duration = _EVENT.unpack_from(payload)
        if event >= len(DIGITS):
            return None
        key = (ssrc, timestamp, event)
        known = key in self._seen
        if not known:
            self._seen.append(key)
        if self._continues(ssrc, timestamp, event, duration):
            self._note(timestamp, duration, ended=bool(flags & 0x80))
            return None
        if known:
            return None
        self._press = _Press(ssrc, event, timestamp, duration, bool(flags & 0x80))
        return DIGITS[event]

    def _continues(self, ssrc: int, timestamp: int, event: int, duration: int) -> bool:
        """Whether the packet belongs to the latest press, though its timestamp may have moved."""
        press = self._press
        if press is None or (press.ssrc, press.event) != (ssrc, event):
            return False
        ahead = (timestamp - press.timestamp) & 0xFFFFFFFF
        if ahead == 0 or ahead < press.duration:  # nothing new can begin before the old one is over
            return True
        if press.ended:
            return False
        # The next segment of a long press; or a sender that wrongly advances the timestamp with every packet, whose
        # duration then says that the key went down before this timestamp.
        return ahead == LONGEST or ahead < duration

    def _note(self, timestamp: int, duration: int, *, ended: bool) -> None:
        press = self._press
        if press is None:
            return
        if (timestamp - press.timestamp) & 0xFFFFFFFF == LONGEST:
            press.timestamp, press.duration = timestamp, duration
        press.duration = max(press.duration, duration)
        press.ended = press.ended or ended


def encode_event(digit: str, duration: int, *, end: bool = False, volume: int = 10) -> bytes:
    """A telephone-event payload (RFC 4733 2.3): `duration` so far in ticks, at most `LONGEST`; `volume` in -dBm0."""
    return _EVENT.pack(DIGITS.index(digit), (0x80 if end else 0) | volume, duration)


@attrs.frozen
class DigitPacket:
    """One packet to send `at` milliseconds after the first; all share the timestamp of the first."""

    at: int
    marker: bool
    payload: bytes


def digit_packets(
    digit: str, *, duration: int = 100, ptime: int = 20, clock_rate: int = 8000, volume: int = 10
) -> tuple[DigitPacket, ...]:
    """The packets of one press of `duration` ms: one every `ptime` ms, the last of them three times with the end bit.

    `volume` is in -dBm0 (0..63). Raises `MediaError` for an unknown digit or a press longer than one segment
    (8.19 s at 8 kHz).
    """
    digit = digit.upper()
    if len(digit) != 1 or digit not in DIGITS:
        raise MediaError(f"{digit!r} is no DTMF digit")
    if not 0 < duration * clock_rate // 1000 <= LONGEST:
        raise MediaError(f"a DTMF press of {duration} ms is not possible")
    packets = []
    for index, end in enumerate(range(ptime, duration, ptime)):
        payload = encode_event(digit, end * clock_rate // 1000, volume=volume)
        packets.append(DigitPacket(index * ptime, index == 0, payload))
    last = encode_event(digit, duration * clock_rate // 1000, end=True, volume=volume)
    for _ in range(END_PACKETS):
        packets.append(DigitPacket(len(packets) * ptime, not packets, last))
    return tuple(packets)
