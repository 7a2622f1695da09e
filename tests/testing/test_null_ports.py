"""Calls that are only signalled: an hour of them passes in an instant."""

from __future__ import annotations

import pytest
import trio

from rustpbx.testing.house import House, Plan
from rustpbx.testing.null_ports import NullPorts
from tests.test_calls import DIAL, over


async def test_an_hour_of_a_call_without_media() -> None:
    """A call stands for an hour, pinged all the while, is hung up properly, and the media clock never ticked."""
    async with House(Plan(signalling_only=True)).open() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await agent.until("answer")
            await call.answered()
            begin = trio.current_time()
            await trio.sleep(3600)
            await agent.send("hangup")
            hangup = await over(agent)
        assert (await call.ended()).at - begin == pytest.approx(3600, abs=1)
        assert hangup["reason"] == "system"
        assert house.server.plane.clock.ticks == 0
        await house.settle()


def test_they_open_and_close_and_swallow() -> None:
    """Each port once, on a handle of its own; what is sent is gone, on a closed handle it is refused."""
    ports = NullPorts()
    one, other = ports.open("10.0.0.1", 12000), ports.open("10.0.0.1", 12001)
    with pytest.raises(OSError, match="in use"):
        ports.open("10.0.0.1", 12000)
    assert ports.bound == [("10.0.0.1", 12000), ("10.0.0.1", 12001)]
    ports.close(other)
    ports.close(other)
    parcels = [(one, memoryview(b"x"), ("10.0.0.2", 9)), (other, memoryview(b"y"), ("10.0.0.2", 9))]
    assert ports.send_all(parcels) == [1]
    assert ports.receive() == []
