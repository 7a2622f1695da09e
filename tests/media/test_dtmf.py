"""RFC 4733 digits: one per press, whatever the network does to its packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import MediaError
from rustpbx.media.dtmf import DIGITS, LONGEST, DigitReceiver, digit_packets
from tests.kit.predicates import dtmf

Event = tuple[int, int, bytes]


def press(digit: str, timestamp: int, *, ssrc: int = 1, duration: int = 100) -> list[Event]:
    """The packets of one press as a receiver sees them."""
    return [(ssrc, timestamp, packet.payload) for packet in digit_packets(digit, duration=duration)]


def digits(events: list[Event]) -> str:
    """What a fresh receiver makes of these packets."""
    receiver = DigitReceiver()
    return "".join(receiver.receive(*event) or "" for event in events)


def event(digit: str, timestamp: int, duration: int, *, end: bool = False, ssrc: int = 1) -> Event:
    """One packet by hand."""
    return ssrc, timestamp, bytes([DIGITS.index(digit), 0x8A if end else 0x0A, *duration.to_bytes(2, "big")])


def test_packets_of_a_digit() -> None:
    """Growing durations, a marker on the first, three equal ends 20 ms apart."""
    packets = digit_packets("5", duration=60)
    assert [(p.at, p.marker, p.payload.hex()) for p in packets] == [
        (0, True, "050a00a0"),
        (20, False, "050a0140"),
        (40, False, "058a01e0"),
        (60, False, "058a01e0"),
        (80, False, "058a01e0"),
    ]


def test_a_very_short_press_still_has_its_ends() -> None:
    """Shorter than one packet time: three ends, the first with the marker."""
    assert [(p.at, p.marker) for p in digit_packets("#", duration=10)] == [(0, True), (20, False), (40, False)]


@pytest.mark.parametrize("bad", ["", "E", "12", "p"])
def test_what_is_no_digit_cannot_be_sent(bad: str) -> None:
    """Our own error, naming it."""
    with pytest.raises(MediaError, match="no DTMF digit"):
        digit_packets(bad)


def test_a_press_too_long_for_one_segment_cannot_be_sent() -> None:
    """16 bits of duration are 8.19 s."""
    with pytest.raises(MediaError, match="not possible"):
        digit_packets("1", duration=9000)


@pytest.mark.parametrize("digit", DIGITS)
def test_every_digit(digit: str) -> None:
    """All sixteen come through, `0` (event 0) among them."""
    assert digits(press(digit, 1000)) == digit


def test_zero_first_and_a_row_of_digits() -> None:
    """A number beginning with 0, with a doubled digit."""
    number = "0441122"
    events = [e for at, digit in enumerate(number) for e in press(digit, 1000 + at * 1600)]
    assert digits(events) == number


@given(st.text(DIGITS, min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.data())
def test_any_packet_of_a_press_may_be_lost_or_repeated(number: str, start: int, data: st.DataObject) -> None:
    """As long as one packet of each press arrives, each digit is reported once, over a timestamp wrap too."""
    events: list[Event] = []
    for at, digit in enumerate(number):
        packets = press(digit, (start + at * 1600) & 0xFFFFFFFF)
        kept = data.draw(st.lists(st.sampled_from(range(len(packets))), min_size=1, max_size=10).map(sorted))
        events.extend(packets[index] for index in kept)
    assert digits(events) == number


@given(st.permutations(press("7", 800)))
def test_reordering_within_a_press(events: list[Event]) -> None:
    """Any order gives one digit."""
    assert digits(events) == "7"


def test_late_packets_of_an_earlier_press() -> None:
    """An end that arrives after the next digit began reports nothing again."""
    first, second = press("1", 1000), press("2", 3000)
    assert digits([*first[:2], second[0], first[-1], second[1], first[-1]]) == "12"


def test_same_digit_twice_without_the_first_end() -> None:
    """Two presses of one key stay two although the end of the first was lost."""
    assert digits([*press("3", 1000)[:3], *press("3", 2600)]) == "33"


def test_same_digit_twice_without_a_pause() -> None:
    """The second begins exactly where the first ended."""
    assert digits([*press("3", 1000, duration=100), *press("3", 1800)]) == "33"


def test_a_long_press_is_one_digit() -> None:
    """Over 8.19 s the sender begins a new segment with a new timestamp (2.5.1.3)."""
    segments = [
        event("9", 500 + start, min(duration, LONGEST)) for start in (0, LONGEST) for duration in (160, LONGEST)
    ]
    last = event("9", 500 + 2 * LONGEST, 800, end=True)
    assert digits([*segments, last, last, last]) == "9"


def test_a_duration_that_wraps_is_one_digit() -> None:
    """Some senders let the duration start again from 0 under the same timestamp."""
    assert digits([event("9", 500, 65_000), event("9", 500, 100), event("9", 500, 800, end=True)]) == "9"


def test_a_sender_that_advances_the_timestamp() -> None:
    """Broken, yet seen: each packet with a timestamp of its own while the duration grows, one of them lost."""
    events = [event("4", 160 * n, 160 * (n + 1)) for n in (0, 1, 3, 4)]
    assert digits([*events, event("4", 800, 960, end=True), event("4", 800, 960, end=True)]) == "4"


def test_another_ssrc_is_another_press() -> None:
    """The same key and time from another source counts."""
    assert digits([*press("8", 1000), *press("8", 1000, ssrc=2)]) == "88"


@pytest.mark.parametrize("payload", [b"", b"\x01\x0a\x00", bytes([16, 0x8A, 0, 160]), bytes([255, 0, 0, 0])])
def test_what_is_no_digit_reports_nothing(payload: bytes) -> None:
    """Short payloads, hook flash and other events."""
    assert DigitReceiver().receive(1, 0, payload) is None


packets = st.tuples(st.integers(0, 3), st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=4)).map(
    lambda packet: bytes([packet[0]]) + packet[1].to_bytes(4, "big") + packet[2]
)


@given(st.lists(packets, max_size=30).map(b"".join), st.binary(max_size=8))
def test_any_payload_is_survived(data: bytes, rest: bytes) -> None:
    """Each packet gives its own digit or none, and doubled ones change nothing."""
    dtmf(data + rest)
