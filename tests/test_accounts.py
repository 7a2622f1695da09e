"""Accounts of a whole server: configured, registered, called, shown in health, given back at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from rustpbx.accounts import accounts
from rustpbx.control.wire import health_body
from rustpbx.errors import ConfigError
from rustpbx.outbound import open_client
from rustpbx.settings import Credential, RegisterUser
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.house import House, Plan
from rustpbx.testing.registrar import Registrar
from tests.kit.house import PHONE, SERVER, server_config

PBX = "10.0.0.5"
USER = RegisterUser(
    server=f"{PBX}:5060",
    username="1001",
    display_name="Desk",
    credential=Credential(username="1001", password="secret"),
)


@asynccontextmanager
async def registered(registrar: Registrar, user: RegisterUser = USER) -> AsyncIterator[House]:
    """A server with the account; the registrar is up half a minute after it."""
    config = server_config()
    assert config.ua is not None
    plan = Plan(config=attrs.evolve(config, ua=attrs.evolve(config.ua, register_users=(user,))))
    async with House(plan).open() as house, trio.open_nursery() as nursery:
        await nursery.start(registrar.serve, house.wire.host(PBX), (PBX, 5060))
        await trio.sleep(120)
        yield house
        nursery.cancel_scope.cancel()


async def test_an_account_is_called_like_the_server_itself() -> None:
    """What the registrar knows as its Contact rings at an agent, and health says how the account stands."""
    registrar = Registrar(users={"1001": "secret"})
    async with registered(registrar) as house:
        (contact,) = registrar.contacts("1001")
        assert str(contact) == f"sip:1001@{SERVER}:5060"
        call = await house.phone.dial(str(contact))
        async with house.incoming() as (agent, announced):
            assert announced["callee"] == f"sip:1001@{SERVER}:5060"
            await agent.send("accept", option={})
            await call.answered()
            await agent.send("hangup")
            await agent.ended()
        (account,) = health_body(house.server.registry.health())["useragent"]["accounts"]  # type: ignore[index]
        assert {name: account[name] for name in ("name", "registrar", "state", "expires", "status", "reason")} == {
            "name": "1001@10.0.0.5:5060",
            "registrar": "sip:10.0.0.5:5060",
            "state": "registered",
            "expires": 3600,
            "status": 200,
            "reason": "OK",
        }


@pytest.mark.rfc("3261", "12.1.1")
async def test_a_call_to_the_account_comes_through_its_registrar() -> None:
    """Dialled by its address; the registrar stays in the path, and the BYE of either side goes through it."""
    registrar = Registrar(users={"1001": "secret"})
    async with registered(registrar) as house:
        for number, who in enumerate(("agent", "phone"), 1):
            call = await house.phone.dial(f"sip:1001@{PBX}")
            async with house.incoming() as (agent, announced):
                assert announced["callee"] == f"sip:1001@{PBX}"
                await agent.send("accept", option={})
                await call.answered()
                if who == "agent":
                    await agent.send("hangup")
                else:
                    call.hang_up()
                await agent.ended()
                await call.ended()
            assert len(registrar.byes) == number
        assert [bye.via.host for bye in registrar.byes] == [SERVER, PHONE]


@pytest.mark.parametrize("proxy", [None, f"sip:{PBX}"])
async def test_the_account_calls_with_its_password(proxy: str | None) -> None:
    """The registrar asks who calls (407), and is told without a word from the agent; so it is through a proxy."""
    registrar = Registrar(users={"1001": "secret"})
    async with registered(registrar, attrs.evolve(USER, outbound_proxy=proxy)) as house, house.agent() as agent:
        callee = f"sip:phone@{PBX}" if proxy is None else house.phone.uri
        registrar.bind("phone", house.phone.uri)
        await agent.send("invite", option={"caller": f"sip:1001@{PBX}", "callee": callee})
        call = await house.phone.ring()
        call.answer()
        await agent.until("answer")
        await agent.send("hangup")
        await agent.ended()
        await call.ended()
    asked, proven = registrar.invites
    assert (asked.header("Proxy-Authorization"), asked.call_id) == (None, proven.call_id)
    assert [(str(invite.from_.uri), invite.from_.display_name) for invite in registrar.invites] == 2 * [
        (f"sip:1001@{PBX}", "Desk")
    ]
    assert len(registrar.byes) == 1


async def test_behind_a_proxy_nobody_else_has_to_be_found() -> None:
    """A domain that no name server knows is called through the account's proxy, which knows it."""
    registrar = Registrar(domain="office.test")
    user = attrs.evolve(USER, domain="office.test", outbound_proxy=f"sip:{PBX}")
    async with registered(registrar, user) as house, house.agent() as agent:
        registrar.bind("200", house.phone.uri)
        await agent.send("invite", option={"caller": "sip:1001@office.test", "callee": "sip:200@office.test"})
        call = await house.phone.ring()
        assert str(registrar.invites[0].uri) == "sip:200@office.test"
        call.reject(486)
        assert (await agent.until("reject"))["code"] == 486


