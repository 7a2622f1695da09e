"""What must be true of everything that one SIP element sends, whatever it was sent: looked at on the wire."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rustpbx.sip.message import Message, Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.testing.house import PHONE, SERVER, House

Dialog = tuple[str, str | None, str | None]
"""Call-ID, its own tag, the other's; None before there is one."""


def check_responses(sent: Iterable[Message]) -> None:
    """One final status a transaction, however often it is sent, and nothing provisional after it (RFC 3261 17.2)."""
    finals: dict[tuple[str | None, str, int | None, str], int] = {}
    for message in sent:
        if isinstance(message, Response):
            key = message.via.branch, message.via.host, message.via.port, message.cseq.method
            known = finals.get(key)
            assert known in (None, message.status), f"{message.status} after {known}: {message}"
            if message.status >= 200:
                finals[key] = message.status


def check_requests(sent: Iterable[Message]) -> None:
    """New requests of a dialog count up (12.2.1.1), ACK and CANCEL have the number of an INVITE, none follows a BYE."""
    last: dict[Dialog, int] = {}
    invites: dict[tuple[str, str | None], set[int]] = defaultdict(set)
    known: set[str | None] = set()
    over: set[Dialog] = set()
    for message in sent:
        if not isinstance(message, Request) or message.via.branch in known:
            continue
        call, number = (message.call_id, message.from_.tag), message.cseq.number
        dialog = (*call, message.to.tag)
        if message.method in {"ACK", "CANCEL"}:
            assert number in invites[call], f"{message.method} {number} without its INVITE: {message}"
            continue
        known.add(message.via.branch)
        before = last.get(dialog, 0)
        assert number > before, f"{message.method} {number} after {before}: {message}"
        assert dialog not in over, f"{message.method} after our BYE: {message}"
        last[dialog] = number
        if message.method == "INVITE":
            invites[call].add(number)
        elif message.method == "BYE":
            over.add(dialog)


def check_wire(house: House, *, forged: bool) -> None:
    """What the server and the phone sent kept the rules; of a forged call the server's requests are looked at."""
    transcript = house.wire.transcript
    if len(transcript) == transcript.maxlen:
        return  # the beginning is gone
    for host in (SERVER,) if forged else (SERVER, PHONE):
        sent = [c.data for c in transcript if c.source == (host, 5060) and c.data[:1].isalpha()]
        messages = [parse_message(data) for data in sent if not (forged and data.startswith(b"SIP/"))]
        check_requests(messages)
        if not forged:
            check_responses(messages)
