"""Calls with browsers that the server cannot reach, nor they it: a TURN server of `ice_servers` carries them."""

from __future__ import annotations

import pytest
import trio

from rustpbx.settings import IceServer
from rustpbx.testing.house import BROWSER
from rustpbx.testing.turn import TurnService
from rustpbx.testing.voice import heard_text
from tests.kit.house import SERVER, server_config
from tests.test_calls import over, quiet_house
from tests.test_webrtc_calls import calling, speak

TURN = "203.0.113.9"


@pytest.mark.parametrize("way", ["turn:203.0.113.9", "turn:203.0.113.9?transport=tcp"])
async def test_a_conversation_by_way_of_a_relay(way: str) -> None:
    """Both hear each other, and after the call the server has its relay back."""
    servers = (IceServer(urls=(way,), username="alice", credential="wonderland"),)
    async with quiet_house(config=server_config(ice_servers=servers)) as house:
        house.wire.cut(SERVER, BROWSER)
        turn = TurnService(house.wire.host(TURN), TURN, users={"alice": "wonderland"})
        async with trio.open_nursery() as nursery:
            await nursery.start(turn.run)
            async with calling(house) as (browser, agent):
                await browser.connected()
                await speak(browser, "good morning")
                await agent.hears("good morning")
                await agent.says("how can I help you")
                await agent.send("hangup")
                await over(agent)
                await browser.ended()
                assert heard_text(browser.hear(), 16000) == "how can I help you"
            assert turn.counters["given back"] == 1
            assert turn.allocations == {}
            turn.stop()