async def test_another_password_of_the_agent_wins() -> None:
    """Credentials in the invite are used instead of the account's: here they are wrong."""
    registrar = Registrar(users={"1001": "secret"})
    async with registered(registrar) as house, house.agent() as agent:
        sip = {"username": "1001", "password": "wrong"}
        await agent.send("invite", option={"caller": f"sip:1001@{PBX}", "callee": f"sip:x@{PBX}", "sip": sip})
        assert (await agent.until("reject"))["code"] == 407


async def test_health_says_it_over_http_without_a_password() -> None:
    """`GET /health` has the account, its state and since when, and nothing that could be used."""
    registrar = Registrar(users={"1001": "secret"})
    async with registered(registrar) as house, open_client(house.agents) as client:
        answer = await client.get(f"http://{SERVER}:8080/health")
        assert answer.json()["useragent"]["accounts"][0]["state"] == "registered"
        assert "secret" not in answer.text


@pytest.mark.parametrize("graceful", [True, False])
async def test_at_the_end_the_registrar_is_told_if_we_are_graceful(graceful: bool) -> None:
    """Expires 0 before the server is gone, or nothing at all."""
    registrar = Registrar(users={"1001": "secret"})
    config = server_config()
    assert config.ua is not None
    ua = attrs.evolve(config.ua, register_users=(USER,), graceful_shutdown=graceful)
    async with trio.open_nursery() as nursery:
        async with House(Plan(config=attrs.evolve(config, ua=ua))).open() as house:
            await nursery.start(registrar.serve, house.wire.host(PBX), (PBX, 5060))
            await trio.sleep(120)
            assert registrar.contacts("1001")
        assert bool(registrar.contacts("1001")) is not graceful
        nursery.cancel_scope.cancel()


def test_accounts_of_a_configuration() -> None:
    """Server, domain, transport, proxy and password; those that are disabled are left out."""
    users = (
        USER,
        attrs.evolve(USER, disabled=True),
        RegisterUser(
            server="sip:pbx.example.com",
            username="desk",
            domain="example.com",
            transport="tls",
            outbound_proxy="proxy.example.com:5070",
            expires=120,
            nat="off",
            q=0.5,
            instance="urn:uuid:0a",
        ),
    )
    first, second = accounts(users)
    assert (first.name, str(first.aor.uri), str(first.registrar)) == (
        "1001@10.0.0.5:5060",
        "sip:1001@10.0.0.5",
        "sip:10.0.0.5:5060",
    )
    assert first.credentials is not None
    assert (first.credentials.username, first.credentials.password) == ("1001", "secret")
    assert str(second.aor.uri) == "sip:desk@example.com"
    assert str(second.registrar) == "sip:pbx.example.com;transport=tls"
    assert second.outbound_proxy == parse_uri("sip:proxy.example.com:5070")
    assert (second.expires, second.nat, second.credentials) == (120, False, None)
    assert (second.q, second.instance) == (0.5, "urn:uuid:0a")


@pytest.mark.parametrize(
    ("users", "path", "problem"),
    [
        ((USER, USER), "ua.register_users[1]", "1001@10.0.0.5:5060 is there twice"),
        ((attrs.evolve(USER, server="sip:"),), "ua.register_users[0].server", ""),
        ((attrs.evolve(USER, outbound_proxy="a b"),), "ua.register_users[0].outbound_proxy", ""),
    ],
)
def test_an_account_that_is_none_is_named(users: tuple[RegisterUser, ...], path: str, problem: str) -> None:
    """The error has the place in the configuration."""
    with pytest.raises(ConfigError) as caught:
        accounts(users)
    assert caught.value.path == path
    assert problem in caught.value.problem
