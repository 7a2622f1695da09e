"""Registrations: a stack against a scripted registrar on an in-memory wire, in virtual time."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from rustpbx.shell.clock import TrioClock
from rustpbx.shell.records import Srv
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Account, Credentials, SendInvite
from rustpbx.sip.message import NameAddr
from rustpbx.sip.registration import FIRST_PAUSE, LONGEST_PAUSE, REFUSED_PAUSE, STOP_LIMIT
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.uri import Uri, parse_uri
from rustpbx.testing.nat import FULL_CONE
from rustpbx.testing.registrar import Registrar
from rustpbx.testing.wire import Wire, open_wire

SERVER, PBX, SECOND = "10.0.0.1", "10.0.0.5", "10.0.0.6"
CREDENTIALS = Credentials("1001", "secret", "registrar")
ACCOUNT = Account(
    name="desk",
    aor=NameAddr(Uri("sip", "1001", None, PBX), "Desk"),
    registrar=Uri("sip", None, None, PBX),
    credentials=CREDENTIALS,
)


@asynccontextmanager
async def town(registrar: Registrar, *accounts: Account, wire: Wire | None = None) -> AsyncIterator[Stack]:
    """A stack whose accounts begin to register with the registrar at `PBX`."""
    if wire is None:
        async with open_wire(seed=1) as calm, town(registrar, *accounts, wire=calm) as stack:
            yield stack
        return
    stack = Stack(EndpointConfig(), wire.host(SERVER), TrioClock(epoch=0.0), SERVER, 5060, rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        await nursery.start(registrar.serve, wire.host(PBX), (PBX, 5060))
        await nursery.start(stack.run)
        for account in accounts or (ACCOUNT,):
            stack.register(account)
        yield stack
        nursery.cancel_scope.cancel()


def secured(**options: Any) -> Registrar:
    """A registrar that wants the password."""
    return Registrar(users={"1001": "secret", "1002": "other"}, **options)


def states(stack: Stack) -> list[str]:
    """How the accounts stand."""
    return [standing.state for standing in stack.accounts.standings]


@pytest.mark.rfc("3261", "10.2")
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.rfc("3665", "2.1")
async def test_an_account_registers_with_its_password(algorithm: str) -> None:
    """The challenge is answered, the Contact is where we listen, and the state says for how long."""
    registrar = secured(algorithm=algorithm, grant=1800)
    async with town(registrar) as stack:
        await trio.sleep(1)
        (standing,) = stack.accounts.standings
        assert (standing.state, standing.expires, standing.status) == ("registered", 1800, 200)
        assert registrar.contacts("1001") == [parse_uri(f"sip:1001@{SERVER}:5060")]
    first, second = registrar.requests
    assert (first.call_id, first.cseq.number + 1) == (second.call_id, second.cseq.number)
    assert (str(second.uri), second.from_.display_name, str(second.to.uri)) == (
        f"sip:{PBX}",
        "Desk",
        f"sip:1001@{PBX}",
    )
    assert second.from_.tag == first.from_.tag


@pytest.mark.rustpbx(limit=100_000)
@pytest.mark.rfc("3261", "10.2.4")
async def test_it_is_refreshed_in_time_for_a_day() -> None:
    """Each refresh comes between 65 and 75 % of what was granted, CSeq rises, and the registrar never forgets us."""
    registrar = secured(grant=600)
    async with town(registrar) as stack:
        for _ in range(24 * 60):
            await trio.sleep(60)
            assert registrar.contacts("1001")
        assert states(stack) == ["registered"]
    pairs = itertools.pairwise(registrar.at[1:])
    gaps = [later - earlier for earlier, later in pairs]
    assert all(0.65 * 600 <= gap <= 0.75 * 600 for gap in gaps)
    assert len(set(gaps)) > 10  # not all of us at the same moment
    numbers = [request.cseq.number for request in registrar.requests]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_stale_nonce_is_no_refusal() -> None:
    """The registrar's nonce is over at a refresh: the next one is used at once."""
    registrar = secured(grant=600)
    async with town(registrar) as stack:
        await trio.sleep(1)
        registrar.forget_nonces()
        await trio.sleep(600)
        assert states(stack) == ["registered"]


