"""Whole calls to a name with several servers: the first one dead, busy or gone, and DNS that is no help."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import pytest
import trio

from rustpbx.settings import Config, UaConfig
from rustpbx.shell.records import Naptr, Srv
from rustpbx.sip import events as sip
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.dns import PATIENCE
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.matching import request, response
from rustpbx.testing.phone import Phone, open_phone
from tests.kit.house import SERVER, House, server_config
from tests.kit.peers_sip import reply
from tests.test_calls import over, quiet_house

FIRST, SECOND, FORWARDER = "10.0.0.11", "10.0.0.12", "10.0.0.13"
CALLEE = {"callee": "sip:bob@pbx.test", "caller": f"sip:bot@{SERVER}"}


@attrs.frozen
class Site:
    """A house, and the two servers of `pbx.test`: phones that answer for themselves."""

    house: House
    first: Phone
    second: Phone

    def invites(self, ip: str) -> list[float]:
        """When an INVITE went to a server, from the first of all."""
        sent = self.house.wire.carried(request("INVITE"))
        return [round(one.at - sent[0].at, 3) for one in sent if one.destination[0] == ip]


@asynccontextmanager
async def site(config: Config | None = None) -> AsyncIterator[Site]:
    """`pbx.test` has NAPTR and SRV records: one server, and a second one as its backup."""
    async with quiet_house(config=config) as house:
        wire = house.wire
        wire.zone.add("pbx.test", Naptr(10, 10, "S", "SIP+D2U", "", "_sip._udp.pbx.test"))
        wire.zone.add("_sip._udp.pbx.test", Srv(1, 0, 5060, "one.pbx.test"), Srv(2, 0, 5060, "two.pbx.test"))
        wire.names |= {"one.pbx.test": (FIRST,), "two.pbx.test": (SECOND,)}
        async with (
            open_phone(wire.host(FIRST), FIRST, 5060, user="first", seed=1) as first,
            open_phone(wire.host(SECOND), SECOND, 5060, user="second", seed=2) as second,
        ):
            yield Site(house, first, second)


async def test_the_first_server_by_priority_gets_the_call() -> None:
    """The second hears nothing of it."""
    async with site() as here, here.house.agent() as agent:
        await agent.send("invite", option=CALLEE)
        call = await here.first.ring()
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await over(agent)
        assert (here.invites(FIRST), here.invites(SECOND)) == ([0.0], [])


@pytest.mark.rfc("3263", "4.3")
async def test_a_dead_server_costs_the_caller_four_seconds() -> None:
    """The second one rings, talks and is hung up; every message of the call goes to it."""
    async with site() as here, here.house.agent() as agent:
        here.house.wire.cut(SERVER, FIRST)
        await agent.send("invite", option=CALLEE)
        call = await here.second.ring()
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await over(agent)
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        assert (here.invites(FIRST), here.invites(SECOND)) == ([0.0, 0.5, 1.5, 3.5], [4.0])
        assert agent.names == ["trackStart", "answer", "trackEnd", "hangup"]
        # The next call begins with the server that lives.
        async with here.house.agent() as other:
            await other.send("invite", option=CALLEE)
            (await here.second.ring()).reject(486)
            await over(other)
        assert len(here.invites(FIRST)) == 4
        here.house.wire.mend(SERVER, FIRST)


@pytest.mark.rfc("3263", "4.3")
async def test_a_server_that_says_503_is_left_at_once() -> None:
    """The agent hears of the second server's refusal alone."""
    async with site() as here, here.house.agent() as agent:
        await agent.send("invite", option=CALLEE)
        (await here.first.ring()).reject(503)
        (await here.second.ring()).reject(486)
        reject = await agent.until("reject")
        assert (reject["code"], agent.names.count("reject")) == (486, 1)
        await over(agent)
        assert here.invites(SECOND) == [0.0]


async def test_all_servers_dead_is_a_timeout() -> None:
    """36 s of trying: the last one has all of its 64*T1."""
    async with site() as here, here.house.agent() as agent:
        for server in (FIRST, SECOND):
            here.house.wire.cut(SERVER, server)
        before = trio.current_time()
        await agent.send("invite", option=CALLEE)
        reject = await agent.until("reject")
        assert (reject["code"], trio.current_time() - before) == (408, 36.0)
        await over(agent)
        here.house.wire.mend_all()


async def test_a_hang_up_in_the_middle_of_it_asks_no_second_server() -> None:
    """The call is over for the agent at once, and the second server never hears of it."""
    async with site() as here, here.house.agent() as agent:
        here.house.wire.cut(SERVER, FIRST)
        await agent.send("invite", option=CALLEE)
        await trio.sleep(2)
        await agent.send("hangup")
        await over(agent)
        await trio.sleep(40)
        assert (here.invites(FIRST), here.invites(SECOND)) == ([0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5], [])
        here.house.wire.mend_all()


async def test_a_server_that_wakes_up_late_is_cancelled() -> None:
    """Its INVITE arrived, its answers did not: when they do, the other server has the call."""
    async with site() as here, here.house.agent() as agent:
        here.house.wire.cut(FIRST, SERVER, both_ways=False)
        await agent.send("invite", option=CALLEE)
        asleep = await here.first.ring()
        call = await here.second.ring()
        call.answer()
        await agent.until("answer")
        here.house.wire.mend(FIRST, SERVER)
        asleep.ringing()
        assert isinstance((await asleep.ended()).cause, sip.CallCancelled)
        assert call.state.value == "talking"
        await agent.send("hangup")
        await over(agent)
        assert len(here.house.wire.carried(response(487), to=SERVER)) == 1


