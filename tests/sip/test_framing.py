"""Messages out of a byte stream: how it is cut into pieces makes no difference."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rustpbx.sip.encoder import encode_message
from rustpbx.sip.framing import PING, Framer
from rustpbx.sip.parser import Limits, MalformedRequest
from tests.kit.predicates import cut, sip_framing
from tests.kit.strategies_sip import messages, mutated

ONE = b"OPTIONS sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9\r\nl: 3\r\n\r\nabc"

encoded = messages.map(encode_message)
streams = st.lists(st.just(ONE) | st.just(b"\r\n") | st.just(PING) | encoded, max_size=4).map(b"".join)


@given(st.lists(encoded, max_size=2))
def test_messages_come_out_as_they_went_in(parts: list[bytes]) -> None:
    """Whole messages, in order, however many arrive at once."""
    assert cut([b"".join(parts)]) == (parts, None, None)


@given(streams | mutated(streams) | st.binary(max_size=60))
@example(b"\n\r\n\r\n" + ONE)
def test_the_pieces_make_no_difference(stream: bytes) -> None:
    """Whole, byte by byte and cut anywhere give the same messages and the same end."""
    sip_framing(stream)


@pytest.mark.rfc("5626", "3.5.1")
def test_keep_alives_come_out_between_messages() -> None:
    """Two line ends are a ping (RFC 5626 3.5.1), one is nothing."""
    assert cut([ONE + b"\r\n\r\n" + ONE + b"\r\n" + ONE]) == ([ONE, PING, ONE, ONE], None, None)


@pytest.mark.rfc("3261", "18.3")
def test_a_message_without_length_breaks_the_stream() -> None:
    """Nobody can tell where it ends (18.3): the error can be answered, what follows is not read."""
    framer = Framer()
    assert framer.feed(ONE + ONE.replace(b"l: 3\r\n", b"") + ONE) == [ONE]
    assert isinstance(framer.broken, MalformedRequest)
    assert str(framer.broken) == "a stream needs one Content-Length in each message"
    assert framer.broken.partial is not None
    assert framer.feed(ONE) == []


def test_two_lengths_break_the_stream() -> None:
    """Under whatever names they come."""
    assert cut([ONE.replace(b"l: 3", b"l: 3\r\nContent-Length : 3")])[:2] == (
        [],
        "a stream needs one Content-Length in each message",
    )


def test_no_message_grows_beyond_the_limit() -> None:
    """A head without end and a body too long are 513, before they are buffered."""
    for data in (b"OPTIONS sip:b@h SIP/2.0\r\nX: " + b"y" * 2000, ONE.replace(b"l: 3", b"l: 2000")):
        framer = Framer(Limits(message=2000))
        assert framer.feed(data) == []
        assert framer.broken is not None
        assert framer.broken.reply == 513


@pytest.mark.rfc("5626", "3.5.1")
def test_a_pong_is_one_line_end_where_one_is_expected() -> None:
    """RFC 5626 3.5.1: two pongs are not a ping; where none is expected, or behind one, two line ends are."""
    framer = Framer()
    framer.expects_pong = True
    assert (framer.feed(b"\r\n"), framer.partial) == ([], False)
    framer.expects_pong = True
    assert (framer.feed(b"\r"), framer.feed(b"\n"), framer.partial) == ([], [], False)
    assert framer.feed(b"\r\n") + framer.feed(b"\r\n") == [PING]
    framer.expects_pong = True
    assert framer.feed(b"\r\n\r\n\r\n") == [PING]
