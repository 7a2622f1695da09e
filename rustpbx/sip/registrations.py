"""All accounts of one endpoint, and what its calls have of them: passwords, routes, and a Contact that is reached."""

from __future__ import annotations

import attrs

from rustpbx.errors import LocalError
from rustpbx.sip.bindings import is_same_contact
from rustpbx.sip.events import Account, FlowLost, Register, SendInvite
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.registration import Registration
from rustpbx.sip.uri import NO_PARAMS, Uri
from rustpbx.sip.ways import Ways


class Registrations:
    """All accounts of one endpoint."""

    def __init__(self, layer: TransactionLayer) -> None:
        self._layer = layer
        self._ways = Ways(layer.tell)
        self._all: dict[str, Registration] = {}

    def register(self, wish: Register, now: float) -> None:
        """Begin with an account. Raises LocalError if there is one of that name, or it cannot be written as SIP."""
        name = wish.account.name
        if name in self._all and not self._all[name].done:
            raise LocalError(f"there is an account {name!r} already")
        registration = Registration(wish, self._layer, self._ways)
        registration.start(now)
        self._all[name] = registration

    def unregister(self, name: str, now: float) -> None:
        """End an account; one that is not known, or has ended, is nobody's."""
        registration = self._all.get(name)
        if registration is not None:
            registration.stop(now)

    def flow_lost(self, what: FlowLost, now: float) -> None:
        """Tell whom it concerns."""
        self._ways.lost(what.hop)
        for registration in list(self._all.values()):
            registration.flow_lost(what, now)

    def dressed(self, wish: SendInvite) -> SendInvite:
        """A call as the account places it whose address is the caller's: with its credentials and its routes."""
        registration = self._of(wish.caller.uri)
        if registration is None:
            return wish
        account, routes = registration.account, wish.routes or registration.route
        return attrs.evolve(
            wish,
            caller=wish.caller if wish.caller.display_name else attrs.evolve(account.aor, params=NO_PARAMS),
            credentials=wish.credentials or account.credentials,
            routes=routes,
            destination=wish.destination or (None if routes else _server_of(wish.callee, account)),
            contact=wish.contact or registration.seen,
        )

    def first_stop(self, caller: Uri, callee: Uri) -> Uri:
        """What a call goes to first: the proxy or the server of the account that is its caller, or else its callee."""
        registration = self._of(caller)
        if registration is None:
            return callee
        route = registration.route
        return route[0].uri if route else _server_of(callee, registration.account) or callee

    def contact_of(self, called: Uri) -> Uri | None:
        """Our Contact, if this address of ours is one at which only a registrar sees us: who calls it shall keep it."""
        for registration in self._all.values():
            seen = registration.seen
            if seen is not None and not registration.done and is_same_contact(seen, called):
                return seen
        return None

    def _of(self, caller: Uri) -> Registration | None:
        """The account that has this address."""
        for registration in self._all.values():
            if not registration.done and _is_address_of(caller, registration.account.aor.uri):
                return registration
        return None


def _server_of(callee: Uri, account: Account) -> Uri | None:
    """Who serves the callee, if its domain is the account's: the server, at its host, port and transport."""
    if not _is_domain_of(callee, account.aor.uri) or callee.port is not None or callee.transport is not None:
        return None
    server = account.registrar
    return None if (server.host, server.port, server.transport) == (callee.host, None, None) else server


def _is_domain_of(uri: Uri, aor: Uri) -> bool:
    return uri.host.lower() == aor.host.lower()


def _is_address_of(caller: Uri, aor: Uri) -> bool:
    return caller.user == aor.user and _is_domain_of(caller, aor)
