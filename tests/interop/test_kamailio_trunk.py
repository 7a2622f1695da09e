"""An IP trunk as the documents say, with Kamailio as the carrier's edge: calls both ways, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from rustpbx.core import Address
from rustpbx.settings import AuthConfig, DialConfig
from rustpbx.sip.message import Request
from rustpbx.testing.voice import heard_text, spoken
from rustpbx.values import network
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, documented, over
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.kamailio import open_kamailio, proxy_port
from tests.kit.real import LOOPBACK, RealHouse, open_real_house
from tests.kit.sipp import CALLER, audio, playing

pytestmark = [pytest.mark.interop("baresip", "kamailio"), pytest.mark.real_time]

OURS = "+4930555000"
THEIRS = "+4930123456"
ELSEWHERE = "127.0.0.2"
"""An address of this machine that the carrier has not got."""


@attrs.frozen
class Trunk:
    """Our server, the carrier's edge, and a phone of the world behind it."""

    house: RealHouse
    phone: Baresip
    edge: Address

    def at_edge(self, number: str) -> str:
        """A number, as one calls it by way of the carrier."""
        return f"sip:{number}@{self.edge[0]}:{self.edge[1]}"

    def check(self) -> None:
        """All signalling was the edge's, and requests of ours within the dialog went through it."""
        assert {passed.peer for passed in self.house.sip.messages} == {self.edge}
        for kind in {"out ACK", "out BYE"} & set(self.house.sip.flow):
            request = self.house.sip.find(kind).message
            assert isinstance(request, Request)
            assert [(route.uri.host, route.uri.port) for route in request.routes] == [self.edge]


def documented_rules() -> tuple[AuthConfig, DialConfig]:
    """Who may call and what may be called, of "An IP trunk"; the edge of this test has the address of this machine."""
    told = documented("An IP trunk")
    assert told.ua is not None
    assert told.ua.auth is not None
    assert told.ua.limits.unlimited == told.ua.auth.trusted
    return attrs.evolve(told.ua.auth, trusted=(network(f"{LOOPBACK}/32"),)), told.dial


@asynccontextmanager
async def open_trunk(tmp_path: Path) -> AsyncIterator[Trunk]:
    """All three; all calls must be over at the end of the block."""
    auth, dial = documented_rules()
    async with (
        open_real_house(tmp_path, dial, auth=auth) as house,
        open_baresip(tmp_path, user=THEIRS, says=spoken(QUESTION)) as phone,
    ):
        edge = (LOOPBACK, proxy_port())
        async with open_kamailio(tmp_path, "edge", edge[1], {OURS: house.address, THEIRS: phone.address}):
            yield Trunk(house, phone, edge)
        assert await house.owned() == NOTHING


async def test_the_carrier_calls(tmp_path: Path) -> None:
    """A call from its address needs no password; words both ways, and our BYE goes by the edge."""
    async with open_trunk(tmp_path) as trunk:
        house, phone = trunk.house, trunk.phone
        await phone.do("dial", trunk.at_edge(OURS))
        async with house.incoming() as agent:
            incoming = await agent.until("incoming")
            assert incoming["callee"] == trunk.at_edge(OURS)
            await agent.send("accept", option=SPEECH)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("trackEnd")
            await agent.send("hangup")
            await over(agent, "system", "system")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        assert house.server.registry.health().refused == {}
        trunk.check()


async def test_we_call_a_number(tmp_path: Path) -> None:
    """As the edge wants it, from a number of ours; words both ways, and the BYE comes by the edge."""
    async with open_trunk(tmp_path) as trunk:
        house, phone = trunk.house, trunk.phone
        async with house.agent() as agent:
            option = {"caller": trunk.at_edge(OURS), "callee": trunk.at_edge(THEIRS), **SPEECH}
            await agent.send("invite", option=option)
            await phone.until("CALL_INCOMING")
            await phone.do("accept")
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await phone.do("hangup")
            await over(agent, "callee", "callee")
        await phone.closed()
        trunk.check()


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        ("+4418005550123", "not-allowed"),
        ("0180555", "shared-cost"),
        ("0900123456", "premium-rate"),
        ("+881612345", "satellite"),
    ],
)
async def test_numbers_that_may_not_be_called(tmp_path: Path, number: str, rule: str) -> None:
    """The agent is told the rule, and the carrier nothing."""
    _, dial = documented_rules()
    async with open_real_house(tmp_path, dial) as house, house.agent() as agent:
        await agent.send("invite", option={"callee": f"sip:{number}@{LOOPBACK}", **SPEECH})
        reject = await agent.until("reject")
        assert (reject["code"], reject["reason"]) == (403, f"dial policy: {rule}")
        await agent.ended()
        assert house.sip.flow == []


@pytest.mark.interop("sipp")
async def test_somebody_else_calls(tmp_path: Path) -> None:
    """From an address that is not the carrier's: 403, counted, and nobody is asked."""
    auth, dial = documented_rules()
    async with open_real_house(tmp_path, dial, auth=auth) as house:
        host, port = house.address
        steps = (CALLER.invite(body=audio()), *CALLER.takes_no(403))
        async with playing(tmp_path, steps, f"{host}:{port}", "-i", ELSEWHERE):
            await house.sip.until("in ACK")
        assert house.sip.flow == ["in INVITE", "out 403 INVITE", "in ACK"]
        assert house.server.registry.health().refused == {"unknown": 1}
        assert house.webhook.calls.statistics().current_buffer_used == 0
