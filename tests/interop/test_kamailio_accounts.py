"""An account at Kamailio: registered with its password, called, calling, and gone at the end; as the documents say."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from rustpbx.core import Address
from rustpbx.settings import RegisterUser
from rustpbx.sip.message import Request
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, called, documented, over
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.exchange import DOMAIN, open_exchange
from tests.kit.real import LOOPBACK, RealHouse, free_port, open_real_house

pytestmark = [pytest.mark.interop("baresip", "kamailio"), pytest.mark.real_time]


def documented_account() -> RegisterUser:
    """The account of "A PBX account" in the documents."""
    ua = documented("A PBX account").ua
    assert ua is not None
    (account,) = ua.register_users
    return account


@attrs.frozen
class Line:
    """A server with an account at an exchange, and a phone of that exchange."""

    house: RealHouse
    phone: Baresip
    exchange: Address

    @property
    def account_uri(self) -> str:
        """The account, as the phone calls it."""
        return f"sip:1001@{self.exchange[0]}:{self.exchange[1]}"


@asynccontextmanager
async def open_line(tmp_path: Path, transport: str = "udp", algorithm: str = "MD5") -> AsyncIterator[Line]:
    """Registered, with the password; the proxy stands in for the name server, which knows nothing of the domain."""
    exchange = (LOOPBACK, free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM))
    proxy = f"sip:{exchange[0]}:{exchange[1]};transport={transport}"
    account = attrs.evolve(documented_account(), outbound_proxy=proxy)
    assert account.credential is not None
    async with open_baresip(tmp_path, says=spoken(QUESTION)) as phone:
        users, routes = {account.username: account.credential.password}, {"200": phone.uri}
        async with open_exchange(tmp_path, exchange[1], users, routes, algorithm=algorithm) as kamailio:
            ports: dict[str, Any] = {"tcp_port": 0} if transport == "tcp" else {}
            async with open_real_house(tmp_path, register_users=(account,), **ports) as house:
                await house.sip.until("in 200 REGISTER")
                await kamailio.until(f"kept 1001@{DOMAIN} for 3600")
                yield Line(house, phone, exchange)
                assert await house.owned() == NOTHING
            await kamailio.until(f"kept 1001@{DOMAIN} for 0")
            assert house.sip.find("out REGISTER", house.sip.flow.count("out REGISTER")).message.header("Expires") == "0"


@pytest.mark.rfc("3261", "10.2")
@pytest.mark.parametrize(("transport", "algorithm"), [("udp", "MD5"), ("udp", "SHA-256"), ("tcp", "MD5")])
async def test_an_account_is_registered_and_unregistered(tmp_path: Path, transport: str, algorithm: str) -> None:
    """One challenge, one answer; health says so; and after the end Kamailio knows nobody of that name."""
    async with open_line(tmp_path, transport, algorithm) as line:
        assert line.house.sip.flow == ["out REGISTER", "in 401 REGISTER", "out REGISTER", "in 200 REGISTER"]
        (account,) = line.house.server.registry.health().accounts
        assert (account.name, account.state, account.expires) == (f"1001@{DOMAIN}", "registered", 3600)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_account_is_called(tmp_path: Path, transport: str) -> None:
    """The phone calls the account's number: an agent answers, both are heard, and our BYE goes by Kamailio."""
    async with open_line(tmp_path, transport) as line:
        house, phone = line.house, line.phone
        async with called(house, phone, line.account_uri) as agent:
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            await agent.send("hangup")
            await over(agent, "system", "system")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        bye = house.sip.find("out BYE").message
        assert isinstance(bye, Request)
        assert [route.uri.port for route in bye.routes][-1] == line.exchange[1]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_account_calls(tmp_path: Path, transport: str) -> None:
    """The agent says who it is, and nothing of a password: 407 is answered, the phone rings, its BYE comes to us."""
    async with open_line(tmp_path, transport) as line:
        house, phone = line.house, line.phone
        async with house.agent() as agent:
            option = {"caller": f"sip:1001@{DOMAIN}", "callee": f"sip:200@{DOMAIN}", **SPEECH}
            await agent.send("invite", option=option)
            await phone.until("CALL_INCOMING")
            await phone.do("accept")
            await agent.until("answer")
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await phone.do("hangup")
            await over(agent, "callee", "callee")
        await phone.closed()
        assert [kind for kind in house.sip.flow if "INVITE" in kind][:3] == [
            "out INVITE",
            "in 407 INVITE",
            "out INVITE",
        ]
        bye = house.sip.find("in BYE").message
        assert [(via.host, via.port) for via in bye.vias] == [line.exchange, phone.address]


async def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    """Refused twice is refused: the account failed, with Kamailio's status, and nothing more is sent."""
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    account = attrs.evolve(documented_account(), outbound_proxy=f"sip:{LOOPBACK}:{port}")
    async with open_exchange(tmp_path, port, {"1001": "another"}, {}):
        async with open_real_house(tmp_path, register_users=(account,)) as house:
            await house.sip.until("in 401 REGISTER", 2)
            (told,) = house.server.registry.health().accounts
            assert (told.state, told.status) == ("failed", 401)
        assert house.sip.flow == ["out REGISTER", "in 401 REGISTER"] * 2
