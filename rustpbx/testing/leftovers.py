"""What calls still own when a test is over, in words that help to find who forgot it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from rustpbx.app import Server
from rustpbx.core import Address
from rustpbx.session.shell.call_task import CallTask
from rustpbx.testing.wire import Wire

_OUTLIVE_CALLS = "sip.shell.connections.Connections.run"
"""What is below it belongs to no call: connections are for the next one, too, and end when they are idle."""


@attrs.frozen(kw_only=True)
class Belongings:
    """What a server and its wire hold at one moment: counts by kind, UDP addresses, tasks."""

    counts: dict[str, int] = attrs.field(factory=dict)
    bound: tuple[Address, ...] = ()
    tasks: Mapping[trio.lowlevel.Task, str] = attrs.field(factory=dict)

    def more_than(self, before: Belongings) -> list[str]:
        """A line for each thing that was not there before."""
        kinds = [f"{count} {kind}" for kind, count in self.counts.items() if count > before.counts.get(kind, 0)]
        ports = [f"UDP {ip}:{port} is still bound" for ip, port in self.bound if (ip, port) not in before.bound]
        tasks = [f"task {name} still runs" for task, name in self.tasks.items() if task not in before.tasks]
        return kinds + ports + tasks

    def plus(self, later: Belongings, earlier: Belongings) -> Belongings:
        """With the addresses and tasks that came between two moments."""
        bound = tuple(address for address in later.bound if address not in earlier.bound)
        tasks = {task: name for task, name in later.tasks.items() if task not in earlier.tasks}
        return attrs.evolve(self, bound=self.bound + bound, tasks={**self.tasks, **tasks})


def belongings(server: Server, wire: Wire, *, but: trio.Nursery | None = None) -> Belongings:
    """What is held now; tasks in the nursery `but`, and below it, are not counted."""
    counters = server.stack.counters if server.stack is not None else {}
    counts = {
        "calls": len(server.registry.calls),
        "legs": server.plane.legs,
        "dialogs": counters.get("dialogs", 0),
        "transactions": counters.get("transactions_running", 0),
    }
    root = trio.lowlevel.current_root_task()
    tasks = _tasks_below(root, but) if root is not None else {}
    return Belongings(counts=counts, bound=tuple(wire.bound), tasks=tasks)


def _tasks_below(task: trio.lowlevel.Task, but: trio.Nursery | None) -> dict[trio.lowlevel.Task, str]:
    found: dict[trio.lowlevel.Task, str] = {}
    for nursery in task.child_nurseries:
        if nursery is but:
            continue
        for child in nursery.child_tasks:
            found[child] = child.name
            if not child.name.endswith(_OUTLIVE_CALLS):
                found.update(_tasks_below(child, but))
    return found


def describe_call(call: CallTask, server: Server) -> str:
    """One call and what it owns, in a line: its state, its RTP port, what plays, and whether an agent is there."""
    owns = [call.core.state.name]
    leg = server.plane.leg(call.id)
    if leg is not None:
        owns.append(f"leg on port {leg.port}")
        if leg.source is not None:
            owns.append(f"playback {leg.source.generation}")
        if leg.taps:
            owns.append("being transcribed")
    owns.append("no agent" if call.attachment is None else "agent attached")
    return f"call {call.id}: {', '.join(owns)}; hang up, or end the phone's call"
