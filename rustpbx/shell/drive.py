"""The loop that runs any core."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

import trio

from rustpbx.core import Core, Tick

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")


async def drive(
    core: Core[InputT, EffectT],
    inbox: trio.MemoryReceiveChannel[InputT],
    perform: Callable[[EffectT], InputT | None],
) -> None:
    """Feed `core` from `inbox` and its own deadlines until it is done.

    `perform` is synchronous on purpose: an effect never waits for a peer, it hands over to a bounded queue
    or starts a task. What it returns (the counters of a stopped source, say) is the core's next input, before
    anything else that happened.
    """
    while not core.done:
        item: InputT | Tick = Tick()
        with trio.move_on_at(core.deadline().at):
            item = await inbox.receive()
        settle(core, item, perform, trio.current_time())


def settle(
    core: Core[InputT, EffectT],
    item: InputT | Tick,
    perform: Callable[[EffectT], InputT | None],
    now: float,
) -> None:
    """Hand one input to `core`, perform its effects, and go on with what they return at once."""
    pending: deque[InputT | Tick] = deque([item])
    while pending:
        for effect in core.handle(pending.popleft(), now):
            answer = perform(effect)
            if answer is not None:
                pending.append(answer)
