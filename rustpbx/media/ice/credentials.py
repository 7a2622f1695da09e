"""Our name and password, by which the checks of the peer are known from those of strangers (RFC 8445 7.3)."""

from __future__ import annotations

import base64
from collections.abc import Callable

from aioice.stun import Message

from rustpbx.media.ice.stun import is_authentic


class Credentials:
    """`entropy(n)` gives n random bytes."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._passwords: dict[str, str] = {}
        self.renew()

    def renew(self) -> None:
        """Have others, after a restart.

        The checks of a peer that does not know of it yet are answered (section 9): the last password is kept.
        """
        self.ufrag, self.pwd = (base64.b64encode(self._entropy(n)).decode() for n in (6, 24))
        self._passwords = dict([*self._passwords.items(), (self.ufrag, self.pwd)][-2:])

    def password_of(self, check: Message) -> tuple[str, str, str] | None:
        """Our ufrag and password that a check was made with, and the peer's ufrag; None if it is not authentic."""
        ufrag, _, other = check.attributes.get("USERNAME", "").partition(":")
        pwd = self._passwords.get(ufrag)
        return None if pwd is None or not is_authentic(check, pwd) else (ufrag, pwd, other)