@pytest.mark.rfc("3261", "10.2.8")
async def test_an_interval_that_is_too_brief_is_made_longer() -> None:
    """423 with Min-Expires: asked again for that, and only for that."""
    registrar = secured(least=7200, grant=86400)
    async with town(registrar, attrs.evolve(ACCOUNT, expires=60)) as stack:
        await trio.sleep(1)
        assert stack.accounts.standings[0].expires == 7200
    assert [request.header("Expires") for request in registrar.requests] == ["60", "60", "7200"]


async def test_a_423_that_makes_no_sense_is_a_refusal() -> None:
    """Min-Expires that is missing, not more than was asked for, or beyond a day, is not obeyed."""
    for lines in ((), (("Min-Expires", "10"),), (("Min-Expires", "4000000"),), (("Min-Expires", "soon"),)):
        registrar = Registrar(status=423, lines=lines)
        async with town(registrar) as stack:
            await trio.sleep(10)
            assert (states(stack), len(registrar.requests)) == (["failed"], 1)


@pytest.mark.rfc("3665", "2.5")
async def test_a_wrong_password_is_not_tried_again_and_again() -> None:
    """Refused twice means refused: the next try is ten minutes away at least."""
    registrar = secured()
    account = attrs.evolve(ACCOUNT, credentials=Credentials("1001", "wrong", "registrar"))
    async with town(registrar, account) as stack:
        await trio.sleep(REFUSED_PAUSE - 1)
        assert (states(stack), stack.accounts.standings[0].status, len(registrar.requests)) == (["failed"], 401, 2)
        await trio.sleep(10)
        assert len(registrar.requests) == 4


async def test_a_password_is_for_its_own_realm_only() -> None:
    """Another realm that asks for it gets nothing."""
    registrar = secured(realm="elsewhere")
    async with town(registrar) as stack:
        await trio.sleep(10)
        assert (states(stack), len(registrar.requests)) == (["failed"], 1)
    assert registrar.requests[0].header("Authorization") is None


@pytest.mark.rustpbx(limit=100_000)
async def test_trouble_makes_the_pauses_longer_up_to_a_limit() -> None:
    """A busy registrar is asked after about 60, 120, 240 s ... and at most every half hour; then it works again."""
    registrar = secured(status=500)
    async with town(registrar) as stack:
        await trio.sleep(6 * 3600)
        assert states(stack) == ["failed"]
        gaps = [later - earlier for earlier, later in itertools.pairwise(registrar.at)]
        assert all(0.5 * FIRST_PAUSE * 2**n <= gap <= FIRST_PAUSE * 2**n for n, gap in enumerate(gaps[:5]))
        assert all(0.5 * LONGEST_PAUSE <= gap <= LONGEST_PAUSE for gap in gaps[6:])
        registrar.status = None
        await trio.sleep(LONGEST_PAUSE)
        assert states(stack) == ["registered"]


async def test_retry_after_is_obeyed() -> None:
    """503 with Retry-After: not before that, but within reason."""
    registrar = secured(status=503, lines=(("Retry-After", "900"),))
    async with town(registrar):
        await trio.sleep(899)
        assert len(registrar.requests) == 1
        await trio.sleep(60)
        assert len(registrar.requests) == 2


async def test_a_registrar_that_is_silent_is_tried_again() -> None:
    """No answer at all is a failure like others, told as one."""
    registrar = secured(silent=True)
    async with town(registrar) as stack:
        await trio.sleep(40)
        assert (states(stack), stack.accounts.standings[0].status) == (["failed"], 408)
        registrar.silent = False
        await trio.sleep(FIRST_PAUSE)
        assert states(stack) == ["registered"]


async def test_a_200_without_our_contact_is_no_registration() -> None:
    """The registrar forgets whom it has just taken: told, and tried again later."""
    async with town(secured(forgets=True)) as stack:
        await trio.sleep(1)
        (standing,) = stack.accounts.standings
        assert (standing.state, standing.reason) == ("failed", "the registrar does not keep our Contact")


