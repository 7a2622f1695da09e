"""Transactions alone: what is sent when, and what is told, on both kinds of transport."""

from __future__ import annotations

import math

import pytest

from rustpbx.core import Tick
from rustpbx.sip.events import Send, Undeliverable
from rustpbx.sip.message import Response
from rustpbx.sip.tables import (
    InviteClient,
    InviteServer,
    PendingAckAction,
    PendingAckTrigger,
    RequestClient,
    RequestServer,
)
from rustpbx.sip.timing import Timing
from rustpbx.sip.transaction import AckWait, Cancelled, ClientTransaction, Failed, Heard, ServerTransaction, ack_for
from tests.kit.peers_sip import ALICE, BOB, invite, reply, request, udp

Transaction = ClientTransaction | ServerTransaction


def run(transaction: Transaction, until: float = math.inf) -> list[tuple[float, str]]:
    """Tick at every deadline; when something happened, and what."""
    seen: list[tuple[float, str]] = []
    while (at := transaction.deadline().at) <= until and at < math.inf:
        seen += [(at, type(effect).__name__) for effect in transaction.handle(Tick(), at)]
    return seen


def client(method: str = "INVITE", timing: Timing | None = None) -> ClientTransaction:
    """A started client transaction."""
    transaction = ClientTransaction(invite() if method == "INVITE" else request(method), udp(BOB), timing or Timing())
    assert [type(effect) for effect in transaction.start(0.0)] == [Send]
    return transaction


def server(method: str = "INVITE", timing: Timing | None = None) -> ServerTransaction:
    """A new server transaction."""
    return ServerTransaction(request(method), udp(ALICE), udp(ALICE), timing or Timing())


def heard(transaction: ClientTransaction, status: int) -> Heard:
    """Bob's response to the transaction's request."""
    return Heard(reply(transaction.request, status), udp(BOB))


@pytest.mark.rfc("3261", "17.1.1.2")
def test_invite_is_resent_with_doubling_intervals_and_given_up_at_32_seconds() -> None:
    """Timer A doubles without a cap, timer B ends it (17.1.1.2)."""
    transaction = client()
    sends = [(at, "Send") for at in (0.5, 1.5, 3.5, 7.5, 15.5, 31.5)]
    assert run(transaction) == [*sends, (32.0, "Failed")]
    assert transaction.done


@pytest.mark.rfc("3261", "17.1.2.2")
def test_other_requests_are_resent_at_most_every_t2_and_given_up_at_32_seconds() -> None:
    """Timer E doubles up to T2, timer F ends it (17.1.2.2)."""
    times = (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)
    assert run(client("OPTIONS")) == [*[(at, "Send") for at in times], (32.0, "Failed")]


def test_a_provisional_slows_a_request_down_to_t2_but_does_not_save_it() -> None:
    """In PROCEEDING timer E is T2 and timer F still runs."""
    transaction = client("OPTIONS")
    provisional = heard(transaction, 100)
    assert transaction.handle(provisional, 0.1) == [provisional]
    assert run(transaction)[:3] == [(0.5, "Send"), (4.5, "Send"), (8.5, "Send")]
    assert transaction.done


def test_reliable_transport_resends_nothing_and_does_not_linger() -> None:
    """Other durations, same rows."""
    assert run(client("INVITE", Timing(reliable=True))) == [(32.0, "Failed")]
    transaction = client("INVITE", Timing(reliable=True))
    transaction.handle(heard(transaction, 486), 1.0)
    assert run(transaction, 1.0) == []
    assert transaction.done


@pytest.mark.rfc("3261", "17.1.1.2")
def test_failure_is_acknowledged_in_the_transaction_and_each_copy_again() -> None:
    """17.1.1.2: ACK with the INVITE's branch; the copy is not passed up; timer D is 32 s."""
    transaction = client()
    busy = heard(transaction, 486)
    effects = transaction.handle(busy, 1.0)
    ack, up = effects
    assert up == busy
    assert transaction.handle(busy, 2.0) == [ack]
    built = ack_for(transaction.request, busy.response)
    assert (built.via, built.cseq.method, built.to.tag) == (transaction.request.via, "ACK", "bob-tag")
    assert run(transaction) == []
    assert transaction.done


@pytest.mark.rfc("6026", "7.2")
def test_every_copy_of_a_success_is_passed_up_until_timer_m() -> None:
    """RFC 6026 7.2: ACCEPTED."""
    transaction = client()
    success = heard(transaction, 200)
    assert transaction.handle(success, 1.0) == [success]
    assert transaction.handle(success, 2.0) == [success]
    assert transaction.state is InviteClient.ACCEPTED
    assert transaction.deadline().at == 33.0


