"""Who a caller is said to be, beside From: P-Asserted-Identity and Privacy (RFC 3325, 3323), Remote-Party-ID.

What a peer says is what a peer says: whether it may be believed depends on who the peer is.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.headers import list_tokens, parse_name_addr, split_list
from rustpbx.sip.message import Message, NameAddr

MOST_IDENTITIES = 2
"""RFC 3325 section 9.1: one SIP URI and one telephone number."""


@attrs.frozen(kw_only=True)
class Identity:
    """`asserted` are the P-Asserted-Identity values, or the calling party's Remote-Party-ID where there is none.

    `privacy` are the words of the Privacy header field in lower case, or of the Remote-Party-ID's parameter.
    """

    asserted: tuple[NameAddr, ...] = ()
    privacy: tuple[str, ...] = ()


NOBODY = Identity()


def identity_of(message: Message) -> Identity:
    """Read the identity of a request's sender. What cannot be read was not said."""
    asserted = _addresses(message, "P-Asserted-Identity")
    privacy = _words(message.all("Privacy"))
    if asserted:
        return Identity(asserted=asserted[:MOST_IDENTITIES], privacy=privacy)
    for party in _addresses(message, "Remote-Party-ID"):
        if (party.params.get("party") or "calling").lower() == "calling":
            hidden = (party.params.get("privacy") or "off").lower()
            return Identity(asserted=(party,), privacy=privacy or (() if hidden == "off" else (hidden,)))
    return Identity(privacy=privacy)


def _addresses(message: Message, name: str) -> tuple[NameAddr, ...]:
    found: list[NameAddr] = []
    for field in message.all(name):
        try:
            found += [parse_name_addr(value) for value in split_list(field, 10)]
        except RemoteError:
            continue
    return tuple(found)


def _words(values: Iterable[str]) -> tuple[str, ...]:
    """The tokens of Privacy, which semicolons separate (RFC 3323 section 4.2)."""
    return tuple(word.lower() for word in list_tokens(word for value in values for word in value.split(";")))
