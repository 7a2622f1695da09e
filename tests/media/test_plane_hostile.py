"""The plane under packets from anybody: seven legs that misbehave beside one that does not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS
from rustpbx.media.rtcp import build_rtcp
from rustpbx.media.rtp import build_rtp
from tests.kit.predicates import media_plane
from tests.kit.strategies_media import RTCP, RTP

KEPT = sorted(path.read_bytes() for path in TARGETS["media_plane"].inputs())


def record(kinds: st.SearchStrategy[int], content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """One record of an input: see `tests/kit/raw_plane.py`."""
    return st.tuples(kinds, st.integers(0, 7), content.map(lambda data: data[:255])).map(
        lambda record: bytes([record[0], record[1], len(record[2])]) + record[2]
    )


datagrams = record(
    st.integers(0, 2),
    st.one_of(RTP.map(build_rtp), st.lists(RTCP, max_size=2).map(build_rtcp), st.binary(max_size=60)),
)
changed = record(st.just(3), st.binary(max_size=14))
changes = record(st.integers(5, 7), st.binary(max_size=1))


@given(st.lists(datagrams | changed | changes, max_size=40).map(b"".join))
@settings(max_examples=40)
def test_no_packet_disturbs_another_leg(data: bytes) -> None:
    """Strangers, broken packets, DTMF, RTCP, holds and reopened legs: the good leg hears and sends without a gap."""
    media_plane(data)


@given(st.lists(st.sampled_from(KEPT), min_size=2, max_size=3).map(b"".join))
@settings(max_examples=20)
def test_what_was_kept_may_follow_each_other(data: bytes) -> None:
    """The same for inputs of the corpus one after the other."""
    media_plane(data)
