"""What must hold whatever comes in: one function for each kind of input, bytes in, an exception if it does not hold.

The property tests, the corpus test and the fuzzer (`fuzz/`) call these same functions, so that all three prove the
same sentences: nothing but our own errors, whose text is one line; what is read can be written and reads the same;
how a stream is cut does not matter; no secret shows.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import tomllib
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import attrs

from rustpbx.config import Config, ConfigErrors, merge_config, parse_config
from rustpbx.control.access import Access
from rustpbx.control.wire import WireError, decode_command, encode_command
from rustpbx.errors import LocalError, MediaError, RemoteError
from rustpbx.media.decode import container_of, decode
from rustpbx.media.dtmf import DIGITS, DigitReceiver
from rustpbx.media.events import Codec, Direction, MediaFormat, SrtpKey, SrtpSuite
from rustpbx.media.ice import Datagram, Gather, IceAgent, Remote, TurnServer
from rustpbx.media.ice.stun import read_stun
from rustpbx.media.ice.turn.relay import Relay
from rustpbx.media.rtcp import (
    Bye,
    ReceiverReport,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    build_rtcp,
    parse_rtcp,
    round_trip,
)
from rustpbx.media.rtp import build_rtp, is_rtcp, parse_rtp, payload_span
from rustpbx.media.sdp.crypto import Security, SrtpMode
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.fingerprint import Fingerprint, Setup
from rustpbx.media.sdp.ice import Candidate, CandidateKind, IceDescription, parse_candidate, read_ice
from rustpbx.media.sdp.model import MediaDescription, SdpError, SessionDescription
from rustpbx.media.sdp.negotiate import LocalMedia, NegotiationError, accept_answer, answer, offer
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.media.sdp.webrtc import NOWHERE, OwnEnd, answer_peer, read_peer_offer
from rustpbx.sip.auth import DigestClient, authorize, parse_challenge
from rustpbx.sip.encoder import encode_message, encode_refusal, header_lines
from rustpbx.sip.events import Credentials
from rustpbx.sip.framing import PING, Framer
from rustpbx.sip.headers import is_safe, parse_cseq, parse_name_addr, parse_via, split_list
from rustpbx.sip.info import DTMF, DTMF_RELAY, parse_digit
from rustpbx.sip.message import CSeq, NameAddr, Request, Response, Via
from rustpbx.sip.multipart import with_session
from rustpbx.sip.parser import Limits, MalformedRequest, PartialRequest, parse_aor, parse_message, read_head
from rustpbx.sip.uri import parse_uri
from tests.kit.raw_control import responses, talk
from tests.kit.raw_credentials import prove as sip_credentials
from tests.kit.raw_dtls import disturb as dtls
from tests.kit.raw_plane import listen as media_plane
from tests.kit.raw_srtp import listen as srtp
from tests.kit.script_sip import play as sip_endpoint

__all__ = [
    "audio",
    "config",
    "control_http",
    "control_json",
    "dtls",
    "dtmf",
    "media_plane",
    "rtcp",
    "rtp",
    "sdp",
    "sip_address",
    "sip_challenge",
    "sip_credentials",
    "sip_endpoint",
    "sip_framing",
    "sip_message",
    "srtp",
]

T = TypeVar("T")


def same(got: object, wanted: object, what: str) -> None:
    """Fail with both values if they differ."""
    assert got == wanted, f"{what}:\n  {got!r}\nis not\n  {wanted!r}"


def named(text: str) -> str:
    """An error's text: it says something, on one line, and can be logged, sent and printed as it is."""
    assert text.strip(), "an error without words"
    assert text.isprintable(), f"an error that is not one line of text: {text!r}"
    assert len(text) < 1000, f"an error of {len(text)} characters"
    return text


