"""Offers and answers over a whole call: holds, changes, refusals, and what must stay the same all along."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RustpbxError
from rustpbx.media.events import Codec, Direction
from rustpbx.media.sdp import parse_sdp
from rustpbx.media.sdp.model import SessionDescription
from rustpbx.media.sdp.negotiate import NegotiationError
from rustpbx.session import commands, effects
from rustpbx.session.agreement import Agreement, check_offer
from rustpbx.session.options import CallOption
from rustpbx.sip import events as sip
from tests.kit.session import Bench

SENDRECV, SENDONLY, RECVONLY, INACTIVE = Direction
ANSWERS = {SENDRECV: SENDRECV, SENDONLY: RECVONLY, RECVONLY: SENDONLY, INACTIVE: INACTIVE}
"""RFC 3264 6.1, for us who are always willing."""
NOWHERE = "0.0.0.0"  # noqa: S104 - an address in SDP, not one to bind
PHONE = "192.0.2.9"
SIP_PORT = 5060


def agreement() -> Agreement:
    """Ours of a new call."""
    return Agreement("192.0.2.1", 12000, 77, 42, sip_port=SIP_PORT)


def offer(*lines: str, host: str = PHONE, version: int = 1, medium: str = "audio 4000 RTP/AVP 0 8") -> bytes:
    """A phone's offer with one stream; `lines` follow it."""
    head = ["v=0", f"o=- 1 {version} IN IP4 {PHONE}", "s=-", f"c=IN {'IP6' if ':' in host else 'IP4'} {host}", "t=0 0"]
    return "\r\n".join([*head, f"m={medium}", *lines, ""]).encode()


def said(body: bytes) -> SessionDescription:
    """Our description."""
    return parse_sdp(body)


