"""Which calls are SRTP: the server's rule, an account's own, and what an agent asks for one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from rustpbx.errors import RemoteError
from rustpbx.media.events import SrtpSuite
from rustpbx.media.sdp.crypto import PLAIN, SrtpMode, SrtpPolicy
from rustpbx.sip.uri import Uri, parse_uri


@attrs.frozen
class _Account:
    user: str
    host: str
    mode: SrtpMode


@attrs.frozen(kw_only=True)
class SrtpRules:
    """`policy` is the server's; the accounts that have a rule of their own are asked first."""

    policy: SrtpPolicy = PLAIN
    accounts: tuple[_Account, ...] = ()

    @classmethod
    def of(
        cls,
        mode: str,
        suites: Iterable[str],
        accounts: Iterable[tuple[str, str, str]],
        entropy: Callable[[int], bytes],
    ) -> SrtpRules:
        """The rules as they are configured: `accounts` are (server, user, mode), keys are made from `entropy`."""
        policy = SrtpPolicy(mode=SrtpMode(mode), suites=tuple(map(SrtpSuite, suites)), entropy=entropy)
        return cls(policy=policy, accounts=tuple(_account(*account) for account in accounts))

    def incoming(self, callee: Uri) -> SrtpPolicy:
        """For a call to `callee`: that account's rule, else the server's."""
        return self._by_account(callee, others=False)

    def outgoing(self, caller: Uri, callee: Uri, asked: SrtpMode | None) -> SrtpPolicy:
        """For a call that an agent places: what it asked for, else the caller's account, else that of callee's host."""
        if asked is not None:
            return attrs.evolve(self.policy, mode=asked)
        if any(_same(account, caller) for account in self.accounts):
            return self._by_account(caller, others=False)
        return self._by_account(callee, others=True)

    def _by_account(self, address: Uri, *, others: bool) -> SrtpPolicy:
        """The rule of an account; with `others` any account at the address's host will do."""
        for account in self.accounts:
            if _same(account, address) or (others and account.host == address.host.lower()):
                return attrs.evolve(self.policy, mode=account.mode)
        return self.policy


NO_SRTP = SrtpRules()


def _same(account: _Account, address: Uri) -> bool:
    return (account.user, account.host) == (address.user, address.host.lower())


def _account(server: str, user: str, mode: str) -> _Account:
    text = server if server.lower().startswith(("sip:", "sips:")) else f"sip:{server}"
    try:
        host = parse_uri(text).host
    except RemoteError:  # the registration says so; nobody calls such a host
        host = server
    return _Account(user, host.lower(), SrtpMode(mode))
