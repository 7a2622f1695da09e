"""The account that some random calls' server has, and its registrar, which may be of any kind."""

from __future__ import annotations

import random

import attrs
import trio

from rustpbx.settings import Credential, RegisterUser
from rustpbx.testing.house import House, Plan
from rustpbx.testing.registrar import Registrar

PBX = "10.0.0.5"
BINDING = 33.0
"""Virtual seconds after which an account is bound, if that is possible at all."""

ACCOUNT = RegisterUser(
    server=f"{PBX}:5060", username="1001", credential=Credential(username="1001", password="secret"), expires=90
)


def add_account(plan: Plan, rng: random.Random) -> Registrar | None:
    """Now and then the server has an account, whose registrar may be of any kind; the phone can call it there."""
    ua = plan.config.ua
    if ua is None or rng.random() < 0.7:
        return None
    plan.config = attrs.evolve(plan.config, ua=attrs.evolve(ua, register_users=(ACCOUNT,), graceful_shutdown=True))
    return Registrar(
        users={"1001": rng.choice(["secret"] * 8 + ["other"])},
        algorithm=rng.choice(["MD5", "SHA-256"]),
        grant=rng.choice([60, 90, 3600]),
        least=rng.choice([0, 0, 0, 120]),
        status=rng.choice([None] * 6 + [503]),
        silent=rng.random() < 0.1,
    )


async def check_account(house: House, registrar: Registrar, *, forged: bool) -> None:
    """One Call-ID for all REGISTERs, CSeq counting up; bound while the registrar wants it, not when we have left."""
    assert house.server.stack is not None
    await trio.sleep(BINDING)  # a call may have been over before the account was bound
    willing = not registrar.silent and registrar.status is None and registrar.users == {"1001": "secret"}
    if not forged:  # who sees a REGISTER can answer it
        assert bool(registrar.contacts("1001")) is willing, registrar
    await house.server.stack.unregister_all(5.0)
    assert registrar.contacts("1001") == []
    assert len({request.call_id for request in registrar.requests}) <= 1
    numbers = [request.cseq.number for request in registrar.requests]
    assert numbers == sorted(numbers), numbers