def text_of(data: bytes) -> str:
    """Bytes as the SIP parser reads a head."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


# -- SIP ------------------------------------------------------------------------------------------------------------

BOB = NameAddr(parse_uri("sip:bob@example.com"))
REQUEST = Request(
    method="OPTIONS",
    uri=BOB.uri,
    vias=(Via("UDP", "192.0.2.1"),),
    from_=BOB.tagged("f"),
    to=BOB,
    call_id="c",
    cseq=CSeq(1, "OPTIONS"),
)


def sip_message(data: bytes) -> None:
    """A message that can be written and reads the same, or a RemoteError and, for a request, its answer."""
    try:
        message = parse_message(data)
    except RemoteError as error:
        named(str(error))
        assert error.reply in {400, 414, 505, 513}, error.reply
        if isinstance(error, MalformedRequest) and error.partial is not None:
            sip_refusal(error.partial, error.reply)
        return
    encoded = encode_message(message)
    same(parse_message(encoded), message, "a message written and read again")
    same(encode_message(parse_message(encoded)), encoded, "a message written twice")
    for line in header_lines(message):
        assert "\r" not in line, line
        assert "\n" not in line, line
    with_session(message)
    if message.content_type in {DTMF, DTMF_RELAY}:
        info_digit(message.content_type or "", message.body)


def sip_refusal(broken: PartialRequest, status: int) -> None:
    """The answer to a broken request gives back what could be read of it, and not a field more."""
    sent = encode_refusal(broken, status, tag="our-tag")
    head, empty, body = sent.partition(b"\r\n\r\n")
    start, fields = read_head(head)
    same((start[:12], empty, body), (f"SIP/2.0 {status} ", b"\r\n\r\n", b""), "the refusal")
    names = [*("Via" for _ in broken.vias), *(name for name, _ in broken.lines), "Content-Length"]
    same([name for name, _ in fields], names, "the fields of the refusal")


def info_digit(content_type: str, body: bytes) -> None:
    """One digit or a RemoteError."""
    try:
        digit = parse_digit(content_type, body)
    except RemoteError as error:
        named(str(error))
        return
    assert len(digit) == 1, digit
    assert digit in DIGITS, digit


def sip_address(data: bytes) -> None:
    """A URI, an address, a Via, a CSeq, a list: each a value that is written and read again, or a RemoteError."""
    text = text_of(data)
    for parse in (parse_uri, parse_aor):
        uri = _or_refused(parse, text)
        if uri is not None:
            same(parse_uri(str(uri)), uri, "a URI written and read again")
            same(str(parse_uri(str(uri))), str(uri), "a URI written twice")
            assert str(uri.bare()).isprintable(), uri
    address = _or_refused(parse_name_addr, text)
    if address is not None:
        _carried(attrs.evolve(REQUEST, to=address, contacts=(address,), routes=(address,)))
    via = _or_refused(parse_via, text)
    if via is not None:
        _carried(attrs.evolve(REQUEST, vias=(via, via)))
    cseq = _or_refused(parse_cseq, text)
    if cseq is not None:
        _carried(attrs.evolve(REQUEST, method=cseq.method, cseq=cseq))
    values = _or_refused(split_list, text)
    if values is not None and "," in text:
        same(split_list(",".join(values)), values, "a list joined and split again")


def _or_refused(parse: Callable[[str], T], text: str) -> T | None:
    try:
        return parse(text)
    except RemoteError as error:
        assert error.reply in {400, 513}, error.reply
        named(str(error))
        return None


def _carried(message: Request) -> None:
    roomy = Limits(message=2**24, line=2**22, vias=2**20, addresses=2**20)  # what was read may be longer than allowed
    same(parse_message(encode_message(message), roomy), message, "a message with what was read")


FRAMED = Limits(message=2000)


def sip_framing(data: bytes) -> None:
    """The pieces' sizes make no difference: whole, byte by byte and cut in places, the same messages and end."""
    whole = cut([data])
    same(cut([data[at : at + 1] for at in range(len(data))]), whole, "byte by byte")
    places = sorted(zlib.crc32(data, start) % (len(data) + 1) for start in range(3))
    pieces = [data[begin:end] for begin, end in itertools.pairwise([0, *places, len(data)])]
    same(cut(pieces), whole, f"cut at {places}")
    for message in whole[0]:
        assert message == PING or len(message) <= FRAMED.message
    if whole[1] is not None:
        named(whole[1])


def cut(pieces: list[bytes]) -> tuple[list[bytes], str | None, object]:
    """All messages of these pieces, and how it ended."""
    framer = Framer(FRAMED)
    found = [message for piece in pieces for message in framer.feed(piece)]
    return found, str(framer.broken) if framer.broken else None, getattr(framer.broken, "partial", None)


