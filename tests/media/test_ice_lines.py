"""STUN messages by the vectors of RFC 5769, the lines of SDP, and what strangers say to an agent."""

from __future__ import annotations

import random

import attrs
import pytest
from aioice.stun import Class, Message, Method
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.media.ice import Datagram, Gather, IceAgent, Remote, Send
from rustpbx.media.ice.candidates import priority
from rustpbx.media.ice.stun import check_request, is_authentic, mapped_address, read_stun
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.ice import (
    MOST_CANDIDATES,
    Candidate,
    CandidateKind,
    IceDescription,
    ice_attributes,
    parse_candidate,
    read_ice,
)
from rustpbx.media.sdp.model import Attribute, SdpError
from rustpbx.media.sdp.parser import parse_sdp
from tests.kit import predicates

PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION = "2112a442b7e7a701bc34d686fa87dfae"
REQUEST = bytes.fromhex(
    f"00010058{TRANSACTION}802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE_4 = bytes.fromhex(
    f"0101003c{TRANSACTION}8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_6 = bytes.fromhex(
    f"01010048{TRANSACTION}8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)

BASE, PEER, STRANGER = ("192.0.2.1", 4000), ("192.0.2.2", 5000), ("203.0.113.66", 6666)
THEIRS = IceDescription("abcd", "b" * 22)


@pytest.mark.rfc("5769", "2.1")
def test_the_sample_request() -> None:
    """It is read, and authentic with its password only."""
    message = read_stun(REQUEST)
    assert (message.message_method, message.message_class) == (Method.BINDING, Class.REQUEST)
    assert (message.attributes["USERNAME"], message.attributes["PRIORITY"]) == ("evtj:h6vY", 0x6E0001FF)
    assert message.attributes["ICE-CONTROLLED"] == 0x932FF9B151263B36
    assert (is_authentic(message, PASSWORD), is_authentic(message, PASSWORD.lower())) == (True, False)


@pytest.mark.rfc("5769", "2.2", "2.3")
@pytest.mark.parametrize(
    ("data", "host"), [(RESPONSE_4, "192.0.2.1"), (RESPONSE_6, "2001:db8:1234:5678:11:2233:4455:6677")]
)
def test_the_sample_responses(data: bytes, host: str) -> None:
    """They are authentic and give the address of the standard."""
    message = read_stun(data)
    assert is_authentic(message, PASSWORD)
    assert mapped_address(message) == (host, 32853)


@pytest.mark.parametrize("position", range(len(REQUEST)))
def test_no_byte_of_a_check_can_be_changed(position: int) -> None:
    """The fingerprint or the integrity tells."""
    data = bytearray(REQUEST)
    data[position] ^= 0x10
    try:
        message = read_stun(bytes(data))
    except RemoteError:
        return
    assert not is_authentic(message, PASSWORD)


@pytest.mark.rfc("8839", "5.1")
@pytest.mark.parametrize(
    "line",
    [
        "842163049 1 udp 1677729535 198.51.100.7 46154 typ srflx raddr 10.0.0.2 rport 46154 generation 0 ufrag k9Qo",
        "candidate:1 1 UDP 2130706431 2001:DB8::1 50000 typ host",
        "2 2 tcp 1518280447 10.0.0.2 9 typ host tcptype active",
        "3 1 udp 2122260223 2b5a5b1c-0000-4000-8000-000000000000.local 50000 typ host",
        "4 1 udp 41885695 203.0.113.9 50000 typ relay raddr 0.0.0.0 rport 0",
    ],
)
def test_candidates_of_browsers_are_read(line: str) -> None:
    """And what is written of one reads the same."""
    found = parse_candidate(line)
    assert found is not None
    assert parse_candidate(str(found)) == found
    predicates.ice_candidate(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        *("", "1 1 udp", "1 0 udp 1 10.0.0.1 1 typ host", "1 1 udp 0 10.0.0.1 1 typ host"),
        *("1 1 udp 1 10.0.0.1 65536 typ host", "1 1 udp 1 example.org 1 typ host", "1 1 udp 1 10.0.0.1 1 typ guest"),
        *("1 1 udp 2147483648 10.0.0.1 1 typ host", "1 1 udp 1 10.0.0.1 1 typ host\r\na=x", "1 1 udp 1 ::ffff 1"),
        "1 1 udp 1 10.0.0.1 1 typ srflx raddr 10.0.0.1 rport 99999",
    ],
)
def test_what_is_no_candidate(line: str) -> None:
    """None, or at least no address that was not there."""
    found = parse_candidate(line)
    assert found is None or found.related is None


