"""DNS remembered: once per question, as long as its TTL, within bounds and limits of time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from rustpbx.shell.clock import TrioClock
from rustpbx.shell.records import Naptr, Srv
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.locate import Unlocated
from rustpbx.sip.shell import dns as dns_module
from rustpbx.sip.shell.dns import FAILURE_TTL, PATIENCE, Names
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.wire import Wire, open_wire

UDP = Transport.UDP
ONE, TWO = Hop(UDP, ("10.0.0.8", 5060)), Hop(UDP, ("10.0.0.9", 5070))


@attrs.frozen
class Desk:
    """A wire with a zone, and the names of a host on it."""

    wire: Wire
    names: Names

    async def find(self, uri: str = "sip:x@pbx.test") -> tuple[Hop, ...] | Unlocated:
        """Locate a target by UDP."""
        return await self.names.locate(parse_uri(uri), [UDP])

    @property
    def asked(self) -> list[str]:
        """What was asked since the last time."""
        asked = [f"{kind} {name}" for name, kind in self.wire.zone.asked]
        self.wire.zone.asked.clear()
        return asked


@asynccontextmanager
async def desk(*, ttl: float = 300.0) -> AsyncIterator[Desk]:
    """`pbx.test` with two servers, the second one as a backup."""
    async with open_wire() as wire:
        names = Names(wire.host("10.0.0.1"), TrioClock(epoch=0), random.Random(1), lambda address: ":" not in address)
        wire.zone.add("pbx.test", Naptr(10, 10, "S", "SIP+D2U", "", "_sip._udp.pbx.test"), ttl=ttl)
        wire.zone.add("_sip._udp.pbx.test", Srv(10, 0, 5060, "one.test"), Srv(20, 0, 5070, "two.test"), ttl=ttl)
        wire.names |= {"one.test": ("2001:db8::8", "10.0.0.8"), "two.test": ("10.0.0.9",)}
        yield Desk(wire, names)


@pytest.mark.rfc("3263", "4.2")
async def test_a_target_is_located_by_the_zone() -> None:
    """NAPTR, SRV, addresses of our family."""
    async with desk() as here:
        assert await here.find() == (ONE, TWO)
        assert here.asked == ["NAPTR pbx.test", "SRV _sip._udp.pbx.test"]


async def test_answers_hold_as_long_as_their_ttl() -> None:
    """Then they are asked for again."""
    async with desk(ttl=100.0) as here:
        await here.find()
        here.wire.zone.remove("_sip._udp.pbx.test")
        here.wire.zone.add("_sip._udp.pbx.test", Srv(0, 0, 5070, "two.test"))
        await trio.sleep(99)
        assert (await here.find(), len(here.asked)) == ((ONE, TWO), 2)
        await trio.sleep(1)
        assert (await here.find(), len(here.asked)) == ((TWO,), 2)


async def test_that_there_is_none_holds_as_well() -> None:
    """A name without records is asked about once."""
    async with desk() as here:
        here.wire.names["plain.test"] = ("10.0.0.7",)
        found = [await here.find("sip:x@plain.test") for _ in range(3)]
        assert found == [(Hop(UDP, ("10.0.0.7", 5060)),)] * 3
        assert here.asked == ["NAPTR plain.test", "SRV _sip._udp.plain.test"]


async def test_one_look_up_at_a_time_for_a_question() -> None:
    """A thousand calls at once ask once."""
    async with desk() as here, trio.open_nursery() as nursery:
        found: list[tuple[Hop, ...] | Unlocated] = []

        async def find() -> None:
            found.append(await here.find())

        for _ in range(1000):
            nursery.start_soon(find)
        await trio.testing.wait_all_tasks_blocked()
        assert (found, len(here.asked)) == ([(ONE, TWO)] * 1000, 2)


async def test_who_asks_may_leave_and_the_others_still_learn() -> None:
    """The look-up of a call that was hung up is taken over by the next that waits for it."""
    async with desk() as here, trio.open_nursery() as nursery:
        here.wire.zone.silent.add("pbx.test")
        first, found = trio.CancelScope(), list[tuple[Hop, ...] | Unlocated]()

        async def ask_and_leave() -> None:
            with first:
                await here.find()

        async def ask() -> None:
            found.append(await here.find())

        nursery.start_soon(ask_and_leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        here.wire.zone.silent.clear()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert found == [(ONE, TWO)] * 2
        assert here.asked == ["NAPTR pbx.test", "NAPTR pbx.test", "SRV _sip._udp.pbx.test"]


async def test_a_zone_that_never_answers_costs_its_limit_and_only_once() -> None:
    """NAPTR and SRV are given up, the host's own address is tried; the next call does not wait again for a while."""
    async with desk() as here:
        here.wire.zone.silent.add("*")
        here.wire.names["pbx.test"] = ("10.0.0.8",)
        assert (await here.find(), trio.current_time()) == ((ONE,), 2 * PATIENCE)
        assert len(here.asked) == 2
        assert (await here.find(), trio.current_time()) == ((ONE,), 2 * PATIENCE)
        assert (here.asked, here.names.counters["lookups_failed"]) == ([], 2)
        await trio.sleep(2 * PATIENCE + FAILURE_TTL)
        here.wire.zone.silent.clear()
        assert await here.find() == (ONE, TWO)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("sip:x@nowhere.test", "cannot resolve nowhere.test: [Errno -2] no such name on this wire: nowhere.test"),
        ("sip:x@pbx.test;transport=sctp", "pbx.test is to be reached by SCTP, which we do not speak"),
        ("sip:x@six.test:5060", "six.test has no address of our family"),
    ],
)
async def test_why_a_target_cannot_be_located(uri: str, problem: str) -> None:
    """The problem names the name, and what DNS said."""
    async with desk() as here:
        here.wire.names["six.test"] = ("2001:db8::6",)
        assert await here.find(uri) == Unlocated(problem)


async def test_a_server_failure_is_told_with_the_name_that_failed() -> None:
    """Nothing else could be found either."""
    async with desk() as here:
        here.wire.zone.broken.add("broken.test")
        assert await here.find("sip:x@broken.test") == Unlocated(
            "cannot resolve broken.test: [Errno -2] no such name on this wire: broken.test"
        )


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that nobody used for longest goes."""
    monkeypatch.setattr(dns_module, "MOST_NAMES", 4)
    async with desk() as here:
        for name in ("a", "b", "c"):
            here.wire.names[f"{name}.test"] = ("10.0.0.7",)
        await here.find()  # four answers
        await here.find("sip:x@a.test:5060")
        await here.find()
        assert here.asked == ["NAPTR pbx.test", "SRV _sip._udp.pbx.test", "NAPTR pbx.test", "SRV _sip._udp.pbx.test"]


async def test_waiters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may wait is told so at once."""
    monkeypatch.setattr(dns_module, "MOST_WAITING", 2)
    async with desk() as here, trio.open_nursery() as nursery:
        here.wire.zone.silent.add("*")
        for _ in range(2):
            nursery.start_soon(here.find)
        await trio.testing.wait_all_tasks_blocked()
        assert await here.find() == Unlocated("too many names are being looked up")
        assert here.names.counters["lookups_refused"] == 1
        nursery.cancel_scope.cancel()


async def test_names_are_equal_in_any_case() -> None:
    """DNS does not tell them apart, nor does the cache."""
    async with desk() as here:
        assert await here.find("sip:x@PBX.test") == await here.find("sip:x@pbx.TEST") == (ONE, TWO)
        assert len(here.asked) == 2
