"""The NAPTR and SRV records of an in-memory wire, and what their name servers do wrong."""

from __future__ import annotations

import socket

import attrs
import trio

from rustpbx.shell.records import Answer, Kind, Naptr, Srv

TTL = 300.0


@attrs.define
class Zone:
    """Records by name: `wire.zone.add("_sip._udp.example.com", Srv(0, 0, 5060, "sip1.example.com"))`.

    Names that are not here have no records. `silent` names are never answered about (`"*"`: no name is), `broken` ones
    with a server failure. `asked` is every question, in order.
    """

    silent: set[str] = attrs.field(factory=set)
    broken: set[str] = attrs.field(factory=set)
    asked: list[tuple[str, Kind]] = attrs.field(factory=list)
    _records: dict[str, list[tuple[Srv | Naptr, float]]] = attrs.field(factory=dict)

    def add(self, name: str, *records: Srv | Naptr, ttl: float = TTL) -> None:
        """Give a name more records."""
        self._records.setdefault(name.lower(), []).extend((record, ttl) for record in records)

    def remove(self, name: str) -> None:
        """Take all records of a name away."""
        self._records.pop(name.lower(), None)

    async def ask(self, name: str, kind: Kind) -> Answer:
        """The records of that kind. Raises OSError for a broken name, and waits for ever for a silent one."""
        await trio.lowlevel.checkpoint()
        self.asked.append((name, kind))
        if self.silent & {name, "*"}:
            await trio.sleep_forever()
        if name in self.broken:
            raise socket.gaierror(socket.EAI_AGAIN, f"server failure: {name}")
        wanted = Srv if kind == "SRV" else Naptr
        found = [(record, ttl) for record, ttl in self._records.get(name.lower(), []) if isinstance(record, wanted)]
        return Answer(tuple(record for record, _ in found), min((ttl for _, ttl in found), default=TTL))
