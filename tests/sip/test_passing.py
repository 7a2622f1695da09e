"""Header fields that are passed through, and who the caller is said to be."""

from __future__ import annotations

import pytest

from rustpbx.errors import RemoteError
from rustpbx.sip.identity import Identity, identity_of
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.parser import parse_name_addr
from rustpbx.sip.passing import MOST_FIELDS, MOST_TEXT, PassList, is_ours
from tests.kit.peers_sip import request


def message(*lines: tuple[str, str]) -> Request:
    """A request with these header fields."""
    return request("INVITE", lines=lines)


@pytest.mark.parametrize(
    "name",
    [
        *("Via", "v", "V", "VIA", "f", "t", "i", "m", "l", "c", "e", "k", "r", "u", "x", "o"),
        *("route", "Record-Route", "max-forwards", "CONTENT-length", "Content-Anything", "Content-Disposition"),
        *("Authorization", "proxy-authorization", "rack", "RSeq", "Require", "Replaces", "Subscription-State"),
    ],
)
def test_what_nobody_but_the_stack_sets(name: str) -> None:
    """In any spelling: compact, upper case, and whatever says what a body is."""
    assert is_ours(name)
    assert not PassList(("*",)).passes(name)


@pytest.mark.parametrize("name", ["X-Account", "Subject", "s", "P-Asserted-Identity", "Reason", "User-to-User", "Date"])
def test_what_an_agent_may_set(name: str) -> None:
    """What does not make the dialog."""
    assert not is_ours(name)


def test_the_list() -> None:
    """Patterns, whatever the case; in order, each field for itself."""
    lines = (("X-One", "1"), ("x-two", "2"), ("Subject", "s"), ("Y-X-Z", "n"), ("X-One", "again"), ("X-", "empty"))
    assert PassList().of(message(*lines)) == (("X-One", "1"), ("x-two", "2"), ("X-One", "again"), ("X-", "empty"))
    assert PassList(("subJECT", "y-*")).of(message(*lines)) == (("Subject", "s"), ("Y-X-Z", "n"))
    assert PassList(()).of(message(*lines)) == ()


def test_what_is_passed_on_is_bounded() -> None:
    """Neither many fields nor long ones make a long event."""
    assert len(PassList().of(message(*((f"X-{at}", "1") for at in range(500))))) == MOST_FIELDS
    long = PassList().of(message(*(("X-A", "y" * 1000) for _ in range(20))))
    assert sum(len(name) + len(value) for name, value in long) <= MOST_TEXT
    assert len(long) == 7


def addr(text: str) -> NameAddr:
    """An address."""
    return parse_name_addr(text)


@pytest.mark.rfc("3325", "9.1")
@pytest.mark.parametrize(
    ("lines", "identity"),
    [
        ((), Identity()),
        (
            (("P-Asserted-Identity", '"Zoë, Ltd." <sip:zoe@carrier.example>'), ("Privacy", "id; critical")),
            Identity(asserted=(addr('"Zoë, Ltd." <sip:zoe@carrier.example>'),), privacy=("id", "critical")),
        ),
        (
            (("P-Asserted-Identity", "<sip:a@b>, <tel:+4930123>"), ("P-Asserted-Identity", "<sip:third@b>")),
            Identity(asserted=(addr("<sip:a@b>"), addr("<tel:+4930123>"))),
        ),
        (
            (("Remote-Party-ID", '"Al" <sip:al@h>;party=calling;privacy=full;screen=yes'),),
            Identity(asserted=(addr('"Al" <sip:al@h>;party=calling;privacy=full;screen=yes'),), privacy=("full",)),
        ),
        ((("Remote-Party-ID", "<sip:al@h>;party=called"),), Identity()),
        ((("Remote-Party-ID", "<sip:al@h>;privacy=off"),), Identity(asserted=(addr("<sip:al@h>;privacy=off"),))),
        (
            (("Remote-Party-ID", "<sip:other@h>"), ("P-Asserted-Identity", "<sip:a@b>")),
            Identity(asserted=(addr("<sip:a@b>"),)),
        ),
        ((("P-Asserted-Identity", "<sip:never closed"), ("Privacy", "none")), Identity(privacy=("none",))),
    ],
)
def test_identities(lines: tuple[tuple[str, str], ...], identity: Identity) -> None:
    """Two at most, the newer header field before the older; what cannot be read was not said."""
    assert identity_of(message(*lines)) == identity


def test_an_identity_that_cannot_be_read_is_an_error_elsewhere() -> None:
    """The same text as From would be refused: here it only is not there."""
    with pytest.raises(RemoteError):
        parse_name_addr("<sip:never closed")
