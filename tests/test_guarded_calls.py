"""Whole calls to a server that asks who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from rustpbx.settings import AuthConfig, LimitsConfig, SipUser
from rustpbx.sip.events import CallRefused, Credentials
from rustpbx.testing.house import PHONE
from rustpbx.values import network
from tests.kit.house import House, server_config
from tests.test_calls import DIAL, over, quiet_house

PASSWORD = "secret"
AUTH = AuthConfig(users=(SipUser(username="phone", password=PASSWORD),))


@asynccontextmanager
async def guarded_house(auth: AuthConfig | None = AUTH, **limits: Any) -> AsyncIterator[House]:
    """A house whose server has `[ua.auth]` and `[ua.limits]`."""
    config = server_config()
    assert config.ua is not None
    ua = attrs.evolve(config.ua, auth=auth, limits=LimitsConfig(**limits))
    async with quiet_house(config=attrs.evolve(config, ua=ua)) as house:
        yield house


async def talk(house: House, credentials: Credentials | None = None) -> None:
    """A call that is accepted and hung up."""
    call = await house.phone.dial(DIAL, credentials=credentials)
    async with house.incoming() as (agent, _):
        await agent.send("accept", option={})
        await call.answered()
        await agent.send("hangup")
        await over(agent)


async def refused(house: House, credentials: Credentials | None = None) -> int:
    """The status that a call is refused with."""
    call = await house.phone.dial(DIAL, credentials=credentials)
    return (await call.until(CallRefused)).status


async def test_with_a_password_the_call_comes_through() -> None:
    """Challenged once, proven, answered; nobody hears of the calls of others."""
    async with guarded_house() as house:
        await talk(house, Credentials("phone", PASSWORD))
        assert await refused(house) == 401
        assert await refused(house, Credentials("phone", "wrong")) == 401
        assert house.server.registry.health().total == 1


async def test_a_trusted_network_needs_none() -> None:
    """Its calls come as they are."""
    async with guarded_house(attrs.evolve(AUTH, trusted=(network(PHONE),))) as house:
        await talk(house)


async def test_a_server_that_drops_strangers_is_not_there() -> None:
    """No answer at all: the phone gives up as if there were nobody."""
    async with guarded_house(attrs.evolve(AUTH, unknown="drop")) as house:
        assert await refused(house) == 408
        await trio.sleep(60)


async def test_a_source_has_so_many_calls_at_a_time() -> None:
    """The second call is told to come later, and comes when the first is over."""
    async with guarded_house(None, calls=1) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await call.answered()
            assert await refused(house) == 503
            await agent.send("hangup")
            await over(agent)
        await trio.sleep(1)
        await talk(house)
