"""Names to addresses off the core: a bounded cache, one look-up per name at a time, and an answer for each failure."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

import attrs
import trio

from rustpbx.core import Address
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.events import Send


def is_literal(host: str) -> bool:
    """True for an IPv4 or IPv6 literal."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@attrs.frozen
class Unresolved:
    """A datagram whose host has no address (or too many look-ups are under way)."""

    send: Send
    problem: str


@attrs.frozen
class _Known:
    address: str
    until: float


class Resolver:
    """`find` answers from the cache; `look_up` asks the network and gives what waited for the name.

    At most `most_names` are remembered for `lifetime` seconds (the oldest goes), at most `most_waiting` datagrams
    wait (more are refused), and a look-up takes at most `patience` seconds.
    """

    def __init__(
        self,
        network: Network,
        clock: Clock,
        *,
        lifetime: float = 60.0,
        most_names: int = 1000,
        most_waiting: int = 1000,
        patience: float = 10.0,
    ) -> None:
        self._network = network
        self._clock = clock
        self._lifetime = lifetime
        self._most_names = most_names
        self._most_waiting = most_waiting
        self._patience = patience
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._waiting: dict[str, list[Send]] = {}

    def find(self, host: str) -> str | None:
        """The address of a literal or a remembered name."""
        if is_literal(host):
            return host
        known = self._known.get(host.lower())
        return known.address if known is not None and known.until > self._clock.now() else None

    def wait(self, send: Send) -> bool | Unresolved:
        """Let a datagram wait for its name: True if a look-up must be started for it (`look_up`)."""
        name = send.destination.address[0].lower()
        if sum(map(len, self._waiting.values())) >= self._most_waiting:
            return Unresolved(send, "too many names to look up")
        queue = self._waiting.setdefault(name, [])
        queue.append(send)
        return len(queue) == 1

    async def look_up(self, host: str, fits: Callable[[str], bool]) -> list[tuple[Send, Address] | Unresolved]:
        """Ask for a name's first address that `fits` our socket; what waited for it, with the answer."""
        name = host.lower()
        problem = ""
        try:
            with trio.fail_after(self._patience):
                found = await self._network.resolve(name)
            address = next(filter(fits, found), None)
            problem = "" if address else f"{name} has no address of our family"
        except (OSError, UnicodeError, trio.TooSlowError) as error:
            address, problem = None, f"cannot resolve {name}: {error or 'too slow'}"
        waited = self._waiting.pop(name, [])
        if address is None:
            return [Unresolved(send, problem) for send in waited]
        self._remember(name, address)
        return [(send, (address, send.destination.address[1])) for send in waited]

    def _remember(self, name: str, address: str) -> None:
        self._known[name] = _Known(address, self._clock.now() + self._lifetime)
        self._known.move_to_end(name)
        if len(self._known) > self._most_names:
            self._known.popitem(last=False)
