"""What a relay takes from a server and from strangers, how a stream is cut, and the URIs of servers."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from aioice.stun import Class, Message, Method
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.media.ice import Datagram, Send, Transport, TurnServer
from rustpbx.media.ice.stun import read_stun
from rustpbx.media.ice.turn.message import Frames, channel_data, read_channel_data, send_indication
from rustpbx.media.ice.turn.relay import Relay
from rustpbx.media.ice.turn.tables import GrantState
from rustpbx.media.ice.url import ServerUrl, read_server_url
from tests.kit import predicates

BASE, SERVER, RELAYED, PEER = ("192.0.2.1", 4000), ("203.0.113.9", 3478), ("203.0.113.9", 50000), ("192.0.2.2", 5000)
STRANGER = ("198.51.100.66", 6666)
TURN = TurnServer(address=SERVER, username="alice", password="wonderland")
KEY = hashlib.md5(b"alice:r:wonderland").digest()  # noqa: S324 - RFC 8489 9.2.2


class Bench:
    """A relay with a server played by the test; `asked` is its last request."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.relay = Relay(TURN, BASE, random.Random(1).randbytes, self.counters)
        self.asked = self.look(self.relay.begin(0.0))

    def look(self, effects: Iterable[object]) -> Message:
        """The last request among them, or the one before."""
        for effect in effects:
            assert isinstance(effect, Send)
            assert (effect.base, effect.destination) == (BASE, SERVER)
            self.asked = read_stun(effect.data)
        return self.asked

    def answer(self, kind: Class, key: bytes | None = KEY, **attributes: object) -> None:
        """A response of the server to what was asked last."""
        named = {name.replace("_", "-"): value for name, value in attributes.items()}
        message = Message(self.asked.message_method, kind, self.asked.transaction_id, named)
        if key is not None:
            message.add_message_integrity(key)
        self.look(self.relay.take(bytes(message), 1.0))

    def allocate(self) -> None:
        """Up to the allocation."""
        self.answer(Class.ERROR, None, ERROR_CODE=(401, ""), REALM="r", NONCE=b"n")
        self.answer(Class.RESPONSE, XOR_RELAYED_ADDRESS=RELAYED, LIFETIME=600)
        assert self.relay.relayed == RELAYED


@pytest.mark.rfc("8656", "7")
def test_what_is_asked_for() -> None:
    """UDP, at first without credentials, then with those that the server's realm and nonce make."""
    bench = Bench()
    assert (bench.asked.message_method, bench.asked.attributes["REQUESTED-TRANSPORT"]) == (Method.ALLOCATE, 17 << 24)
    assert "USERNAME" not in bench.asked.attributes
    bench.answer(Class.ERROR, None, ERROR_CODE=(401, ""), REALM="r", NONCE=b"n")
    given_ = bench.asked.attributes
    assert (given_["USERNAME"], given_["REALM"], given_["NONCE"]) == ("alice", "r", b"n")
    assert bench.asked.check_message_integrity(KEY)


@pytest.mark.rfc("8489", "9.2")
@pytest.mark.parametrize("key", [None, b"somebody else's"])
def test_a_forged_answer_is_not_believed(key: bytes | None) -> None:
    """Neither a grant nor a refusal that is not signed; the question stays open."""
    bench = Bench()
    bench.answer(Class.ERROR, None, ERROR_CODE=(401, ""), REALM="r", NONCE=b"n")
    bench.answer(Class.RESPONSE, key, XOR_RELAYED_ADDRESS=RELAYED, LIFETIME=600)
    bench.answer(Class.ERROR, key, ERROR_CODE=(486, ""))
    assert bench.counters == {"turn_not_authentic": 2}
    assert bench.relay.state is GrantState.ASKING
    bench.answer(Class.RESPONSE, XOR_RELAYED_ADDRESS=RELAYED, LIFETIME=600)
    assert bench.relay.relayed == RELAYED


def test_a_grant_without_an_address_is_none() -> None:
    """It is said so."""
    bench = Bench()
    bench.answer(Class.ERROR, None, ERROR_CODE=(401, ""), REALM="r", NONCE=b"n")
    bench.answer(Class.RESPONSE, LIFETIME=600)
    assert (bench.relay.state, bench.relay.problem) == (GrantState.REFUSED, "an answer without an address")


