"""Keys that we press: RFC 4733 packets in the sequence of the audio, tones, and what is played waits meanwhile."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import MediaError
from rustpbx.media.dtmf import DIGITS, DigitReceiver
from rustpbx.media.events import Direction, KeyReleased
from rustpbx.media.plane.keypad import MOST_WAITING, EventPacket, Keypad, Released, Sound
from rustpbx.media.rtp import RtpPacket
from tests.media.plane_rig import Rig, as_sent, g711, pcm_of, tone


def events(packets: list[RtpPacket]) -> list[RtpPacket]:
    """The telephone-event packets among them."""
    return [packet for packet in packets if packet.payload_type == 101]


def gapless(packets: list[RtpPacket]) -> bool:
    """Whether the sequence numbers go on from one to the next."""
    numbers = [packet.sequence for packet in packets]
    return numbers == [(numbers[0] + at) & 0xFFFF for at in range(len(numbers))]


@pytest.mark.rfc("4733", "2.5.1")
def test_an_event_is_many_packets_with_one_timestamp() -> None:
    """Marker on the first, the duration so far in each, three times the end, the sequence that of the audio."""
    rig = Rig()
    port = rig.open()
    rig.tick(2)
    rig.plane.press("a", "5", duration=60, gap=40)
    rig.tick(10)
    packets = rig.rtp(port)
    pressed = events(packets)
    assert [(p.marker, p.payload.hex()) for p in pressed] == [
        (True, "050a00a0"),
        (False, "050a0140"),
        (False, "058a01e0"),
        (False, "058a01e0"),
        (False, "058a01e0"),
    ]
    assert gapless(packets)
    assert {p.timestamp for p in pressed} == {packets[0].timestamp + 2 * 160}
    assert {p.ssrc for p in packets} == {packets[0].ssrc}
    assert [packets.index(p) for p in pressed] == [2, 3, 4, 5, 6]
    assert packets[7].timestamp == packets[0].timestamp + 7 * 160  # the audio's own time has gone on
    assert rig.told() == [KeyReleased("a", "5")]


async def test_what_is_played_waits_and_loses_nothing() -> None:
    """A sound that is cut by a key goes on behind it where it was; nobody hears it meanwhile."""
    rig = Rig()
    port = rig.open()
    sound = tone(0.4)
    async with rig.plane.source("a", 1) as source:
        await source.write(sound)
        source.finish()
        rig.tick(5)
        rig.plane.press("a", "1", duration=100, gap=60)
        rig.tick(40)
        packets = rig.rtp(port)
    audio = [packet for packet in packets if packet.payload_type == 0]
    heard = pcm_of(audio)
    first = as_sent(sound[: 5 * 160])
    assert np.array_equal(heard[: 5 * 160], first)
    # 100 ms and two more ends are 7 packets; 60 ms after the key was up, of which two were ends, the sound goes on.
    assert len(events(packets)) == 7
    assert np.array_equal(heard[6 * 160 : 6 * 160 + 15 * 160], as_sent(sound[5 * 160 :]))
    assert not heard[5 * 160 : 6 * 160].any()
    assert audio[6].marker  # its talk spurt begins anew
    assert gapless(packets)
    assert source.played == 400


@pytest.mark.parametrize("ptime", [20, 40, 60])
def test_packets_of_audio_are_whole(ptime: int) -> None:
    """With longer packets a key waits for the end of the one that is being filled."""
    rig = Rig()
    port = rig.open(media=g711(ptime=ptime))
    rig.tick(1)
    for digit in "42":
        rig.plane.press("a", digit, duration=80, gap=60)
    rig.tick(60)
    packets = rig.rtp(port)
    assert {len(packet.payload) for packet in packets if packet.payload_type == 0} == {ptime * 8}
    assert gapless(packets)
    receiver = DigitReceiver()
    assert [d for p in events(packets) if (d := receiver.receive(p.ssrc, p.timestamp, p.payload))] == ["4", "2"]
    assert rig.told() == [KeyReleased("a", "4"), KeyReleased("a", "2")]


def test_breaking_off_ends_the_event_properly() -> None:
    """The key that is down goes up with three ends at the duration so far; those that wait are never pressed."""
    rig = Rig()
    port = rig.open()
    for digit in "123":
        rig.plane.press("a", digit, duration=500, gap=100)
    rig.tick(4)
    rig.plane.release("a")
    rig.tick(10)
    pressed = events(rig.rtp(port))
    assert [p.payload.hex() for p in pressed] == [
        *("010a00a0", "010a0140", "010a01e0", "010a0280"),
        *("018a0320",) * 3,
    ]
    assert rig.told() == []


def test_tones_in_the_audio() -> None:
    """In-band: the two frequencies of the key at their levels for its duration, and then silence for its gap."""
    rig = Rig()
    port = rig.open()
    rig.plane.press("a", "8", duration=90, gap=60, inband=True)
    rig.tick(10)
    packets = rig.rtp(port)
    assert {packet.payload_type for packet in packets} == {0}
    heard = pcm_of(packets).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(heard[:720] * np.hanning(720)))
    low, high = sorted(np.argsort(spectrum)[-2:] * 8000 / 720)
    assert abs(low - 852) < 12
    assert abs(high - 1336) < 12
    assert np.abs(heard[:720]).max() > 15000
    assert not heard[720:].any()
    assert rig.told() == [KeyReleased("a", "8")]


def test_nothing_is_pressed_on_hold() -> None:
    """While we may not send, the key waits; afterwards it is pressed."""
    rig = Rig()
    port = rig.open(media=g711(direction=Direction.RECVONLY))
    rig.plane.press("a", "9", duration=60, gap=40)
    rig.tick(20)
    assert rig.rtp(port) == []
    rig.plane.set_remote("a", g711())
    rig.tick(10)
    assert len(events(rig.rtp(port))) == 5


def test_an_agreement_without_events_ends_them() -> None:
    """A re-INVITE that drops telephone-event: no packet of a type that nobody agreed to."""
    rig = Rig()
    port = rig.open()
    rig.plane.press("a", "9", duration=200, gap=40)
    rig.tick(3)
    rig.plane.set_remote("a", g711(send_dtmf_pt=None))
    rig.tick(5)
    packets = rig.rtp(port)
    assert len(events(packets)) == 3
    assert packets[-1].payload_type == 0


@pytest.mark.parametrize(
    ("leg", "digit", "duration", "problem"),
    [
        ("b", "1", 100, "no media leg"),
        ("a", "E", 100, "no DTMF digit"),
        ("a", "", 100, "no DTMF digit"),
        ("a", "1", 0, "not possible"),
        ("a", "1", 9000, "not possible"),
    ],
)
def test_what_cannot_be_pressed(leg: str, digit: str, duration: int, problem: str) -> None:
    """Our own error, and nothing has changed."""
    rig = Rig()
    rig.open()
    with pytest.raises(MediaError, match=problem):
        rig.plane.press(leg, digit, duration=duration)
    assert rig.told() == []


def test_without_an_agreement_on_events_there_are_none() -> None:
    """Only tones are possible then."""
    rig = Rig()
    rig.open(media=attrs.evolve(g711(), send_dtmf_pt=None))
    with pytest.raises(MediaError, match="telephone-event was not agreed"):
        rig.plane.press("a", "1")
    rig.plane.press("a", "1", inband=True)


def test_the_keypad_is_bounded() -> None:
    """One is pressed, so many wait, and the next is refused."""
    keypad = Keypad()
    for _ in range(MOST_WAITING + 1):
        keypad.press("1", duration=100, gap=50, inband=False)
    with pytest.raises(MediaError, match="wait"):
        keypad.press("1", duration=100, gap=50, inband=False)


keys = st.tuples(st.sampled_from(DIGITS), st.integers(40, 400), st.integers(0, 300), st.booleans())
ticks = st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=200, max_size=200)


@given(st.lists(keys, max_size=5), st.integers(0, 2**33), ticks)
def test_any_keys_at_any_pace(
    presses: list[tuple[str, int, int, bool]], start: int, pace: list[tuple[int, bool]]
) -> None:
    """Ticks may be left out and packets be long: each key is released once and in order, each event has three ends."""
    keypad, receiver = Keypad(), DigitReceiver()
    for digit, duration, gap, inband in presses:
        keypad.press(digit, duration=duration, gap=gap, inband=inband)
    now, heard, told, ends = start, "", "", 0
    for step, boundary in [*pace, *[(1, True)] * 400]:
        what = keypad.step(now, 8000, boundary=boundary)
        match what:
            case EventPacket(payload=payload, rtp_time=begin):
                ends += payload[1] >> 7
                heard += receiver.receive(1, begin & 0xFFFFFFFF, payload) or ""
            case Sound(pcm=pcm):
                assert pcm.shape == (160,)
            case Released(told=pressed):
                told += pressed or ""
        now += step * 160
    assert told == "".join(digit for digit, *_ in presses)
    assert heard == "".join(digit for digit, _, _, inband in presses if not inband)
    assert ends == 3 * sum(not inband for *_, inband in presses)
    assert not keypad.busy