PASSWORD = 'Pass,"word\\1'
USER = Credentials("alice", PASSWORD)


def sip_challenge(data: bytes) -> None:
    """A challenge or a RemoteError; the answer to it is one header field that repeats realm and nonce."""
    text = text_of(data)
    challenge = _or_refused(parse_challenge, text)
    if challenge is None or not is_safe(text):
        return
    try:
        value = authorize(challenge, USER, "INVITE", "sip:bob@example.com", nc=1, cnonce="0a4f113b", body=b"x")
    except LocalError as error:
        assert not challenge.supported, error
        named(str(error))
    else:
        assert challenge.supported
        again = parse_challenge(value)
        same((again.realm, again.nonce, again.opaque), (challenge.realm, challenge.nonce, challenge.opaque), value)
        assert PASSWORD not in value
        _carried(attrs.evolve(REQUEST, lines=(("Authorization", value),)))
    _challenged(text)


def _challenged(text: str) -> None:
    client = DigestClient(USER)
    response = Response(
        status=401,
        reason="Unauthorized",
        vias=REQUEST.vias,
        from_=REQUEST.from_,
        to=REQUEST.to,
        call_id="c",
        cseq=REQUEST.cseq,
        lines=(("WWW-Authenticate", text),),
    )
    try:
        client.challenged(response)
    except LocalError as error:
        named(str(error))
    same(
        client.authorization("OPTIONS", "sip:h", b"", "cn") == (),
        client.authorization("A", "sip:h", b"", "c") == (),
        "",
    )


# -- media ----------------------------------------------------------------------------------------------------------


def _security(mode: SrtpMode) -> Security:
    """Keys of ours."""
    keys = tuple(SrtpKey(suite, bytes(suite.key_size)) for suite in SrtpSuite)
    return Security(mode=mode, keys=keys, offered=tuple(SrtpSuite)[:3])


LOCALS = (
    LocalMedia(host="192.0.2.10", port=12_000, ssrc=1, session_id=2),
    LocalMedia(host="2001:db8::10", port=12_000, ssrc=1, session_id=2, own_order=True, dtmf=False),
    LocalMedia(host="192.0.2.10", port=12_000, ssrc=1, session_id=2, direction=Direction.RECVONLY),
    LocalMedia(host="192.0.2.10", port=12_000, ssrc=1, session_id=2, security=_security(SrtpMode.PREFER)),
    LocalMedia(host="192.0.2.10", port=12_000, ssrc=1, session_id=2, security=_security(SrtpMode.REQUIRE)),
)
OWN_END = OwnEnd(
    ice=IceDescription(
        "OURS", "o" * 24, (Candidate("h", 2130706431, ("192.0.2.10", 12_000), CandidateKind.HOST),), ended=True
    ),
    fingerprint=Fingerprint("sha-256", bytes(32)),
)
SENDING = {Direction.SENDRECV, Direction.SENDONLY}
RECEIVING = {Direction.SENDRECV, Direction.RECVONLY}


def sdp(data: bytes) -> None:
    """A description that can be written, reads the same, and is negotiated or refused; or an SdpError."""
    try:
        description = parse_sdp(data)
    except SdpError as error:
        named(str(error))
        assert error.reply in {400, 413}, error.reply
        return
    encoded = encode_sdp(description)
    same(parse_sdp(encoded), description, "a description written and read again")
    same(encode_sdp(parse_sdp(encoded)), encoded, "a description written twice")
    for local in LOCALS:
        sdp_offer(description, local)
        sdp_answer(description, local)
    sdp_peer_offer(description)


def sdp_peer_offer(remote: SessionDescription) -> None:
    """A browser's offer is answered with our end of the way and one live stream at most, or refused in one line."""
    try:
        offered = read_peer_offer(remote, ipv6=False)
        description, agreed = answer_peer(offered, attrs.evolve(LOCALS[0], codecs=tuple(Codec)), OWN_END)
    except (NegotiationError, SdpError) as error:
        named(str(error))
        return
    assert offered.fingerprints
    assert offered.setup in {Setup.ACTIVE, Setup.PASSIVE}
    assert not any(":" in candidate.address[0] for candidate in offered.ice.candidates)
    same([media.kind for media in description.media], [media.kind for media in remote.media], "the streams")
    (live,) = (media for media in description.media if media.port)
    same(live.fingerprints, (OWN_END.fingerprint,), "the certificate")
    same(read_ice(description, live), OWN_END.ice, "our end")
    same((agreed.remote, agreed.rtcp, agreed.rtcp_mux), (NOWHERE, NOWHERE, True), "where the peer is")
    agreed_media(attrs.evolve(agreed, remote=("192.0.2.1", 9), rtcp=("192.0.2.1", 9)))
    same(parse_sdp(encode_sdp(description)), description, "our answer")


