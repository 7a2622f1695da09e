"""The steps of a tick, each over three rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.plane import stages
from rustpbx.media.rtp import RtpPacket, build_rtp, parse_rtp
from tests.media.plane_rig import tone

SLOTS = np.array([2, 0, 1])


def test_headers_are_read_as_the_parser_reads_them() -> None:
    """Reading a batch of headers gives what the RTP parser gives, packet by packet."""
    packets = [
        RtpPacket(payload_type=101, sequence=65535, timestamp=2**32 - 1, ssrc=7, payload=bytes(160), marker=True),
        RtpPacket(payload_type=0, sequence=0, timestamp=0, ssrc=2**32 - 1, payload=bytes(160)),
        RtpPacket(payload_type=8, sequence=258, timestamp=0x01020304, ssrc=0x0A0B0C0D, payload=bytes(160)),
    ]
    rows = np.array([list(build_rtp(packet)) for packet in packets], np.uint8)
    header = stages.parse_headers(rows)
    assert header.first.tolist() == [0x80] * 3
    assert header.payload_type.tolist() == [101, 0, 8]
    assert header.marker.tolist() == [True, False, False]
    assert header.sequence.tolist() == [65535, 0, 258]
    assert header.rtp_time.tolist() == [2**32 - 1, 0, 0x01020304]
    assert header.ssrc.tolist() == [7, 2**32 - 1, 0x0A0B0C0D]


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 127), st.integers(0, 2**40), st.integers(0, 2**40)),
        min_size=3,
        max_size=3,
    )
)
def test_written_headers_parse(rows: list[tuple[bool, int, int, int]]) -> None:
    """What is written in a batch is what the parser reads; counters wrap at 16 and 32 bits."""
    marker, payload_type, sequence, rtp_time = (np.array(column) for column in zip(*rows, strict=True))
    packets = np.zeros((3, 20), np.uint8)
    stages.write_headers(
        packets,
        SLOTS,
        marker=marker,
        payload_type=payload_type.astype(np.uint8),
        sequence=sequence.astype(np.int64),
        rtp_time=rtp_time.astype(np.int64),
        ssrc=np.array([10, 11, 12], np.uint32),
    )
    for row, slot in enumerate(SLOTS.tolist()):
        assert parse_rtp(packets[slot].tobytes()) == RtpPacket(
            payload_type=int(payload_type[row]),
            sequence=int(sequence[row]) & 0xFFFF,
            timestamp=int(rtp_time[row]) & 0xFFFFFFFF,
            ssrc=10 + row,
            payload=bytes(8),
            marker=bool(marker[row]),
        )


def test_the_ring_gives_back_what_was_put_in() -> None:
    """Frames inserted out of order are taken in order, each row for itself, and a place is empty once taken."""
    ring, present = np.zeros((3, 4, 160), np.uint8), np.zeros((3, 4), np.bool_)
    head = np.array([3, 0, 1])
    for ahead, value in ((1, 20), (0, 10)):
        payload = np.full((3, 160), value, np.uint8) + np.arange(3, dtype=np.uint8)[:, np.newaxis]
        stages.insert(ring, present, head, SLOTS, ahead=np.full(3, ahead), payload=payload)
    taken = []
    for _ in range(3):
        payload, found = stages.take(ring, present, head, SLOTS)
        taken.append([int(row[0]) if there else None for row, there in zip(payload, found, strict=True)])
        stages.advance(present, head, SLOTS)
    assert taken == [[10, 11, 12], [20, 21, 22], [None, None, None]]
    assert head.tolist() == [2, 3, 0]


def test_each_row_has_its_own_law() -> None:
    """Decoding picks the table of each row's codec, alone or mixed, and agrees with the codec itself."""
    codes = np.tile(np.arange(160, dtype=np.uint8), (3, 1))
    law = np.array([0, 1, 0])
    pcm = stages.decode(codes, law)
    expected = [PCMU.decode(codes[0]), PCMA.decode(codes[1]), PCMU.decode(codes[2])]
    assert np.array_equal(pcm, expected)
    assert np.array_equal(stages.decode(codes, np.array([1, 1, 1])), PCMA.decode(codes))
    assert np.array_equal(stages.silence(law)[:, 7], [0xFF, 0xD5, 0xFF])


def test_upsampling_is_one_stream_over_frame_borders() -> None:
    """A tone cut into frames comes out as that tone at 16 kHz, whatever the other rows hold."""
    rows = np.zeros((3, stages.HISTORY + 800), np.int16)
    rows[1, stages.HISTORY :] = tone(0.1)
    cuts = [rows[:, at : at + stages.HISTORY + 160] for at in range(0, 800, 160)]
    frame = stages.Workbench(5, 160)
    out = np.concatenate([stages.upsample(cut, frame).copy() for cut in cuts], axis=1)
    assert np.abs(out.astype(int) - stages.upsample(rows, stages.Workbench(3, 800))).max() <= 1
    assert np.array_equal(out[1, 23::2], tone(0.1)[:-11])
    expected = tone(0.1, rate=16000)
    assert not out[0].any()
    assert not out[2].any()
    lag = 23
    assert np.abs(out[1][200 + lag : 1500 + lag].astype(int) - expected[200:1500]).max() < 40


def test_concealment_fades_to_nothing() -> None:
    """The last frame is repeated, weaker each time, and is gone after 100 ms."""
    before = np.full((3, 160), 1000, np.int16)
    rows = stages.conceal(before, np.array([0, 3, 5]))
    assert rows[:, 0].tolist() == [1000.0, 650.0, 0.0]
    assert stages.levels(rows).tolist() == [1e6, 422_500.0, 0.0]
