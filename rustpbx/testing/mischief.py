"""Phones that misbehave, on request: what real ones do to a server sooner or later.

    house.mischief.never_acks()
    await house.mischief.dies()

Each method begins one kind of trouble between one phone and the server; most are rules of the wire (`Wire.lose`,
`Wire.hold`, `Wire.cut`), so that the phone itself stays honest and notices what it would notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs
import trio.testing

from rustpbx.core import Address
from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.events import Pcm
from rustpbx.media.rtp import RtpPacket, build_rtp, parse_rtp
from rustpbx.testing import matching
from rustpbx.testing.misfortune import Rule
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.wire import Carried, Matcher, Wire

FRAME = 160

INVITE = (
    ("Via", "SIP/2.0/UDP {host}:5090;branch=z9hG4bK{tag};rport"),
    ("Max-Forwards", "70"),
    ("From", "<sip:odd@{host}>;tag={tag}"),
    ("To", "<sip:800@{server}>"),
    ("Call-ID", "{tag}@{host}"),
    ("CSeq", "1 INVITE"),
    ("Contact", "<sip:odd@{host}:5090>"),
)
"""The header of the INVITE that `Mischief.invites` sends, in order."""

SDP = "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


@attrs.frozen(kw_only=True)
class Mischief:
    """Trouble between the phone at `phone` and the server at `server`, both hosts of `wire`."""

    wire: Wire
    phone: str
    server: Address

    # -- signalling -------------------------------------------------------------------------------------------------

    def never_acks(self) -> Rule:
        """No ACK of the phone reaches the server."""
        return self.wire.lose(self._from_phone(matching.request("ACK")), count=None)

    def never_answers(self, method: str) -> Rule:
        """No response of the phone to such a request (BYE, say) reaches the server."""
        return self.wire.lose(self._from_phone(matching.response(method=method)), count=None)

    def hears_no(self, status: int, method: str = "INVITE", *, times: int | None = 1) -> Rule:
        """The server's responses of this status get lost on their way to the phone; None: all of them."""
        return self.wire.lose(matching.response(status, method, to=self.phone), count=times)

    def hears_late(self, status: int, method: str = "INVITE", *, seconds: float = 0.3) -> Rule:
        """The server's next response of this status comes later; what the phone does meanwhile overtakes it."""
        return self.wire.hold(matching.response(status, method, to=self.phone), seconds)

    def repeats_everything(self, seconds: float = 0.0) -> Rule:
        """Each datagram between the two arrives twice, the second time so much later."""
        return self.wire.repeat(self._between, seconds, count=None)

    def dies(self) -> None:
        """The phone's battery is pulled: nothing more comes from it, and nothing reaches it."""
        self.wire.cut(self.phone, self.server[0])

    async def sends(self, data: bytes, *, port: int = 5090) -> list[bytes]:
        """Send any bytes to the server's SIP port from the phone's host; what comes back while no time passes."""
        return await self._exchange(data, port)

    async def invites(
        self, sdp: str | None = SDP, *, tag: str = "odd", header: Mapping[str, str | None] = MappingProxyType({})
    ) -> list[bytes]:
        """Send an INVITE by hand and return the responses that come at once.

        `header` replaces fields of `INVITE` by name, or leaves them out (None); what
        is not there is added. `{host}`, `{server}` and `{tag}` are filled in, also in `sdp` (None: no body).
        """
        names = {"host": self.phone, "server": self.server[0], "tag": tag}
        body = "" if sdp is None else sdp.format(**names)
        fields = dict(INVITE)
        if body:
            fields["Content-Type"] = "application/sdp"
        fields["Content-Length"] = str(len(body))
        lines = [
            f"{name}: {value.format(**names)}" for name, value in (fields | dict(header)).items() if value is not None
        ]
        head = "\r\n".join([f"INVITE sip:800@{self.server[0]} SIP/2.0", *lines])
        return await self._exchange(f"{head}\r\n\r\n{body}".encode(), 5090)

    async def _exchange(self, data: bytes, port: int) -> list[bytes]:
        answers: list[bytes] = []

        def take(answer: bytes, source: Address) -> bool:  # noqa: ARG001 - what the wire hands over
            answers.append(answer)
            return True

        bound = self.wire.bind(self.phone, port, take)
        try:
            self.wire.send(bound, self.server, data)
            await trio.testing.wait_all_tasks_blocked()
        finally:
            self.wire.unbind(bound)
        return answers

    # -- media ------------------------------------------------------------------------------------------------------

    def sends_rtp(
        self,
        call: PhoneCall,
        pcm: Pcm,
        *,
        host: str | None = None,
        port: int | None = None,
        to: Address | None = None,
        payload_type: int = 0,
        size: int | None = None,
    ) -> Address:
        """Send sound to a call's RTP port, all at once and with an SSRC that is not the call's; returns from where.

        It comes from an unused `port` (the call's own: `call.line.port`) of the phone's or another `host`, and goes to
        where the call sends or, before media was agreed, `to` an address. Packets may be cut to `size` bytes.
        """
        agreed = call.line.format
        destination = to or (agreed.remote if agreed is not None else None)
        if destination is None:
            raise ValueError(f"{call} has no media yet: say where `to`")
        source = (host or self.phone, port or self._unused_port(host or self.phone))
        for number, frame in enumerate(pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME)):
            packet = RtpPacket(
                payload_type=payload_type,
                sequence=number,
                timestamp=number * FRAME,
                ssrc=0x0DD,
                payload=PCMU.encode(frame).tobytes(),
                marker=number == 0,
            )
            self.wire.send(source, destination, build_rtp(packet)[:size])
        return source

    def _unused_port(self, host: str) -> int:
        address = self.wire.bind(host, 0, lambda data, source: True)  # noqa: ARG005 - nothing comes
        self.wire.unbind(address)
        return address[1]

    def loses_key_packets(
        self, call: PhoneCall, *, first: bool = False, ends: bool = False, count: int | None = None
    ) -> Rule:
        """Of the key presses (RFC 4733) of a call, lose the packets that begin one, or those that end one."""

        def chosen(carried: Carried) -> bool:
            packet = parse_rtp(memoryview(carried.data)) if carried.source[0] == self.phone else None
            media = call.line.format
            if packet is None or media is None or packet.payload_type != media.send_dtmf_pt:
                return False
            return (first and packet.marker) or (ends and bool(packet.payload[1] & 0x80))

        return self.wire.lose(chosen, count=count)

    def _between(self, carried: Carried) -> bool:
        return {carried.source[0], carried.destination[0]} == {self.phone, self.server[0]}

    def _from_phone(self, matches: Matcher) -> Matcher:
        return lambda carried: carried.source[0] == self.phone and matches(carried)