def sdp_offer(remote: SessionDescription, local: LocalMedia) -> None:
    """The answer has one m= line per offered one, with nothing that was not offered, and never promises what the
    offer or we ruled out; or there is a NegotiationError.
    """
    try:
        description, agreed = answer(remote, local)
    except NegotiationError as error:
        named(str(error))
        return
    same(len(description.media), len(remote.media), "m= lines")
    for ours, theirs in zip(description.media, remote.media, strict=True):
        same((ours.kind, ours.protocol), (theirs.kind, theirs.protocol), "the stream")
        assert set(ours.formats) <= set(theirs.formats)
        assert ours.port == 0 or theirs.port != 0
    assert sum(media.port != 0 for media in description.media) <= 1
    assert agreed.codec in local.codecs
    assert local.direction in SENDING or agreed.direction not in SENDING
    assert local.direction in RECEIVING or agreed.direction not in RECEIVING
    agreed_media(agreed)
    protected(agreed, local, next(media for media in description.media if media.cryptos or media.rtpmaps))
    same(parse_sdp(encode_sdp(description)), description, "our answer")


def sdp_answer(remote: SessionDescription, local: LocalMedia) -> None:
    """What came as an answer to our offer is agreed upon, within what we offered, or refused."""
    try:
        agreed = accept_answer(offer(local), remote)
    except NegotiationError as error:
        named(str(error))
        return
    assert agreed.codec in local.codecs
    agreed_media(agreed)
    protected(agreed, local, offer(local).media[0])


def protected(agreed: MediaFormat, local: LocalMedia, ours: MediaDescription) -> None:
    """SRTP with keys of one suite that both sides have said, or none; never less than was asked for."""
    if agreed.srtp is None:
        assert local.security.mode is not SrtpMode.REQUIRE
        assert "SAVP" not in ours.protocol.upper()
        return
    assert local.security.mode is not SrtpMode.OFF
    assert agreed.srtp.send.suite is agreed.srtp.receive.suite
    assert agreed.srtp.send in [line.usable() for line in ours.cryptos]
    same(len(agreed.srtp.receive.master), agreed.srtp.receive.suite.key_size, "the peer's key")


def agreed_media(agreed: MediaFormat) -> None:
    """Addresses and numbers that the media plane can use as they are."""
    host, port = agreed.remote
    assert not ipaddress.ip_address(host).is_multicast
    assert 0 <= port <= 65_535
    assert agreed.direction not in SENDING or (port and not ipaddress.ip_address(host).is_unspecified)
    if agreed.rtcp is not None:
        ipaddress.ip_address(agreed.rtcp[0])
        assert 0 < agreed.rtcp[1] <= 65_535
    assert agreed.ptime in range(10, 61, 10)
    types = (agreed.receive_pt, agreed.send_pt, agreed.receive_dtmf_pt or 0, agreed.send_dtmf_pt or 0)
    assert all(0 <= number <= 127 for number in types), types


def rtp(data: bytes) -> None:
    """A packet or None, from whatever buffer; its payload lies inside; it can be built and reads the same."""
    packet, span = parse_rtp(data), payload_span(data)
    same(packet is None, span is None, "the two readings")
    same(parse_rtp(memoryview(bytearray(data))), packet, "from a memoryview")
    is_rtcp(data)
    if packet is not None and span is not None:
        assert 12 <= span[0] <= span[1] <= len(data), span
        same(packet.payload, data[span[0] : span[1]], "the payload")
        same(parse_rtp(build_rtp(packet)), packet, "a packet built again")


