"""Where a 3xx sends a call (RFC 3261 8.1.3.4, 16.5): the targets that it names, the best first, none of them twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from rustpbx.sip.message import NameAddr
from rustpbx.sip.uri import Uri

FOLLOWED = frozenset({300, 301, 302})
"""305 would let anybody choose our proxy, and 380 describes alternatives to people: both are told, not followed."""


class Targets:
    """The targets of one call. `most` is how many are followed; `refusal` is why the last one that was refused was."""

    def __init__(self, first: Uri, most: int) -> None:
        self.refusal = ""
        self._secure = first.scheme == "sips"
        self._left = most
        self._seen = {_meaning(first)}
        self._waiting: list[tuple[float, Uri]] = []

    def __bool__(self) -> bool:
        return self._left > 0 and bool(self._waiting)

    def add(self, contacts: Iterable[NameAddr], refusal: Callable[[Uri], str]) -> None:
        """Take the Contacts of a 3xx, as far as `refusal` says nothing against them.

        What has been a target before is a loop; what is no SIP address is nothing that we could call; from `sips:` no
        way leads back to `sip:`.
        """
        if self._left <= 0:
            return
        for contact in contacts:
            uri = attrs.evolve(contact.uri, headers="")
            if uri.scheme not in ({"sips"} if self._secure else {"sip", "sips"}) or _meaning(uri) in self._seen:
                continue
            self._seen.add(_meaning(uri))
            why = refusal(uri)
            if why:
                self.refusal = why
            elif len(self._waiting) < self._left:
                self._waiting.append((_quality(contact), uri))
        self._waiting.sort(key=lambda target: -target[0])  # stable: equal ones in the order of the response

    def take(self) -> Uri:
        """The next target."""
        self._left -= 1
        return self._waiting.pop(0)[1]

    def drop(self) -> None:
        """The callee wants no other phone to ring: 6xx (16.7)."""
        self._waiting.clear()


def _quality(contact: NameAddr) -> float:
    """The `q` of a Contact (20.10), 1 without one."""
    try:
        quality = float(contact.params.get("q") or 1.0)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _meaning(uri: Uri) -> tuple[object, ...]:
    """What of a URI makes it another one (19.1.4), near enough to find loops."""
    params = frozenset((name.lower(), (value or "").lower()) for name, value in uri.params.items)
    return uri.scheme, uri.user, uri.host.lower(), uri.port, params