@pytest.mark.rfc("8839", "5.4")
def test_a_description_is_written_and_read() -> None:
    """The lines of a media section and back; too many candidates are cut."""
    candidates = tuple(
        Candidate("1", priority(CandidateKind.HOST, 65535 - n), ("192.0.2.1", 1000 + n), CandidateKind.HOST)
        for n in range(MOST_CANDIDATES + 5)
    )
    ice = IceDescription("abcd", "b" * 22, candidates[:3], options=("trickle", "ice2"), ended=True)
    assert _read(ice_attributes(ice)) == ice
    many = _read(ice_attributes(IceDescription("abcd", "b" * 22, candidates)))
    assert many is not None
    assert many.candidates == candidates[:MOST_CANDIDATES]
    assert _read(()) is None


@pytest.mark.parametrize("lines", [("ice-ufrag:abcd",), ("ice-pwd:" + "b" * 22,), ("ice-ufrag:a b", "ice-pwd:short")])
def test_credentials_that_are_none(lines: tuple[str, ...]) -> None:
    """One is missing or malformed: nothing could be authenticated, and it is said which."""
    text = "\r\n".join(
        ("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 RTP/AVP 0", *("a=" + x for x in lines))
    )
    described = parse_sdp(text.encode())
    with pytest.raises(SdpError, match=r"ice-(ufrag|pwd)"):
        read_ice(described, described.media[0])


def _read(attributes: tuple[Attribute, ...]) -> IceDescription | None:
    text = b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
    bare = parse_sdp(text)
    written = attrs.evolve(bare, media=(attrs.evolve(bare.media[0], attributes=attributes),))
    described = parse_sdp(encode_sdp(written))
    return read_ice(described, described.media[0])


def _agent() -> IceAgent:
    """One that waits for its peer."""
    agent = IceAgent(controlling=False, entropy=random.Random(1).randbytes)
    agent.handle(Gather((BASE,)), 0.0)
    agent.handle(Remote(THEIRS), 0.0)
    return agent


def _check(agent: IceAgent, pwd: str) -> bytes:
    name = f"{agent.local.ufrag}:{THEIRS.ufrag}"
    return check_request(b"t" * 12, name, pwd, 1, 1, controlling=True, nominate=True)


def test_a_spoofed_check_is_dropped_and_counted() -> None:
    """Without our password nobody gets an answer, a pair or a path."""
    agent = _agent()
    assert agent.handle(Datagram(_check(agent, "x" * 22), BASE, STRANGER), 1.0) == []
    assert agent.counters == {"stun_not_authentic": 1}
    assert agent.checks.pairs == []


def test_an_authentic_check_is_answered_and_returned() -> None:
    """With it there is an answer, and a check the same way back."""
    agent = _agent()
    effects = agent.handle(Datagram(_check(agent, agent.local.pwd), BASE, PEER), 1.0)
    assert all(isinstance(effect, Send) for effect in effects)
    sent = [(read_stun(e.data).message_class, e.base, e.destination) for e in effects if isinstance(e, Send)]
    assert sent == [(Class.RESPONSE, BASE, PEER), (Class.REQUEST, BASE, PEER)]


def test_an_answer_from_somebody_else_counts_for_nothing() -> None:
    """A response to a check of ours is believed with the peer's password, and from the address that was asked."""
    agent = _agent()
    effects = agent.handle(Datagram(_check(agent, agent.local.pwd), BASE, PEER), 1.0)
    asked = read_stun([e for e in effects if isinstance(e, Send)][1].data).transaction_id
    forged = Message(Method.BINDING, Class.RESPONSE, asked)
    forged.attributes["XOR-MAPPED-ADDRESS"] = BASE
    forged.add_message_integrity(b"x" * 22)
    assert agent.handle(Datagram(bytes(forged), BASE, PEER), 1.1) == []
    assert agent.counters == {"stun_not_authentic": 1}
    unasked = Message(Method.BINDING, Class.RESPONSE, b"u" * 12)
    assert agent.handle(Datagram(bytes(unasked), BASE, PEER), 1.2) == []
    assert agent.handle(Datagram(b"\x80 rtp of a stranger", BASE, STRANGER), 1.3) == []
    assert agent.counters == {"stun_not_authentic": 1, "stun_unasked": 1, "payload_from_elsewhere": 1}
    assert agent.path is None


@given(st.binary(max_size=200))
def test_any_bytes_are_stun_or_our_error(data: bytes) -> None:
    """The codec lets nothing else out, whatever follows a header that is right."""
    predicates.stun(data)
    predicates.stun(b"\x00\x01" + len(data).to_bytes(2) + bytes.fromhex(TRANSACTION) + data)


@given(st.text(max_size=120))
def test_any_text_is_a_candidate_or_none(text: str) -> None:
    """And what is one is written and read the same."""
    predicates.ice_candidate(text.encode())
