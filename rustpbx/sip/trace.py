"""The SIP messages of each call, kept for who asks: while the call is up and for a while afterwards.

It is always on, for the call that somebody asks about has already happened. What it costs is bounded: a call holds
references to its datagrams, as a rule some eight of them and 6 KB, at most `MOST_MESSAGES` and `MOST_BYTES`; of ended
calls the last `MOST_ENDED` are kept, for `KEPT` seconds. Strangers' messages that begin no call are not kept.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Literal
from weakref import WeakValueDictionary

import attrs

from rustpbx.core import Address, address_text
from rustpbx.journal import Journal
from rustpbx.masking import mask, visible
from rustpbx.sip.hop import Hop
from rustpbx.sip.ladder import Rung, draw

log = Journal(__name__)

MOST_MESSAGES = 100
MOST_BYTES = 64 * 1024
FIRST = 10
"""The begin of a call is kept however long it lasts: so many messages, and a quarter of the bytes."""
MOST_OF_ONE = 8 * 1024
MOST_ENDED = 200
KEPT = 600.0

_CALL_ID = re.compile(rb"(?im)^(?:call-id|i)[ \t]*:[ \t]*([^\r\n]*)")


@attrs.frozen
class Traced:
    """One message that passed. `now` is monotonic seconds; `cut` bytes of its end are left out."""

    direction: Literal["in", "out"]
    peer: Hop
    data: bytes
    now: float
    cut: int = 0

    @property
    def heading(self) -> str:
        """Where it went or came from: `in from 10.0.0.2:5060 (UDP)`."""
        way = "in from" if self.direction == "in" else "out to"
        return f"{way} {address_text(self.peer.address)} ({self.peer.transport})"

    @property
    def text(self) -> str:
        """The message for people: credentials masked, line ends plain."""
        text = visible(mask(self.data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")))
        return f"{text}... {self.cut} more bytes\n" if self.cut else text


@attrs.frozen
class Trace:
    """The messages of one call, in order. `dropped` of them were too many; `local` is our own address."""

    call: str
    local: Address | None
    messages: tuple[Traced, ...]
    dropped: int = 0


@attrs.define(eq=False)
class _Ring:
    """A call's messages: the first ones, and as many of the last as fit."""

    leg: str
    first: list[Traced] = attrs.field(factory=list)
    last: deque[Traced] = attrs.field(factory=deque)
    size: int = 0
    dropped: int = 0

    def add(self, traced: Traced) -> None:
        if len(traced.data) > MOST_OF_ONE:
            traced = attrs.evolve(traced, data=traced.data[:MOST_OF_ONE], cut=len(traced.data) - MOST_OF_ONE)
        self.size += len(traced.data)
        if not self.last and len(self.first) < FIRST and self.size <= MOST_BYTES // 4:
            self.first.append(traced)
            return
        self.last.append(traced)
        while len(self.first) + len(self.last) > MOST_MESSAGES or self.size > MOST_BYTES:
            self.size -= len(self.last.popleft().data)
            self.dropped += 1


class Traces:
    """The rings of all calls. A leg `begins` with its Call-ID and `ends`; messages are `note`d as they pass."""

    def __init__(self) -> None:
        self._live: dict[str, _Ring] = {}
        self._ended: OrderedDict[str, tuple[float, _Ring]] = OrderedDict()
        self._by_call_id: WeakValueDictionary[bytes, _Ring] = WeakValueDictionary()
        self._newest: Traced | None = None

    def __len__(self) -> int:
        return len(self._live) + len(self._ended)

    def note(self, traced: Traced) -> str:
        """A message passes; the leg it belongs to, "" if that is not known (yet)."""
        found = _CALL_ID.search(traced.data, 0, MOST_OF_ONE)
        ring = self._by_call_id.get(found[1].strip()) if found else None
        if ring is None:
            self._newest = traced  # perhaps an INVITE, whose call begins next
            return ""
        ring.add(traced)
        return ring.leg

    def begins(self, leg: str, call_id: str) -> None:
        """A call begins; the message that has just passed may be its first."""
        key = call_id.encode()
        ring = self._by_call_id.get(key)
        if ring is None:
            ring = self._by_call_id[key] = _Ring(leg)
        self._live[leg] = ring
        self._ended.pop(leg, None)
        newest, self._newest = self._newest, None
        if newest is not None and newest.direction == "in":
            self.note(newest)

    def joins(self, leg: str, call_id: str) -> None:
        """A call goes on under another Call-ID, too; the message that has just passed may be the first with it."""
        ring = self._live.get(leg)
        if ring is None:
            return
        self._by_call_id[call_id.encode()] = ring
        newest, self._newest = self._newest, None
        if newest is not None and newest.direction == "in":
            self.note(newest)

    def ends(self, leg: str, now: float) -> None:
        """A call is over: further messages of it are kept with the others, all of them for a while."""
        ring = self._live.pop(leg, None)
        if ring is not None:
            self._ended[leg] = (now, ring)
        self._forget(now)

    def of(self, leg: str, now: float) -> tuple[tuple[Traced, ...], int] | None:
        """The messages of a call and how many were dropped; None for a call that is not known (any more)."""
        self._forget(now)
        ring = self._live.get(leg) or self._ended.get(leg, (0.0, None))[1]
        return None if ring is None else ((*ring.first, *ring.last), ring.dropped)

    def _forget(self, now: float) -> None:
        while self._ended:
            leg, (ended_at, _) = next(iter(self._ended.items()))
            if len(self._ended) <= MOST_ENDED and now - ended_at <= KEPT:
                return
            del self._ended[leg]


def trace_text(trace: Trace, time: Callable[[float], str]) -> str:
    """A trace for people: a ladder, then each message in full. `time` writes a message's time, in 12 characters."""
    us = "rustpbx" if trace.local is None else f"rustpbx {address_text(trace.local)}"
    rungs = [_rung(one, us) for one in trace.messages]
    dropped = f", {trace.dropped} more in between were dropped" if trace.dropped else ""
    parts = [f"call {trace.call}: {len(rungs)} messages{dropped}\n"]
    if rungs:
        parts.append(draw(rungs, time=time, margin=14))
    parts.extend(f"--- {time(one.now)} {one.heading}\n{one.text}" for one in trace.messages)
    return "\n".join(parts)


def _rung(one: Traced, us: str) -> Rung:
    peer = address_text(one.peer.address)
    source, destination = (peer, us) if one.direction == "in" else (us, peer)
    return Rung(one.now, source, destination, one.data)
