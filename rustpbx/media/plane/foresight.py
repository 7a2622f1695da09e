"""Encoding ahead: what many legs of Opus will say in the next tick is encoded in a thread, beside the loop.

What comes next is known nearly always: it waits in the ring. The tick gives the coders their next frames away, and
when the time has come a packet is there, or the tick makes it itself: because the thread was late, or because something
else is to be said. The packets are the same in each case, so nobody needs to know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import trio

from rustpbx.errors import OverloadedError
from rustpbx.journal import Journal
from rustpbx.media.codec.base import Foreseeing
from rustpbx.media.plane.bank import Bank
from rustpbx.media.plane.coded import SILENCE
from rustpbx.shell.offload import Offload

log = Journal(__name__)

FEW = 32
"""Legs that the tick encodes by itself, in less than 2 ms (docs/performance.md): a thread costs more than it saves."""


class Foresight:
    """The legs among the bank's that speak, and whose coders can encode ahead."""

    def __init__(self, bank: Bank, counters: Counter[str], offload: Offload) -> None:
        self._bank = bank
        self._counters = counters
        self._offload = offload
        self._batch: Sequence[Foreseeing] = ()
        self._busy = False
        self._woken = trio.Event()

    def look(self) -> None:
        """A tick's packets are out: have those of the next one made, unless the thread is still at these."""
        bank = self._bank
        if len(bank.coders) <= FEW:
            return
        speaking = [
            (slot, coded, coded.ahead)
            for slot, coded in bank.coders.items()
            if coded.ahead is not None and bank.sending[slot]
        ]
        if len(speaking) <= FEW:
            return
        if self._busy:
            self._counters["encoding_batches_skipped"] += 1
            return
        for slot, coded, ahead in speaking:
            playing = bank.playout_count[slot]
            ahead.expect(coded.playout[int(bank.playout_head[slot])] if playing else SILENCE)
        self._batch = [ahead for _, _, ahead in speaking]
        self._woken.set()

    async def run(self) -> None:
        """Have batches encoded until cancelled."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            self._busy = True
            try:
                await self._offload.thread(partial(prepare, self._batch))
            except OverloadedError:
                self._counters["encoding_batches_refused"] += 1
            except Exception:  # the tick encodes by itself, as it does without this task
                self._counters["encoding_batches_failed"] += 1
                log.exception("encoding ahead failed")
            finally:
                self._busy = False


def prepare(coders: Sequence[Foreseeing]) -> None:
    """Encode what each of them expects. Runs in a thread."""
    for coder in coders:
        coder.prepare()
