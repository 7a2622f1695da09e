"""The loop that runs any core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from rustpbx.core import Core, Tick

InputT = TypeVar("InputT")
EffectT = TypeVar("EffectT")


async def drive(
    core: Core[InputT, EffectT],
    inbox: trio.MemoryReceiveChannel[InputT],
    perform: Callable[[EffectT], None],
) -> None:
    """Feed `core` from `inbox` and its own deadlines until it is done.

    `perform` is synchronous on purpose: an effect never waits for a peer, it hands over to a bounded queue
    or starts a task.
    """
    while not core.done:
        item: InputT | Tick = Tick()
        with trio.move_on_at(core.deadline().at):
            item = await inbox.receive()
        for effect in core.handle(item, trio.current_time()):
            perform(effect)