@pytest.mark.rfc("3261", "10.2.2")
@pytest.mark.rfc("3665", "2.4")
async def test_all_accounts_leave_together_and_a_dead_registrar_holds_nobody_up() -> None:
    """Expires 0 to each at once; who does not answer costs the limit and no more."""
    registrar = secured()
    nowhere = Uri("sip", None, None, "10.0.0.66")
    elsewhere = attrs.evolve(ACCOUNT, name="dead", registrar=nowhere, aor=NameAddr(parse_uri("sip:1001@10.0.0.66")))
    second = attrs.evolve(
        ACCOUNT,
        name="second",
        aor=NameAddr(Uri("sip", "1002", None, PBX)),
        credentials=Credentials("1002", "other", "registrar"),
    )
    async with town(registrar, ACCOUNT, second, elsewhere) as stack:
        await trio.sleep(5)
        assert states(stack) == ["registered", "registered", "registering"]
        began = trio.current_time()
        await stack.unregister_all(5.0)
        assert trio.current_time() - began <= STOP_LIMIT
        assert (registrar.contacts("1001"), registrar.contacts("1002")) == ([], [])
        assert states(stack) == ["unregistered", "unregistered", "unregistered"]
    assert [request.header("Expires") for request in registrar.requests[-2:]] == ["0", "0"]


@pytest.mark.rfc("3581", "4")
@pytest.mark.rfc("3665", "2.2")
async def test_behind_a_nat_the_registrar_learns_where_we_can_be_reached() -> None:
    """The Contact becomes what the registrar sees, and the useless one is taken back; without `nat` it stays."""
    for nat in (True, False):
        registrar = secured()
        async with open_wire(seed=1) as wire:
            wire.nat("203.0.113.7", [SERVER], FULL_CONE)
            async with town(registrar, attrs.evolve(ACCOUNT, nat=nat), wire=wire) as stack:
                await trio.sleep(2)
                assert states(stack) == ["registered"]
                (contact,) = registrar.contacts("1001")
                assert (contact.host == "203.0.113.7") is nat


@pytest.mark.rfc("3263", "4.3")
async def test_one_server_of_a_registrar_is_enough() -> None:
    """The first of two is silent: registered at the second within seconds, refreshed and taken back there."""
    first, second = secured(silent=True), secured(grant=600)
    name = Uri("sip", None, None, "office.test")
    account = attrs.evolve(ACCOUNT, registrar=name, aor=NameAddr(Uri("sip", "1001", None, "office.test")))
    async with open_wire(seed=1) as wire, trio.open_nursery() as nursery:
        wire.zone.add("_sip._udp.office.test", Srv(1, 0, 5060, "one.office.test"), Srv(2, 0, 5060, "two.office.test"))
        wire.names |= {"one.office.test": (PBX,), "two.office.test": (SECOND,)}
        await nursery.start(second.serve, wire.host(SECOND), (SECOND, 5060))
        async with town(first, account, wire=wire) as stack:
            await trio.sleep(5)
            assert states(stack) == ["registered"]
            assert second.contacts("1001") == [parse_uri(f"sip:1001@{SERVER}:5060")]
            await trio.sleep(3600)
            assert len(first.requests) == 1  # refreshes went where the registration is
            first.silent = False
            await stack.unregister_all(5.0)
            assert (states(stack), second.contacts("1001")) == (["unregistered"], [])
        nursery.cancel_scope.cancel()


@pytest.mark.rfc("3608", "6.1")
async def test_a_call_of_the_account_has_its_password_and_goes_through_its_proxy() -> None:
    """An INVITE whose caller is the account's address: the registrar's Service-Route behind the account's own proxy."""
    registrar = Registrar(lines=(("Service-Route", "<sip:edge.example;lr>"),))
    account = attrs.evolve(ACCOUNT, outbound_proxy=Uri("sip", None, None, PBX))
    async with town(registrar, account) as stack:
        await trio.sleep(1)
        seen: list[bytes] = []
        stack.trace = lambda traced: seen.append(traced.data)
        callee = parse_uri("sip:2000@example.com")
        caller = NameAddr(parse_uri(f"sip:1001@{PBX}"))
        stack.wish(SendInvite(leg="a", caller=caller, callee=callee, body=b"", local_host=SERVER))
        await trio.sleep(0.1)
    invite = seen[0].decode()
    assert invite.startswith("INVITE sip:2000@example.com SIP/2.0\r\n")
    routes = [line for line in invite.split("\r\n") if line.startswith("Route: ")]
    assert routes == [f"Route: <sip:{PBX};lr>", "Route: <sip:edge.example;lr>"]
    assert 'From: "Desk" <sip:1001@' in invite
