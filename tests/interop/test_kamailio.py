"""Calls through Kamailio, one or two in a row: whatever belongs to a dialog travels by its route set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest

from rustpbx.core import Address
from rustpbx.media.events import Direction
from rustpbx.sip.events import SendDigit, SendOffer
from rustpbx.sip.message import Request
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, IMPATIENT, NOTHING, QUESTION, TAIL, called, calling, direction, held, over
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.kamailio import open_kamailio, proxy_port
from tests.kit.real import LOOPBACK, RealHouse, open_real_house

pytestmark = [pytest.mark.interop("baresip", "kamailio"), pytest.mark.real_time]


@attrs.frozen
class Line:
    """A server and a phone with proxies between them, the one next to the server first."""

    house: RealHouse
    phone: Baresip
    proxies: tuple[Address, ...]

    def uri(self, user: str, proxy: Address) -> str:
        """A user as those call it who go through that proxy."""
        return f"sip:{user}@{proxy[0]}:{proxy[1]}"

    def routes(self, summary: str) -> list[Address]:
        """The Route set of the first request of ours of that kind."""
        message = self.house.sip.find(summary).message
        assert isinstance(message, Request)
        assert all("lr" in route.uri.params for route in message.routes)
        return [(route.uri.host, route.uri.port or 5060) for route in message.routes]

    def check(self) -> None:
        """Nothing went past the proxies, and each request of ours in the dialog named all of them, in order."""
        assert {passed.peer for passed in self.house.sip.messages} == {self.proxies[0]}
        for kind in {"out ACK", "out BYE", "out INFO"} & set(self.house.sip.flow):
            assert self.routes(kind) == list(self.proxies)


@asynccontextmanager
async def open_line(tmp_path: Path, hops: int) -> AsyncIterator[Line]:
    """Server, proxies and phone; all calls must be over at the end of the block."""
    proxies = tuple((LOOPBACK, proxy_port()) for _ in range(hops))
    async with AsyncExitStack() as exits:
        house = await exits.enter_async_context(open_real_house(tmp_path))
        phone = await exits.enter_async_context(open_baresip(tmp_path, says=spoken(QUESTION)))
        chain = [house.address, *proxies, phone.address]
        for at, (_, port) in enumerate(proxies, 1):
            routes = {"800": chain[at - 1], phone.user: chain[at + 1]}
            await exits.enter_async_context(open_kamailio(tmp_path, f"proxy{at}", port, routes))
        yield Line(house, phone, proxies)
        await phone.closed()
        assert await house.owned() == NOTHING


@pytest.mark.parametrize(("hops", "who"), [(1, "agent"), (2, "phone")])
async def test_a_phone_calls_through_proxies(tmp_path: Path, hops: int, who: str) -> None:
    """Words both ways, hold and resume by the phone, a re-INVITE and an INFO by us, a BYE from either side."""
    async with open_line(tmp_path, hops) as line:
        house, phone = line.house, line.phone
        async with called(house, phone, line.uri("800", line.proxies[-1]), vad=IMPATIENT) as agent:
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            await held(phone, agent)
            await phone.do("resume")
            await house.sip.until("in ACK", 3)
            leg, stack = agent.events[0]["trackId"], house.server.stack
            assert stack is not None
            stack.wish(SendOffer(leg, house.sip.find("out 200 INVITE", 3).message.body))
            await house.sip.until("out ACK")
            stack.wish(SendDigit(leg, "7"))
            await house.sip.until("in 200 INFO")
            if who == "agent":
                await agent.send("hangup")
                await over(agent, "system", "system")
            else:
                await phone.do("hangup")
                await over(agent, "caller", "caller")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        assert [direction(house.sip.find("out 200 INVITE", count)) for count in (1, 2, 3)] == [
            *(Direction.SENDRECV, Direction.RECVONLY, Direction.SENDRECV)
        ]
        assert line.routes("out INVITE") == list(line.proxies)
        invited = house.sip.find("in INVITE").message
        assert len(invited.vias) == hops + 1
        assert [route.uri.port for route in invited.record_routes] == [port for _, port in line.proxies]
        line.check()


@pytest.mark.parametrize(("hops", "who"), [(1, "phone"), (2, "agent")])
async def test_we_call_through_proxies(tmp_path: Path, hops: int, who: str) -> None:
    """The 200's Record-Route, read backwards, is the way of our ACK and BYE; words are heard both ways."""
    async with open_line(tmp_path, hops) as line:
        house, phone = line.house, line.phone
        async with calling(house, phone, line.uri(phone.user, line.proxies[0])) as agent:
            await phone.do("accept")
            await agent.until("answer")
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            if who == "agent":
                await agent.send("hangup")
                await over(agent, "system", "system")
            else:
                await phone.do("hangup")
                await over(agent, "callee", "callee")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        line.check()


async def test_a_call_through_proxies_is_cancelled(tmp_path: Path) -> None:
    """CANCEL goes where the INVITE went, and the 487 is acknowledged to the proxy that brought it."""
    async with open_line(tmp_path, 2) as line:
        async with calling(line.house, line.phone, line.uri(line.phone.user, line.proxies[0])) as agent:
            await agent.send("hangup")
            await over(agent, "system", "system")
        await line.house.sip.until("out ACK")
        assert {passed.peer for passed in line.house.sip.messages} == {line.proxies[0]}