def rtcp(data: bytes) -> None:
    """Packets or nothing; built again they read the same; of a compound that is cut the whole ones are left."""
    packets = parse_rtcp(data)
    built = build_rtcp(packets)
    again = parse_rtcp(built)
    same(len(built) % 4, 0, "whole words")
    same(again, tuple(map(_cut_text, packets)), "packets built again")
    same(build_rtcp(again), built, "packets built twice")
    for start in range(3):
        rest = parse_rtcp(data[: zlib.crc32(data, start) % (len(data) + 1)])
        same(rest, packets[: len(rest)], "the beginning of a compound")
    for packet in packets:
        if isinstance(packet, (SenderReport, ReceiverReport)):
            delays = [round_trip(block, 0xE000_0000_0000_0000) for block in packet.reports]
            assert all(delay is None or 0 <= delay < 60 for delay in delays), delays


def _cut_text(packet: RtcpPacket) -> RtcpPacket:
    """What is left of a packet whose text has more than 255 bytes, as replaced characters may make it."""
    if isinstance(packet, SourceDescription):
        return attrs.evolve(packet, cname=_at_most(packet.cname))
    return attrs.evolve(packet, reason=_at_most(packet.reason)) if isinstance(packet, Bye) else packet


def _at_most(text: str) -> str:
    return text.encode()[:255].decode(errors="ignore")


PRESS_SIZE = 9
"""One telephone-event packet in a `dtmf` input: SSRC (1 byte), timestamp (4), payload (4, the last may be cut)."""


def dtmf(data: bytes) -> None:
    """Packets of telephone-event in any order: each gives its own digit or none, and doubled ones change nothing."""
    packets = list(_presses(data))
    once, twice = DigitReceiver(), DigitReceiver()
    for ssrc, timestamp, payload in packets:
        digit = once.receive(ssrc, timestamp, payload)
        same(twice.receive(ssrc, timestamp, payload), digit, "the first of two")
        same(twice.receive(ssrc, timestamp, payload), None, "the second of two")
        if digit is not None:
            same(DIGITS.index(digit), payload[0], "the digit")
    for content_type in (DTMF, DTMF_RELAY):
        info_digit(content_type, data)