async def test_a_name_that_does_not_resolve_is_an_error_at_once() -> None:
    """It names the name; nothing was sent."""
    async with site() as here, here.house.agent() as agent:
        before = trio.current_time()
        await agent.send("invite", option={"callee": "sip:bob@nowhere.test"})
        error = await agent.until("error")
        assert error["error"].startswith("cannot resolve nowhere.test")
        await over(agent)
        assert (trio.current_time(), here.house.wire.carried(request("INVITE"))) == (before, [])


async def test_dns_that_never_answers_costs_seconds_and_not_the_call() -> None:
    """Without NAPTR and SRV the host's own address is called; the next call does not wait for DNS again."""
    async with site() as here:
        here.house.wire.zone.silent.add("*")
        here.house.wire.names["pbx.test"] = (SECOND,)
        for seconds in (2 * PATIENCE, 0.0):
            async with here.house.agent() as agent:
                before = trio.current_time()
                await agent.send("invite", option=CALLEE)
                call = await here.second.ring()
                assert trio.current_time() - before == seconds
                call.reject(486)
                await over(agent)


async def test_dns_that_never_answers_at_all_is_an_error() -> None:
    """The agent may hang up meanwhile, or hears why in the end."""
    async with site() as here:
        here.house.wire.zone.silent.add("*")
        async with here.house.agent() as agent:
            await agent.send("invite", option=CALLEE)
            await trio.sleep(1)
            await agent.send("hangup")
            await over(agent)
        async with here.house.agent() as agent:
            await agent.send("invite", option=CALLEE)
            error = await agent.until("error")
            assert error["error"].startswith("cannot resolve pbx.test")
            await over(agent)


@pytest.mark.rfc("3263", "4.1")
async def test_a_server_that_refuses_tcp_is_left_for_udp_at_once() -> None:
    """NAPTR prefers TCP, which the first server has no port for; then the services by UDP are tried."""
    ua = UaConfig(addr=SERVER, udp_port=5060, tcp_port=5060)
    async with site(server_config(ua=ua)) as here, here.house.agent() as agent:
        zone = here.house.wire.zone
        zone.remove("pbx.test")
        zone.add("pbx.test", Naptr(1, 1, "S", "SIP+D2T", "", "_sip._tcp.pbx.test"))
        zone.add("pbx.test", Naptr(2, 1, "S", "SIP+D2U", "", "_sip._udp.pbx.test"))
        zone.add("_sip._tcp.pbx.test", Srv(1, 0, 5060, "two.pbx.test"))
        before = trio.current_time()
        await agent.send("invite", option=CALLEE)
        call = await here.first.ring()
        assert trio.current_time() == before
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await over(agent)


async def forward(house: House, *contacts: str) -> None:
    """Be a server that answers the next INVITE with 302 and these Contacts."""
    socket = await house.wire.host(FORWARDER).open_datagrams(FORWARDER, 5060)
    data, source = await socket.receive()
    invite = parse_message(data)
    assert isinstance(invite, Request)
    addresses = tuple(NameAddr(parse_uri(contact)) for contact in contacts)
    await socket.send(encode_message(attrs.evolve(reply(invite, 302), contacts=addresses)), source)
    await socket.receive()  # its ACK
    socket.close()


@pytest.mark.rfc("3261", "8.1.3.4")
async def test_a_forwarded_call_rings_where_it_was_forwarded_to() -> None:
    """The agent sees one call; the forwarder is acknowledged, the name that it gave is located as any other."""
    async with site() as here, here.house.agent() as agent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, here.house, "sip:carol@pbx.test")
            await agent.send("invite", option={"callee": f"sip:bob@{FORWARDER}"})
            call = await here.first.ring()
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await over(agent)
        assert agent.names == ["trackStart", "answer", "trackEnd", "hangup"]


@pytest.mark.parametrize(
    ("redirect", "code", "reason"),
    [("follow", 403, "dial policy: premium-rate"), ("report", 302, "Moved Temporarily")],
)
async def test_a_call_is_not_forwarded_where_it_may_not_go(
    redirect: Literal["follow", "report"], code: int, reason: str
) -> None:
    """The dial policy holds for each new target, and `report` follows none."""
    ua = UaConfig(addr=SERVER, udp_port=5060, redirect=redirect)
    async with site(server_config(ua=ua)) as here, here.house.agent() as agent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, here.house, f"sip:+19005551234@{FIRST}")
            await agent.send("invite", option={"callee": f"sip:bob@{FORWARDER}"})
            reject = await agent.until("reject")
        assert (reject["code"], reject["reason"]) == (code, reason)
        await over(agent)
        assert here.invites(FIRST) == []


async def test_a_sips_callee_goes_by_tls_or_nowhere() -> None:
    """There is nobody who speaks it: an error of the transport, and not a datagram for others to read."""
    async with site() as here, here.house.agent() as agent:
        await agent.send("invite", option={"callee": f"sips:bob@{FIRST}"})
        reject = await agent.until("reject")
        assert reject["code"] == 503
        await over(agent)
        assert here.house.wire.carried(request("INVITE")) == []
