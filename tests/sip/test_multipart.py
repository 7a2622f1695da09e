"""Bodies in several parts: the session description is found among them, and what must be understood is respected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.sip.events import Answer, CallAnswered, CallConfirmed, IncomingCall
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.multipart import MOST_PARTS, split_parts, with_session
from tests.kit.peers_sip import ANSWER, LEG, OFFER, Lone, invite, invite_wish, reply, request, titles

SDP = b"Content-Type: application/sdp\r\n\r\n" + OFFER
ISUP_HEAD = b"Content-Type: application/ISUP;version=nxv3\r\nContent-Disposition: signal;handling=optional\r\n\r\n"
ISUP = ISUP_HEAD + b"\x01\x00\r\n--b"
TEXT = b"Content-Type: text/plain\r\n\r\nhello"
MAYBE = b"Content-Type: text/plain\r\nContent-Disposition: render; handling = Optional\r\n\r\nhello"


def body(*parts: bytes, boundary: bytes = b"b1") -> bytes:
    """The parts in one body."""
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def kind(subtype: str = "mixed", boundary: str = "b1") -> Lines:
    """The header field of such a body."""
    return (("Content-Type", f"multipart/{subtype};boundary={boundary}"),)


def found(lines: Lines, data: bytes) -> bytes | None:
    """The session description that is found; None if the message stays as it is."""
    message = invite(lines=lines, body=data)
    read = with_session(message)
    if read is message:
        return None
    assert (read.content_type, read.call_id) == ("application/sdp", message.call_id)
    return read.body


@pytest.mark.rfc("2046", "5.1.1")
@pytest.mark.parametrize(
    ("lines", "data", "session"),
    [
        (kind(), body(SDP), OFFER),
        (kind(), body(SDP, ISUP), OFFER),
        (kind(), body(ISUP, SDP), OFFER),
        (kind(), b"to be ignored\r\n" + body(SDP) + b"and this", OFFER),
        (kind(), body(SDP).replace(b"--b1\r\n", b"--b1 \t\r\n", 1), OFFER),
        (kind(), body(SDP).removesuffix(b"--\r\n") + b"\r\n", OFFER),  # cut short: a part ends at its delimiter
        (kind(boundary='"a b\\"c"'), body(SDP, boundary=b'a b"c'), OFFER),
        (kind(boundary='"b1" ; x=y'), body(SDP), OFFER),
        (kind("related", "b1;type=x"), body(SDP, MAYBE), OFFER),
        (kind("alternative"), body(TEXT, SDP), OFFER),
        (kind("alternative"), body(SDP, SDP + b"s=2\r\n"), OFFER + b"s=2\r\n"),
        (kind(), body(b"Content-Type: multipart/mixed; boundary=b2\r\n\r\n" + body(SDP, boundary=b"b2")), OFFER),
        (kind(), body(b"content-type:\r\n application/SDP;charset=utf-8\r\n\r\n" + OFFER), OFFER),
        (kind(), body(SDP, TEXT), None),
        (kind(), body(TEXT), None),
        (kind(), body(MAYBE), None),
        (kind(), body(b"\r\nhello"), None),
        (kind(), body(b""), None),
        (kind(), b"--b1", None),
        (kind(), b"", None),
        (kind(boundary="other"), body(SDP), None),
        (kind(boundary="x" * 71), body(SDP, boundary=b"x" * 71), None),
        ((("Content-Type", "multipart/mixed"),), body(SDP), None),
        (kind(), body(*[SDP] * (MOST_PARTS + 1)), None),
        (kind(), body(b"no colon\r\n\r\n"), None),
        ((("Content-Type", "application/sdp"),), OFFER, None),
        ((), b"", None),
    ],
)
def test_the_session_description_is_found(lines: Lines, data: bytes, session: bytes | None) -> None:
    """By boundary and Content-Type, beside what may be ignored; else the body stays what it is."""
    assert found(lines, data) == session


@pytest.mark.rfc("5621", "8")
def test_nothing_is_looked_for_without_end() -> None:
    """Bodies in bodies in bodies: three deep, and no further."""
    data = SDP
    for depth in range(10):
        assert (found(kind(boundary=f"b{depth}"), body(data, boundary=b"b%d" % depth)) is None) is (depth >= 3)
        data = b"Content-Type: multipart/mixed;boundary=b%d\r\n\r\n" % depth + body(data, boundary=b"b%d" % depth)


@given(data=st.binary(max_size=300), boundary=st.text("ab-'\" ;\\", max_size=5))
def test_any_body_is_parts_or_none(data: bytes, boundary: str) -> None:
    """Whatever stands there: parts of what was sent, or an error of ours."""
    for text in (data, b"--" + boundary.encode() + b"\r\n" + data):
        try:
            parts = list(split_parts(f"multipart/mixed;boundary={boundary}", text))
        except RemoteError:
            continue
        assert all(part.body in text for part in parts)


# -- in calls --------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("5621", "3")
def test_a_call_with_a_body_in_parts_rings() -> None:
    """The session has its offer, and the ACK of a delayed one its answer."""
    lone = Lone()
    assert titles(lone.send(invite(lines=kind(), body=body(ISUP, SDP)))) == ["100 INVITE"]
    (call,) = lone.facts
    assert isinstance(call, IncomingCall)
    assert call.offer == OFFER


def test_the_answer_in_an_ack_may_be_a_part() -> None:
    """Delayed offer."""
    lone = Lone()
    lone.send(invite(lines=(), body=b""))
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(request("ACK", to_tag=lone.tag, lines=kind(), body=body(SDP)))
    assert lone.facts[-1] == CallConfirmed(lone.leg, OFFER)


def test_an_answer_in_a_response_may_be_a_part() -> None:
    """To our own INVITE."""
    lone = Lone()
    (packet,) = lone.wish(invite_wish())
    sent = packet.message
    assert isinstance(sent, Request)
    lone.send(reply(sent, 200, lines=kind(), body=body(SDP, MAYBE)))
    (answered,) = lone.facts
    assert isinstance(answered, CallAnswered)
    assert (answered.leg, answered.body) == (LEG, OFFER)


@pytest.mark.rfc("3261", "21.4.13")
def test_a_part_that_must_be_understood_is_415() -> None:
    """Without `handling=optional` it must (RFC 3261 20.11); the refusal says what we take."""
    (refused,) = Lone().send(invite(lines=kind(), body=body(SDP, TEXT)))
    assert (refused.title, refused.message.header("Accept")) == ("415 INVITE", "application/sdp")
