"""What the parts of one call share: its name, its dialog, its credentials, and how it sends and answers."""

from __future__ import annotations

import attrs

from rustpbx.errors import LocalError
from rustpbx.sip.auth import DigestClient
from rustpbx.sip.delivery import Acknowledgement, Delivery, Owner
from rustpbx.sip.dialog import Dialog
from rustpbx.sip.events import ENDINGS, Fact
from rustpbx.sip.headers import list_tokens
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.message import Lines, Message, NameAddr, Request, Response
from rustpbx.sip.session_interval import SessionInterval
from rustpbx.sip.transaction import AckWait, ServerTransaction

ALLOWED = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY")
ALLOW: tuple[str, str] = ("Allow", ", ".join(ALLOWED))
SDP: tuple[str, str] = ("Content-Type", "application/sdp")


@attrs.define(eq=False, kw_only=True)
class Leg:
    """One call's shared part. `dialog` is None on the calling side until a 2xx; `local_host` is our own address.

    `calling` says that we placed the call, and so chose its Call-ID. `ours` and `theirs` are the descriptions of the
    session in force, `allows` the methods that the peer says it takes.
    """

    name: str
    layer: TransactionLayer
    local_host: str
    contact: NameAddr
    digest: DigestClient | None = None
    dialog: Dialog | None = None
    ack_wait: AckWait | None = None
    calling: bool = False
    over: bool = False
    ours: bytes = b""
    theirs: bytes = b""
    allows: frozenset[str] = frozenset()
    session: SessionInterval = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.session = SessionInterval(self.layer.config.extensions)

    @property
    def abilities(self) -> Lines:
        """The header fields that say what we do: methods and extensions."""
        return (ALLOW, *self.layer.config.extensions.supported)

    def refreshed(self, request: Request) -> Lines:
        """The header fields of our 2xx to a re-INVITE or UPDATE, which refresh the session if there is one yet."""
        return (*self.abilities, *(self.session.answer(request) if self.established else ()))

    @property
    def established(self) -> bool:
        """Whether the call has been answered."""
        return self.dialog is not None and (self.calling or self.ack_wait is not None)

    def learn(self, message: Message) -> None:
        """Take note of the methods that the peer takes."""
        allowed = list_tokens(message.all("Allow"))
        if allowed:
            self.allows = frozenset(allowed)

    def emit(self, fact: Fact) -> None:
        """Tell the session; nothing more once it knows of the end, or has wished for it (`over`)."""
        if not self.over:
            self.over = isinstance(fact, ENDINGS)
            self.layer.emit(fact)

    def request(
        self,
        method: str,
        owner: Owner | None,
        now: float,
        *,
        contact: bool = False,
        lines: Lines = (),
        body: bytes = b"",
        instead_of: Request | None = None,
        within: Dialog | None = None,
    ) -> Delivery | None:
        """Send a request within the dialog, or `within` an early one, perhaps `instead_of` a challenged one.

        None if there is no dialog.
        """
        dialog = within or self.dialog
        if dialog is None:
            return None
        request = dialog.request(
            method,
            self.layer.new_via(self.local_host),
            contact=self.contact if contact else None,
            lines=(("User-Agent", self.layer.config.user_agent), *lines),
            body=body,
        )
        request = self.authorized(request, instead_of)
        return self.layer.start(request, dialog.destination, owner, now, call=self.name, prefer=dialog.peer)

    def challenged(self, response: Response) -> bool:
        """Take a 401 or 407; True if the request should be sent again with credentials (22.2, 22.3)."""
        if response.status not in {401, 407} or self.digest is None:
            return False
        try:
            self.digest.challenged(response)
        except LocalError:
            return False
        return True

    def authorized(self, request: Request, instead_of: Request | None = None) -> Request:
        """The request with credentials for every challenge so far; `instead_of` is the challenged one it repeats."""
        if self.digest is None:
            return request
        if instead_of is not None:
            self.digest.retried(instead_of.via.branch or "", request.via.branch or "")
        cnonce = self.layer.new_id()
        lines = self.digest.authorization(request.method, str(request.uri), request.body, cnonce)
        return attrs.evolve(request, lines=request.lines + lines)

    def again(self, request: Request, owner: Owner, now: float, *, within: Dialog | None = None) -> Delivery | None:
        """Send a challenged in-dialog request again, with credentials and the next CSeq (22.2)."""
        contact, lines = bool(request.contacts), plain_lines(request)
        return self.request(
            request.method,
            owner,
            now,
            contact=contact,
            lines=lines,
            body=request.body,
            instead_of=request,
            within=within,
        )

    def acknowledge(self, invite: Request, dialog: Dialog, now: float, body: bytes = b"") -> Acknowledgement:
        """Send the ACK of a 2xx to `invite`, with its credentials (13.2.2.4); kept by the caller for copies.

        `body` answers an offer in the 2xx.
        """
        lines = tuple(line for line in invite.lines if line[0] in {"Authorization", "Proxy-Authorization"})
        lines = (*lines, SDP) if body else lines
        ack = dialog.ack(invite.cseq.number, self.layer.new_via(self.local_host), lines=lines, body=body)
        return self.layer.acknowledge(ack, dialog.destination, now, prefer=dialog.peer)

    def accept(self, transaction: ServerTransaction, body: bytes, lines: Lines, now: float) -> None:
        """Answer an INVITE with 200, resent until its ACK (13.3.1.4)."""
        tag = self.dialog.local.tag if self.dialog is not None else None
        lines = (*self.abilities, *self.session.answer(transaction.request), *lines)
        response = self.layer.respond(transaction, 200, now, tag=tag, contact=self.contact, lines=lines, body=body)
        self.ack_wait = AckWait(response, transaction.destination, self.layer.config.timing, call=self.name)
        self.ack_wait.start(now)


def plain_lines(request: Request) -> Lines:
    """The header lines that a repetition of the request keeps: not ours, not the credentials."""
    dropped = {"User-Agent", "Authorization", "Proxy-Authorization"}
    return tuple(line for line in request.lines if line[0] not in dropped)
