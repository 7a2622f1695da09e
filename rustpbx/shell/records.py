"""What DNS says about a name, as values: the records that finding a SIP server needs (RFC 2782, RFC 3403)."""

from __future__ import annotations

from typing import Literal

import attrs

Kind = Literal["NAPTR", "SRV", "ADDRESS"]
"""What may be asked for; `ADDRESS` is A and AAAA together, from the hosts file too."""


@attrs.frozen
class Srv:
    """One SRV record: where a service is. `target` is a host name without its final dot, "" for "not here"."""

    priority: int
    weight: int
    port: int
    target: str


@attrs.frozen
class Naptr:
    """One NAPTR record. `service` (`SIP+D2U`) and `flags` are upper case, `replacement` has no final dot."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


Record = Srv | Naptr | str
"""`str` is an IP literal."""


@attrs.frozen
class Answer:
    """The records of one name and kind, none where there are none, and for how many seconds they hold."""

    records: tuple[Record, ...]
    ttl: float