@pytest.mark.rfc("3261", "9.1")
def test_a_cancelled_invite_nobody_answers_is_given_up_after_64_t1() -> None:
    """Section 9.1."""
    transaction = client()
    transaction.handle(heard(transaction, 180), 1.0)
    assert transaction.handle(Cancelled(), 10.0) == []
    assert run(transaction) == [(42.0, "Failed")]


@pytest.mark.rfc("3261", "16.6")
def test_a_ringing_invite_is_not_resent_and_ends_above_the_ring_limit() -> None:
    """Timer C (16.6) only guards against a call that never cancels."""
    transaction = client("INVITE", Timing(ring_limit=60))
    transaction.handle(heard(transaction, 180), 1.0)
    assert run(transaction) == [(93.0, "Failed")]


@pytest.mark.rfc("3261", "8.1.3.1")
@pytest.mark.parametrize("method", ["INVITE", "BYE"])
def test_undeliverable_is_503(method: str) -> None:
    """8.1.3.1: a transport error counts as 503."""
    transaction = client(method)
    assert transaction.handle(Undeliverable("z9hG4bKone", "no route"), 0.1) == [Failed(503, "no route")]
    assert transaction.done


def test_final_response_to_a_request_lingers_for_t4() -> None:
    """Timer K absorbs copies."""
    transaction = client("BYE")
    ok = heard(transaction, 200)
    assert transaction.handle(ok, 1.0) == [ok]
    assert transaction.handle(ok, 2.0) == []
    assert (transaction.state, transaction.deadline().at) == (RequestClient.COMPLETED, 6.0)


def answer(transaction: ServerTransaction, status: int) -> Response:
    """Our response."""
    return reply(transaction.request, status)


@pytest.mark.rfc("3261", "17.2.1")
def test_refused_invite_is_resent_until_the_ack_and_at_most_32_seconds() -> None:
    """Timers G and H (17.2.1)."""
    transaction = server()
    transaction.handle(answer(transaction, 486), 0.0)
    times = (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)
    assert run(transaction) == [(at, "Send") for at in times]
    assert transaction.done


def test_ack_stops_the_resending_and_timer_i_absorbs_copies() -> None:
    """CONFIRMED lasts T4."""
    transaction = server()
    transaction.handle(answer(transaction, 486), 0.0)
    assert transaction.handle(request("ACK"), 0.2) == []
    assert (transaction.state, transaction.deadline().at) == (InviteServer.CONFIRMED, 5.2)
    assert run(transaction) == []


def test_copies_of_a_request_get_the_last_response_again() -> None:
    """The copy never reaches the user; before any response there is nothing to send."""
    transaction = server()
    assert transaction.handle(transaction.request, 0.0) == []
    ringing = transaction.handle(answer(transaction, 180), 0.1)
    assert transaction.handle(transaction.request, 0.5) == ringing
    transaction.handle(answer(transaction, 200), 1.0)
    assert transaction.handle(transaction.request, 1.5) == []
    assert (transaction.state, transaction.deadline().at) == (InviteServer.ACCEPTED, 33.0)


def test_second_final_response_is_not_sent() -> None:
    """A transaction has one final response."""
    transaction = server("BYE")
    first = transaction.handle(answer(transaction, 200), 0.0)
    assert transaction.handle(answer(transaction, 500), 0.1) == []
    assert transaction.handle(transaction.request, 0.2) == first
    assert (transaction.state, transaction.deadline().at) == (RequestServer.COMPLETED, 32.0)


def ack_wait() -> AckWait:
    """Our 200 to an INVITE."""
    wait = AckWait(reply(invite(), 200), udp(ALICE), Timing(reliable=True))
    wait.start(0.0)
    return wait


@pytest.mark.rfc("3261", "13.3.1.4")
def test_success_is_resent_until_64_t1_even_over_a_reliable_transport() -> None:
    """13.3.1.4."""
    wait, seen = ack_wait(), []
    while (at := wait.deadline().at) < math.inf:
        seen += [(at, type(effect).__name__) for effect in wait.tick(at)]
    times = (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)
    assert seen == [*[(at, "Send") for at in times], (32.0, "PendingAckAction")]


def test_ack_or_the_end_of_the_call_stops_the_success() -> None:
    """One ACK is reported, the end of the call is not."""
    wait = ack_wait()
    assert wait.step(PendingAckTrigger.ACK, 0.1) == [PendingAckAction.REPORT_ACK]
    assert (wait.step(PendingAckTrigger.ACK, 0.2), wait.done) == ([], True)
    ended = ack_wait()
    assert (ended.step(PendingAckTrigger.CALL_ENDED, 0.1), ended.done) == ([], True)