@pytest.mark.rfc("8656", "11", "12")
def test_what_peers_send() -> None:
    """Data comes from hosts that we let in, by indications and by channels that are ours; all else is counted."""
    bench = Bench()
    bench.allocate()
    bench.look(bench.relay.permit(PEER, 1.0))
    bench.answer(Class.RESPONSE)
    bench.look(bench.relay.bind(PEER, 1.0))
    assert bench.asked.attributes["CHANNEL-NUMBER"] == 0x4000
    bench.answer(Class.RESPONSE)
    assert bench.relay.send(b"hello", PEER) == Send(b"\x40\x00\x00\x05hello", BASE, SERVER)
    assert bench.relay.take(channel_data(0x4000, b"hi", padded=True), 1.0) == [Datagram(b"hi", RELAYED, PEER)]
    assert bench.relay.take(indication(PEER, b"hi"), 1.0) == [Datagram(b"hi", RELAYED, PEER)]
    strange = [
        indication(STRANGER, b"hi"),
        channel_data(0x4001, b"hi", padded=False),
        send_indication(b"t" * 12, PEER, b"hi"),
        b"\x40\x00\x00\x09hi",
        bytes(Message(Method.REFRESH, Class.RESPONSE, b"t" * 12)),
    ]
    assert [bench.relay.take(data, 1.0) for data in strange] == [[]] * 5
    assert bench.relay.send(b"hello", STRANGER) is None
    assert bench.counters == {
        "turn_data_of_strangers": 1,
        "turn_channel_unknown": 1,
        "turn_indications_of_no_use": 1,
        "turn_unreadable": 1,
        "turn_unasked": 1,
        "turn_not_permitted": 1,
    }


def indication(peer: tuple[str, int], data: bytes) -> bytes:
    """A server's word of what came from a peer."""
    message = Message(Method.DATA, Class.INDICATION, b"t" * 12)
    message.attributes.update({"XOR-PEER-ADDRESS": peer, "DATA": data})
    return bytes(message)


@pytest.mark.rfc("8489", "6.2.2")
@given(
    st.lists(st.one_of(st.binary(max_size=40).map(lambda data: channel_data(0x4001, data, padded=True)), st.just(b""))),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_a_stream_is_cut_anywhere(pieces: list[bytes], cuts: list[int]) -> None:
    """The messages are the same, however it comes."""
    stun = bytes(Message(Method.BINDING, Class.REQUEST, b"t" * 12))
    messages = [piece or stun for piece in pieces]
    frames, found, data = Frames(), [], b"".join(messages)
    for n in range(len(data)):
        length = cuts[n % len(cuts)]
        found += frames.feed(data[:length])
        data = data[length:]
    assert found == messages


def test_channel_data_that_is_none() -> None:
    """Too short, too long, and no header."""
    for data in (b"", b"\x40", b"\x40\x00\x00\x02x", b"\x40\x00\x00\x01xxxxx"):
        with pytest.raises(RemoteError):
            read_channel_data(data)
    assert read_channel_data(b"\x40\x00\x00\x01xxxx") == (0x4000, b"x")


@given(st.binary(max_size=200))
def test_any_bytes_of_a_server(data: bytes) -> None:
    """Nothing is sent, nothing but our error is raised, and memory is bounded."""
    predicates.turn(data)
    predicates.turn(b"\x01\x03" + len(data).to_bytes(2) + bytes.fromhex("2112a442") + bytes(12) + data)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("stun:stun.example.org", ServerUrl("stun.example.org", 3478, Transport.UDP, relays=False)),
        ("stun:[2001:db8::1]:3479", ServerUrl("2001:db8::1", 3479, Transport.UDP, relays=False)),
        ("turn:192.0.2.1:80", ServerUrl("192.0.2.1", 80, Transport.UDP, relays=True)),
        ("turn:turn.example.org?transport=tcp", ServerUrl("turn.example.org", 3478, Transport.TCP, relays=True)),
        ("turns:turn.example.org", ServerUrl("turn.example.org", 5349, Transport.TLS, relays=True)),
        ("TURNS:t:443?transport=TCP", ServerUrl("t", 443, Transport.TLS, relays=True)),
        ("turns:turn.example.org?transport=udp", None),
        ("stuns:stun.example.org", None),
        ("stun:stun.example.org?transport=tcp", None),
        ("turn:turn.example.org?transport=sctp", None),
        ("turn:turn.example.org:0", None),
        ("turn:turn.example.org:65536", None),
        ("turn:2001:db8::1", None),
        ("turn:", None),
        ("http://turn.example.org", None),
    ],
)
def test_uris_of_servers(text: str, found: ServerUrl | None) -> None:
    """RFC 7064 and RFC 7065, as far as we speak them."""
    assert read_server_url(text) == found
