"""DTMF in INFO bodies, as phones really write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.sip.info import DTMF, DTMF_RELAY, encode_digit, parse_digit


@pytest.mark.parametrize(
    ("content_type", "body", "digit"),
    [
        (DTMF_RELAY, b"Signal=5\r\nDuration=160", "5"),
        (DTMF_RELAY, b"Signal= 5\r\nDuration= 160\r\n", "5"),
        (DTMF_RELAY, b"signal = #\nduration=100", "#"),
        (DTMF_RELAY, b"Duration=160\r\nSignal=*\r\n", "*"),
        (DTMF_RELAY, b"Signal=11\r\nDuration=160", "#"),
        (DTMF_RELAY, b"Signal=d", "D"),
        (DTMF, b"7", "7"),
        (DTMF, b" 10\r\n", "*"),
        (DTMF, b"a", "A"),
    ],
)
def test_digit_is_read(content_type: str, body: bytes, digit: str) -> None:
    """Spaces, case, order, line ends and event numbers do not matter."""
    assert parse_digit(content_type, body) == digit


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"5", 415),
        ("", b"5", 415),
        (DTMF_RELAY, b"Duration=160", 400),
        (DTMF_RELAY, b"Signal=16", 400),
        (DTMF_RELAY, b"Signal=55", 400),
        (DTMF, b"hello", 400),
    ],
)
def test_what_is_no_digit_says_how_to_answer(content_type: str, body: bytes, status: int) -> None:
    """415 for another type, 400 for a body without a digit."""
    with pytest.raises(RemoteError) as caught:
        parse_digit(content_type, body)
    assert caught.value.reply == status


@given(st.sampled_from("0123456789*#ABCD"), st.integers(40, 5000))
def test_round_trip(digit: str, duration: int) -> None:
    """What we send, we read."""
    assert parse_digit(DTMF_RELAY, encode_digit(digit, duration)) == digit


@given(st.sampled_from([DTMF, DTMF_RELAY]), st.binary(max_size=80))
def test_any_bytes_give_a_digit_or_our_error(content_type: str, body: bytes) -> None:
    """Nothing else ever."""
    with contextlib.suppress(RemoteError):
        assert parse_digit(content_type, body) in "0123456789*#ABCD"
