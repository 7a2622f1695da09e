"""The accounts of a configuration as the SIP stack takes them."""

from __future__ import annotations

from rustpbx.errors import ConfigError, RemoteError
from rustpbx.settings import RegisterUser
from rustpbx.sip.events import Account, Credentials
from rustpbx.sip.message import NameAddr
from rustpbx.sip.uri import NO_PARAMS, Uri, parse_uri


def server_uri(text: str, transport: str | None = None) -> Uri:
    """A `host`, `host:port` or SIP URI, with a `transport` if one is named. Raises RemoteError if it is none."""
    uri = parse_uri(text if text.lower().startswith(("sip:", "sips:")) else f"sip:{text}")
    if transport is not None:
        uri = Uri(uri.scheme, uri.user, uri.password, uri.host, uri.port, uri.params.set("transport", transport))
    return uri


def accounts(users: tuple[RegisterUser, ...]) -> list[Account]:
    """Those that are not disabled; each is named `user@server`, as it is configured.

    Raises `ConfigError` for an address that is none, and for an account that is there twice.
    """
    found: dict[str, Account] = {}
    for index, user in enumerate(users):
        if user.disabled:
            continue
        account = _account(user, f"ua.register_users[{index}]")
        if account.name in found:
            raise ConfigError(f"ua.register_users[{index}]", f"{account.name} is there twice")
        found[account.name] = account
    return list(found.values())


def _account(user: RegisterUser, path: str) -> Account:
    registrar = _uri(user.server, f"{path}.server", user.transport)
    address = Uri(registrar.scheme, user.username, None, user.domain or registrar.host, None, NO_PARAMS)
    credential = user.credential
    return Account(
        name=f"{user.username}@{user.server}",
        aor=NameAddr(address, display_name=user.display_name),
        registrar=registrar,
        credentials=Credentials(credential.username, credential.password, credential.realm) if credential else None,
        outbound_proxy=_uri(user.outbound_proxy, f"{path}.outbound_proxy", None) if user.outbound_proxy else None,
        expires=user.expires,
        nat=user.nat == "auto",
        q=user.q,
        instance=user.instance,
    )


def _uri(text: str, path: str, transport: str | None) -> Uri:
    try:
        return server_uri(text, transport)
    except RemoteError as problem:
        raise ConfigError(path, str(problem)) from None