OFFERS = st.lists(
    st.tuples(
        st.sampled_from([*Direction, None]),
        st.booleans(),
        st.sampled_from(["0 8", "8", "8 0", "0"]),
        st.sampled_from([10, 20, 30]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.rfc("3264", "6.1", "8", "8.3.1", "8.3.2", "8.3.4", "8.4")
@pytest.mark.rfc("6337", "5.3", "5.4")
@given(offers=OFFERS)
def test_any_sequence_of_holds_and_changes(
    offers: list[tuple[Direction | None, bool, str, int, bool]],
) -> None:
    """Each answer is the table's; the o= line keeps its id and counts what is new; a refusal changes nothing."""
    ours, versions, texts = agreement(), [], []
    for number, (direction, nowhere, formats, ptime, refused) in enumerate(offers):
        lines = [f"a=ptime:{ptime}", *([f"a={direction.value}"] if direction else [])]
        if refused:
            before = ours.format, ours.sdp
            with pytest.raises(RustpbxError):
                ours.answer(offer(*lines, medium="audio 4000 RTP/AVP 18"))
            assert (ours.format, ours.sdp) == before
        host = NOWHERE if nowhere else PHONE
        port = 4000 + 2 * number
        body, agreed = ours.answer(offer(*lines, host=host, medium=f"audio {port} RTP/AVP {formats}"))
        answer = said(body)
        (media,) = answer.media
        expected = ANSWERS[direction or SENDRECV]
        if nowhere:  # nobody listens there: we hear, and say nothing
            expected = {SENDRECV: RECVONLY, SENDONLY: INACTIVE}.get(expected, expected)
        assert (answer.direction_of(media), agreed.direction) == (expected, expected)
        assert (agreed.remote, agreed.ptime) == ((host, port), ptime)
        assert agreed.codec is {"0": Codec.PCMU, "8": Codec.PCMA}[formats[0]]  # the offerer's order
        assert (media.port, answer.origin.session_id) == (12000, "42")
        versions.append(int(answer.origin.version))
        texts.append(body.partition(b"\r\ns=")[2])
    changes = itertools.accumulate((int(old != new) for old, new in itertools.pairwise(texts)), initial=42)
    assert versions == list(changes)


@pytest.mark.rfc("3264", "8.4")
@pytest.mark.parametrize("hold", [("a=sendonly",), ("a=inactive",), ()], ids=["sendonly", "inactive", NOWHERE])
def test_unhold_brings_everything_back(hold: tuple[str, ...]) -> None:
    """After any kind of hold the plain offer is sendrecv to the real address again."""
    ours = agreement()
    before = ours.answer(offer())[1]
    held = ours.answer(offer(*hold, host=PHONE if hold else NOWHERE))[1]
    assert held.direction in {RECVONLY, INACTIVE}
    assert ours.answer(offer())[1] == before


@pytest.mark.rfc("3264", "6", "8.1", "8.2")
@pytest.mark.rfc("6337", "5.1", "5.2.5")
def test_other_streams_are_refused_where_they_stand() -> None:
    """Video, applications and a second audio stream come and go: port 0 at the same place, as many lines as offered."""
    ours = agreement()
    extra = ["m=video 4002 RTP/AVP 31", "m=application 4004 TCP/BFCP *", "m=audio 4006 RTP/AVP 0"]
    for streams in ([], extra[:1], extra, [*extra[:2], extra[2].replace("4006", "0")]):
        media = said(ours.answer(offer(*streams))[0]).media
        assert [(m.kind, m.port) for m in media] == [
            ("audio", 12000),
            *[(line[2:].split()[0], 0) for line in streams],
        ]
    first_refused = offer("m=audio 4002 RTP/AVP 0", medium="video 4000 RTP/AVP 31")
    assert [(m.kind, m.port) for m in said(ours.answer(first_refused)[0]).media] == [("video", 0), ("audio", 12000)]


@pytest.mark.rfc("3605", "2.1")
@pytest.mark.parametrize(
    ("lines", "port", "rtcp"),
    [
        ((), 4000, (PHONE, 4001)),
        ((), 4001, (PHONE, 4002)),  # an odd port is as good as any
        (("a=rtcp:53020",), 4000, (PHONE, 53020)),
        (("a=rtcp:53020 IN IP4 192.0.2.99",), 4000, ("192.0.2.99", 53020)),
        (("a=rtcp-mux",), 4001, (PHONE, 4001)),
    ],
)
def test_where_rtcp_goes(lines: tuple[str, ...], port: int, rtcp: tuple[str, int]) -> None:
    """The next port, or what a=rtcp and rtcp-mux say."""
    agreed = agreement().answer(offer(*lines, medium=f"audio {port} RTP/AVP 0"))[1]
    assert (agreed.remote, agreed.rtcp) == ((PHONE, port), rtcp)


@pytest.mark.rfc("8866", "5.13", "6.7")
def test_session_level_attributes_hold_for_the_stream() -> None:
    """Direction, ptime and c= before the first m= line; what stands in the stream wins."""
    head = f"v=0\r\no=- 1 1 IN IP4 {PHONE}\r\ns=-\r\nc=IN IP4 {PHONE}\r\nt=0 0\r\na=sendonly\r\na=ptime:30\r\n"
    agreed = agreement().answer(f"{head}m=audio 4000 RTP/AVP 0\r\n".encode())[1]
    assert (agreed.direction, agreed.ptime) == (RECVONLY, 30)
    inner = "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.99\r\na=inactive\r\na=ptime:10\r\n"
    agreed = agreement().answer(f"{head}{inner}".encode())[1]
    assert (agreed.direction, agreed.ptime, agreed.remote) == (INACTIVE, 10, ("192.0.2.99", 4000))


@pytest.mark.rfc("3264", "7")
@pytest.mark.rfc("6337", "3.1.2")
def test_payload_types_may_differ_by_direction() -> None:
    """We offer telephone-event as 101; a peer that answers with 96 is sent 96, and sends 101."""
    ours = agreement()
    ours.offer()
    answer = offer("a=rtpmap:96 telephone-event/8000", "a=ptime:60", medium="audio 4000 RTP/AVP 8 96")
    agreed = ours.accept(answer)
    assert (agreed.send_dtmf_pt, agreed.receive_dtmf_pt, agreed.codec, agreed.ptime) == (96, 101, Codec.PCMA, 60)


OURSELVES = [
    (offer(host="192.0.2.1", medium="audio 12000 RTP/AVP 0"), "192.0.2.1:12000"),
    (offer(host="192.0.2.1", medium="audio 12001 RTP/AVP 0"), "192.0.2.1:12001"),
    (offer(host="192.0.2.1", medium=f"audio {SIP_PORT} RTP/AVP 0"), "192.0.2.1:5060"),
    (offer(f"a=rtcp:{SIP_PORT} IN IP4 192.0.2.1"), "192.0.2.1:5060"),
    (offer(host="192.0.2.1", medium=f"audio {SIP_PORT - 1} RTP/AVP 0"), "192.0.2.1:5060"),
]


@pytest.mark.parametrize(("body", "named"), OURSELVES)
def test_nobody_makes_us_send_to_ourselves(body: bytes, named: str) -> None:
    """An offer or an answer that names our SIP socket or our own end of the leg is refused, and changes nothing."""
    ours = agreement()
    with pytest.raises(NegotiationError, match=named):
        ours.answer(body)
    assert (ours.format, ours.sdp) == (None, "")
    ours.offer()
    with pytest.raises(NegotiationError, match=named):
        ours.accept(body)
    assert ours.format is None


def test_a_phone_on_our_own_host_is_none_of_us() -> None:
    """The same address with other ports, on hold with port 0 too."""
    ours = agreement()
    assert ours.answer(offer(host="192.0.2.1"))[1].remote == ("192.0.2.1", 4000)
    assert ours.answer(offer(host="192.0.2.1", medium="audio 0 RTP/AVP 0"))[1].direction is RECVONLY


# -- the call ---------------------------------------------------------------------------------------------------------


def talking() -> Bench:
    """A phone's call that the agent has accepted."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(commands.Accept(option=CallOption()))
    return bench


def test_an_offer_to_our_sip_port_is_refused_at_once() -> None:
    """488 before anybody is asked."""
    with pytest.raises(NegotiationError):
        check_offer(offer(host="192.0.2.1", medium=f"audio {SIP_PORT} RTP/AVP 0"), host="192.0.2.1", sip_port=SIP_PORT)
    bench = Bench()
    out = bench.incoming(offer(host="255.255.255.255"))
    assert sip.Refuse("s1", 488) in [sip.Refuse(what.leg, what.status) for what in out if isinstance(what, sip.Refuse)]


@pytest.mark.rfc("3261", "14.2")
@pytest.mark.rfc("6141", "3.3")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (offer(medium="audio 4000 RTP/AVP 18"), 488),
        (offer(host="224.0.0.1"), 488),
        (offer(host="192.0.2.1", medium="audio 12000 RTP/AVP 0"), 488),
        (b"v=1\r\n", 400),
    ],
)
def test_a_refused_offer_leaves_the_session(body: bytes, status: int) -> None:
    """The answer is 488 (or 400 for no SDP at all), nothing is told to the plane, and the next offer is served."""
    bench = talking()
    assert bench.give(sip.OfferReceived("s1", body)) == [sip.RefuseOffer("s1", status)]
    out = bench.give(sip.OfferReceived("s1", offer("a=sendonly")))
    assert [type(what) for what in out] == [effects.SetRemote, sip.AcceptOffer]


@pytest.mark.rfc("3261", "14.2")
@pytest.mark.rfc("6337", "3.4")
def test_an_offer_without_sdp_gets_everything_we_can_do() -> None:
    """A re-INVITE without SDP: ours is the offer, the ACK has the answer, and only then the plane hears of it."""
    bench = talking()
    bench.give(sip.OfferReceived("s1", offer("a=inactive", medium="audio 4000 RTP/AVP 8")))
    (accepted,) = bench.give(sip.OfferReceived("s1", b""))
    assert isinstance(accepted, sip.AcceptOffer)
    (media,) = said(accepted.body).media
    assert (media.formats, said(accepted.body).direction_of(media)) == (("0", "8", "101"), SENDRECV)
    (remote,) = bench.give(sip.OfferAnswered("s1", offer(medium="audio 4002 RTP/AVP 0")))
    assert isinstance(remote, effects.SetRemote)
    assert (remote.media.remote, remote.media.direction) == ((PHONE, 4002), SENDRECV)