def _presses(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    for at in range(0, len(data), PRESS_SIZE):
        packet = data[at : at + PRESS_SIZE]
        yield packet[0], int.from_bytes(packet[1:5], "big"), packet[5:]


def audio(data: bytes) -> None:
    """What a file is, told by its first bytes, its type and its name, or a MediaError; and its samples likewise."""
    for content_type, name in (("", ""), ("audio/wav", "a"), ("text/html; charset=x", "b.MP3"), ("", "c.opus")):
        try:
            assert container_of(data[:512], content_type, name) in {"wav", "mp3", "flac", "ogg"}
        except MediaError as error:
            named(str(error))
    try:
        samples = decode(data, 8000, max_seconds=1.0)
    except MediaError as error:
        named(str(error))
        return
    assert samples.ndim == 1
    assert str(samples.dtype) == "int16"
    assert 0 < len(samples) <= 8000


# -- the agent's side -----------------------------------------------------------------------------------------------

REFUSALS = {400, 401, 403, 404, 405, 408, 409, 413, 426, 431, 501, 505}


def control_http(data: bytes) -> None:
    """One connection's bytes, upgrade and frames included: whole responses that name the peer's fault, and an end."""
    statuses = responses(talk(data).sent)
    assert set(statuses) <= {100, 101, 200} | REFUSALS, statuses


JSON_SECRETS = frozenset({"password", "secretKey", "secretId", "appId", "apiKey"})
CONFIG_SECRETS = frozenset({"password", "secret", "tokens", "access_key", "secret_key", "headers"})


def control_json(data: bytes) -> None:
    """A command that can be written and means the same, or a WireError; and no secret makes any difference to them."""
    text = data.decode(errors="replace")
    outcome = command_shown(text)
    try:
        value = json.loads(text)
        plain, veiled = json.dumps(value), json.dumps(disguised(value, JSON_SECRETS))
    except (ValueError, RecursionError):
        assert isinstance(outcome, WireError), outcome
        return
    same(shown(command_shown(veiled)), shown(command_shown(plain)), "with other secrets")


def command_shown(text: str) -> str | WireError:
    """All that is ever shown of an agent's text: the command's JSON; or the error."""
    try:
        command = decode_command(text)
    except WireError as error:
        named(str(error))
        return error
    written = encode_command(command)
    again = decode_command(written)
    same(again.name, command.name, "the command")
    same(encode_command(again), written, "a command written twice")
    return written


def shown(outcome: str | Exception) -> str:
    """The text, or the error with its whole chain, as a log would show it."""
    return outcome if isinstance(outcome, str) else "".join(traceback.format_exception(outcome, limit=0))


def disguised(value: Any, secrets: Container[str]) -> Any:
    """The same with every secret replaced by another of its length and kind."""
    if isinstance(value, Mapping):
        return {key: _other(item, key) if key in secrets else disguised(item, secrets) for key, item in value.items()}
    return [disguised(item, secrets) for item in value] if isinstance(value, list) else value


def _other(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _other(item) for name, item in value.items()}
    if isinstance(value, list) and key == "headers":  # pairs: their names are no secrets
        return [[*item[:1], *map(_other, item[1:])] if isinstance(item, list) else _other(item) for item in value]
    if isinstance(value, list):
        return [_other(item) for item in value]
    if isinstance(value, str):
        return "".join("x" if letter.isascii() and letter.isalnum() else letter for letter in value)
    return value + 1 if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def config(data: bytes) -> None:
    """A Config, or ConfigErrors that name their keys; and no secret makes any difference to what is shown of it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    outcome = config_shown(partial(parse_config, text, {"RUST_LOG": text[:40]}))
    try:
        keys = tomllib.loads(text)
    except (ValueError, RecursionError):
        assert isinstance(outcome, ConfigErrors), outcome
        return
    plain = config_shown(partial(merge_config, None, keys))
    veiled = config_shown(partial(merge_config, None, disguised(keys, CONFIG_SECRETS)))
    same(shown(veiled), shown(plain), "with other secrets")


def config_shown(read: Callable[[], Config]) -> str | ConfigErrors:
    """All that is ever shown of a configuration: its `repr`, or its errors."""
    try:
        found = read()
    except ConfigErrors as error:
        assert error.errors
        for each in error.errors:
            for line in str(each).split("\n"):
                named(line)
            assert each.path or each.problem.startswith("not TOML"), each
        return error
    Access.from_config(found)
    return repr(found)


# -- ICE ------------------------------------------------------------------------------------------------------------


def stun(data: bytes) -> None:
    """Any datagram is a STUN message or our error, and moves an agent that is asked nothing to say nothing."""
    try:
        read_stun(data)
    except RemoteError as error:
        assert str(error).isprintable()
    agent = IceAgent(controlling=True, entropy=random.Random(0).randbytes)
    base, source = ("192.0.2.1", 4000), ("192.0.2.2", 5000)
    agent.handle(Gather((base,)), 0.0)
    agent.handle(Remote(IceDescription("abcd", "b" * 22)), 0.0)
    assert agent.handle(Datagram(data, base, source), 0.0) == []
    assert agent.counters.total() == 1
    assert agent.checks.pairs == []


def turn(data: bytes) -> None:
    """Whatever a TURN server sends, by UDP or in a stream, a relay that has asked nothing of it says nothing."""
    server = TurnServer(address=("203.0.113.9", 3478), username="alice", password="wonderland")
    counters: Counter[str] = Counter()
    relay = Relay(server, ("192.0.2.1", 4000), random.Random(0).randbytes, counters)
    relay.begin(0.0)
    assert relay.take(data, 0.0) == []
    assert counters.total() == 1
    whole, cut = (Relay(server, None, random.Random(0).randbytes, counters) for _ in range(2))
    for each in (whole, cut):
        each.begin(0.0)
        each.connected(0.0)
    assert whole.feed(data, 0.0) == []
    for n in range(len(data)):
        assert cut.feed(data[n : n + 1], 0.0) == []
    assert (whole.state, whole.problem) == (cut.state, cut.problem)
    assert whole.problem.isprintable()


def ice_candidate(data: bytes) -> None:
    """Any text is a candidate, which is written and read the same, or none."""
    found = parse_candidate(data.decode("utf-8", "replace"))
    if found is not None:
        assert str(found).isprintable()
        assert parse_candidate(str(found)) == found
