"""The RTCP of all legs: whose report is due when, and what it says."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

from rustpbx.media.plane.bank import Bank
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.outlet import Outlet
from rustpbx.media.plane.report import Heard, Sent
from rustpbx.media.rtcp import report_interval


class Reporting:
    """`eject(leg, error)` is called for a leg whose report raised."""

    def __init__(
        self,
        bank: Bank,
        outlet: Outlet,
        counters: Counter[str],
        rng: random.Random,
        eject: Callable[[Leg, Exception], None],
    ) -> None:
        self._bank = bank
        self._outlet = outlet
        self._counters = counters
        self._rng = rng
        self._eject = eject
        self._due: list[tuple[float, int, Leg]] = []
        self._serial = itertools.count()

    def begin(self, leg: Leg, now: float) -> None:
        """Report for this leg from now on, until it has failed or is closed."""
        self._schedule(leg, now, first=True)

    def report(self, now: float, epoch: float) -> None:
        """Send the reports that are due; `now` is `epoch` seconds since 1970."""
        while self._due and self._due[0][0] <= now:
            leg = heapq.heappop(self._due)[2]
            if leg.failed:
                continue
            try:
                self.say(leg, epoch)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
                self._eject(leg, error)
            self._schedule(leg, now)

    def say(self, leg: Leg, epoch: float, *, bye: bool = False) -> None:
        """Send a report, if the leg has a peer who takes them."""
        destination = leg.rtcp_destination
        if destination is None or leg.format is None:
            return
        sent, heard = self._sent(leg.slot), self._heard(leg.slot)
        plain = leg.reporter.bye(sent, heard, epoch) if bye else leg.reporter.report(sent, heard, epoch)
        report = plain if leg.sealer is None else leg.sealer.seal_report(plain)
        handle = leg.rtp if leg.format.rtcp_mux else leg.rtcp
        if report is None or not self._outlet.send(handle, report, destination):
            self._counters["sends_refused"] += 1

    def _schedule(self, leg: Leg, now: float, *, first: bool = False) -> None:
        heapq.heappush(self._due, (now + report_interval(self._rng, first=first), next(self._serial), leg))

    def _sent(self, slot: int) -> Sent:
        bank = self._bank
        return Sent(packets=int(bank.sent[slot]), octets=int(bank.octets[slot]), rtp_time=int(bank.rtp_time[slot]))

    def _heard(self, slot: int) -> Heard | None:
        bank = self._bank
        if not bank.ssrc_known[slot]:
            return None
        last = int(bank.last_sequence[slot])
        return Heard(
            ssrc=int(bank.ssrc_in[slot]),
            received=int(bank.received[slot]),
            expected=last - int(bank.base_sequence[slot]) + 1,
            highest=last,
            jitter=int(bank.jitter[slot]),
        )
