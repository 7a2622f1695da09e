"""The server inside a Trio program: two servers call each other, and calls end in every way a program can end."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import get_args, get_type_hints

import attrs
import pytest
import trio
import trio.testing

from rustpbx import Call, CallEndedError
from rustpbx.embed.call import CallFields
from rustpbx.errors import LocalError, OverloadedError
from rustpbx.session import commands, events
from rustpbx.session.options import CallOption
from rustpbx.session.shell.attachment import OUTBOX
from rustpbx.settings import UaConfig
from rustpbx.sip import events as sip
from tests.kit.embed import ASR, TTS, VAD, Pair, repeat, two_servers
from tests.kit.house import SERVER, House, open_house, server_config

NO_WEBHOOK = server_config(ua=UaConfig(addr=SERVER, udp_port=5060, accept_timeout=50.0))
DIAL = f"sip:800@{SERVER}:5060"


async def names_until_the_end(call: Call) -> list[str]:
    """The names of all events of a call that are still to come."""
    return [event.name async for event in call]


async def next_of(call: Call, kind: type[events.Event]) -> events.Event:
    """The next event of that kind; those before it are dropped."""
    async for event in call:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the call ended before any {kind.__name__}")


# -- two servers in one program -------------------------------------------------------------------------------------


def refused(cause: sip.Fact | None) -> tuple[int, str]:
    """Status and reason phrase of a phone's ending."""
    assert isinstance(cause, sip.CallRefused)
    return cause.status, cause.reason


async def test_two_servers_in_one_program_call_each_other() -> None:
    """Alice's program places a call, Bob's answers; both speak and hear, Alice hangs up, and nothing is left."""
    bobs: list[Call] = []

    async def answer(call: Call) -> None:
        bobs.append(call)
        await repeat(call)

    async with two_servers() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.bob.each_call, answer)
        await trio.testing.wait_all_tasks_blocked()
        async with pair.alice.call() as call:
            answered = await call.invite(caller="sip:alice@10.0.0.11", callee=pair.bob_uri, asr=ASR, tts=TTS, vad=VAD)
            assert "m=audio" in answered.sdp
            greeting = await next_of(call, events.AsrFinal)
            await call.tts("good morning", end_of_stream=True)
            reply = await next_of(call, events.AsrFinal)
            assert [getattr(event, "text", None) for event in (greeting, reply)] == ["hello", "you said good morning"]
            await call.hangup(reason="done")
            assert (await names_until_the_end(call))[-1] == "hangup"
        (theirs,) = bobs
        await theirs.wait_ended()
        assert call.ending is not None
        assert theirs.ending is not None
        assert (call.ending.reason, call.ending.initiator) == ("done", "system")
        assert (theirs.ending.reason, theirs.ending.initiator) == ("caller", "caller")
        nursery.cancel_scope.cancel()


async def test_an_incoming_call_says_who_calls() -> None:
    """Id, parties and header fields are there at once, as the INVITE had them."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        await house.phone.dial(DIAL, headers=(("X-Tenant", "blue"), ("X-Tenant", "red")))
        call = await anext(calls)
        (summary,) = house.server.registry.summaries()
        assert call.incoming
        assert (call.id, call.caller, call.callee) == (summary.session_id, house.phone.uri, DIAL)
        assert (call.header("x-tenant"), call.header("X-Other")) == ("blue", None)
        assert "X-Tenant: red" in call.headers
        assert repr(call) == f"<Call {call.id} {call.caller} -> {call.callee}, not answered>"
        async with call:
            answer = await call.accept(CallOption(denoise=False, extra={"a": "b"}), asr=ASR)
            assert answer == events.Answered(track_id=call.id, timestamp=answer.timestamp, sdp=answer.sdp)
            assert house.server.registry.summaries()[0].option == CallOption(extra={"a": "b"}, asr=ASR)
            assert (call.answered, call.ended, call.ending) == (True, False, None)
        assert (call.answered, call.ended) == (True, True)
        assert call.ending is not None
        assert call.ending.extra == {"a": "b"}
        assert repr(call) == f"<Call {call.id} {call.caller} -> {call.callee}, ended>"


async def test_each_command_of_the_protocol_is_a_method() -> None:
    """Every command has a method of its name whose parameters are the command's fields, with the same defaults."""
    for kind in get_args(commands.Command):
        if kind is commands.Candidate:  # of the browser's side
            continue
        method = inspect.signature(getattr(Call, kind.name))
        given = {name: p.default for name, p in method.parameters.items() if name != "self"}
        if kind in (commands.Invite, commands.Accept):
            rest = ["headers"] if kind is commands.Accept else []
            assert list(given) == ["option", *rest, "fields"]
            continue
        fields = {
            f.name: inspect.Parameter.empty if f.default is attrs.NOTHING else f.default for f in attrs.fields(kind)
        }
        if kind is commands.Reject:
            fields["reason"] = ""
        assert given == fields, kind.name
    assert get_type_hints(CallFields) == {f.name: get_type_hints(CallOption)[f.name] for f in attrs.fields(CallOption)}


async def test_commands_reach_the_call_as_they_do_over_a_socket() -> None:
    """Ringing with early media, playback, muting, notes: what comes back are the events that a socket would get."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        async with await anext(calls) as call:
            await call.ringing()
            assert (await phone.progressed()).status == 180
            await call.ringing(early_media=True)
            assert (await phone.progressed(2)).status == 183
            await call.accept(tts=TTS)
            await call.tts("one two three", play_id="a")
            await call.pause()
            await call.resume()
            await call.mute()
            await call.unmute()
            await call.interrupt(graceful=True)
            await call.history("user", "hm")
            await call.refer("sip:a@b", "not an address")
            await call.play("http://127.0.0.1:1/x.wav", play_id="b", auto_hangup=True)
            names = await names_until_the_end(call)
        assert names == [
            *("incoming", "trackStart", "answer", "trackStart", "interruption", "trackEnd"),
            *("addHistory", "error", "trackStart", "error", "trackEnd", "trackEnd", "hangup"),
        ]


# -- ends -----------------------------------------------------------------------------------------------------------


async def test_a_caller_who_gives_up_while_it_rings_ends_the_block_and_not_the_program() -> None:
    """`accept` of a cancelled call raises, the block swallows it, and the call says what happened."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        async with await anext(calls) as call:
            phone.cancel()
            await call.wait_ended()
            with pytest.raises(CallEndedError, match="canceled") as told:
                await call.accept(asr=ASR)
            assert (told.value.call, told.value.ending, told.value.code) == (call, call.ending, None)
            await call.accept(asr=ASR)
            raise AssertionError("not reached: the block ends here")
        assert call.ending is not None
        assert call.ending.reason == "canceled"
        assert not call.answered


@pytest.mark.parametrize("group", [False, True], ids=["alone", "in a nursery"])
async def test_a_command_after_the_caller_has_hung_up_leaves_the_block(group: bool) -> None:
    """A caller who hangs up is no failure, wherever in the block the program notices."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        async with await anext(calls) as call:
            await call.accept(asr=ASR, tts=TTS)
            await phone.answered()
            phone.hang_up()
            await call.wait_ended()
            if group:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call.tts, "still there?")
                    nursery.start_soon(call.interrupt)
            await call.tts("still there?")
            raise AssertionError("not reached: the block ends here")
        assert call.ending is not None
        assert call.ending.reason == "caller"


async def test_other_errors_leave_the_block_without_those_of_the_call() -> None:
    """Of an exception group only what is not the call's own end comes out; one call's end fails another's block."""

    async def fail() -> None:
        raise ValueError("a bug")

    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        first, second = await house.phone.dial(DIAL), await house.phone.dial(DIAL)
        one, other = await anext(calls), await anext(calls)
        first.cancel()
        await one.wait_ended()
        with pytest.RaisesGroup(ValueError):
            async with one, trio.open_nursery() as nursery:
                nursery.start_soon(one.tts, "hello")
                nursery.start_soon(fail)
        with pytest.raises(CallEndedError):
            async with other:
                await one.tts("hello")
        assert refused((await second.ended()).cause) == (500, "Server Internal Error")


async def test_a_call_of_ours_that_is_not_answered_raises_out_of_its_block() -> None:
    """Busy: the status and the phrase are in the error, and a program that did not look cannot miss it."""
    async with open_house(NO_WEBHOOK) as house:
        call = house.server.call()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reject_next, house)
            with pytest.raises(CallEndedError, match="486 Busy Here") as told:
                async with call:
                    await call.invite(callee=house.phone.uri)
        assert told.value.code == 486
        assert told.value.ending is call.ending is not None
        assert (call.caller, call.callee) == ("", house.phone.uri)


async def reject_next(house: House) -> None:
    """Be a phone that is busy."""
    (await house.phone.ring()).reject()


@pytest.mark.parametrize(
    ("callee", "why"),
    [("", "callee is missing"), ("sip:x@nowhere.test", "cannot resolve nowhere.test"), ("tel:123", "cannot be called")],
)
async def test_a_call_that_cannot_be_placed_says_why(callee: str, why: str) -> None:
    """A mistake in the address is in the error's text, with no status, since nobody refused."""
    async with open_house(NO_WEBHOOK) as house:
        with pytest.raises(CallEndedError, match=why) as told:
            async with house.server.call() as call:
                await call.invite(callee=callee)
        assert told.value.code is None


async def test_leaving_the_block_ends_the_call() -> None:
    """Unanswered: 480; answered: BYE; ours and never placed: it just goes. After the block it owns nothing."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        async with await anext(calls):
            pass
        assert house.server.registry.summaries() == []
        assert refused((await phone.ended()).cause) == (480, "Temporarily Unavailable")

        phone = await house.phone.dial(DIAL)
        async with await anext(calls) as call:
            await call.accept()
            await phone.answered()
        assert house.server.registry.summaries() == []
        assert house.server.plane.legs == 0
        assert isinstance((await phone.ended()).cause, sip.ByeReceived)
        assert call.ending is not None
        assert (call.ending.reason, call.ending.initiator) == ("system", "system")

        async with house.server.call(session_id="mine") as ours:
            assert ours.id == "mine"
        assert house.server.registry.summaries() == []
        assert ours.ended


async def test_a_call_can_be_refused_and_hung_up_twice() -> None:
    """`reject` sends its status; ending what is over is nothing, as with closing what is closed."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        async with await anext(calls) as call:
            await call.reject("not today", 488)
            await call.reject()
            await call.hangup()
            assert call.ending is not None
            assert (call.ending.reason, call.ending.initiator) == ("rejected", "callee")
            assert await names_until_the_end(call) == ["incoming", "hangup"]
            assert await names_until_the_end(call) == []
        assert refused((await phone.ended()).cause) == (488, "Not Acceptable Here")


Misuse = Callable[[Call], Awaitable[object]]


@pytest.mark.parametrize(
    ("misuse", "problem"),
    [
        (lambda call: call.invite(callee="sip:a@b"), "invite: this call came in"),
        (lambda call: call.accept(), "accept: asked for already"),
        (lambda call: call.reject(), "reject: the call is answered"),
    ],
    ids=["invite", "accept twice", "reject"],
)
async def test_what_an_answered_call_cannot_do(misuse: Misuse, problem: str) -> None:
    """A command that makes no sense is a `LocalError` that says so, and the call goes on."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        async with await anext(calls) as call:
            await call.accept()
            await phone.answered()
            with pytest.raises(LocalError, match=problem):
                await misuse(call)
            assert not call.ended


async def test_a_call_is_used_inside_its_block() -> None:
    """An outgoing call has no session before its block, and one of ours is not accepted or rejected."""
    async with open_house(NO_WEBHOOK) as house:
        call = house.server.call()
        assert call.id == ""
        for use in (call.hangup, call.accept, call.reject, call.__anext__):
            with pytest.raises(LocalError):
                await use()
        async with call:
            for use in (call.accept, call.reject):
                with pytest.raises(LocalError, match="this call is ours"):
                    await use()


async def test_a_full_server_places_no_call() -> None:
    """`OverloadedError` where the block is entered."""
    async with open_house(attrs.evolve(NO_WEBHOOK, max_calls=1)) as house, house.server.call():
        with pytest.raises(OverloadedError):
            async with house.server.call():
                raise AssertionError("there is no room")


async def test_a_program_that_never_reads_its_events_loses_the_call() -> None:
    """As a socket that is not read: the call ends, and reading on says why after the last event kept."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        received = 0
        async with await anext(calls) as call:
            await call.accept()
            await phone.answered()
            for _ in range(OUTBOX - 2):  # three events are there already
                await call.history("user", "again and again")
            await call.wait_ended()
            for _ in range(OUTBOX):
                received += isinstance(await anext(call), events.Event)
            with pytest.raises(CallEndedError, match=f"{OUTBOX} events unread"):
                await anext(call)
        assert received == OUTBOX
        assert isinstance((await phone.ended()).cause, sip.ByeReceived)


# -- handlers that fail ---------------------------------------------------------------------------------------------


async def test_a_handler_that_raises_ends_its_call_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """500 before the answer, BYE after it, each with a traceback in the log; the third call talks on."""

    async def answer(call: Call) -> None:
        if call.header("X-Kind") == "early":
            raise ValueError("before the answer")
        await call.accept(tts=TTS)
        if call.header("X-Kind") == "late":
            raise ValueError("after the answer")
        await names_until_the_end(call)

    async with open_house(NO_WEBHOOK) as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.server.each_call, answer)
        good = await house.phone.dial(DIAL)
        await good.answered()
        early = await house.phone.dial(DIAL, headers=(("X-Kind", "early"),))
        late = await house.phone.dial(DIAL, headers=(("X-Kind", "late"),))
        assert refused((await early.ended()).cause) == (500, "Server Internal Error")
        assert isinstance((await late.ended()).cause, sip.ByeReceived)
        await trio.testing.wait_all_tasks_blocked()
        assert good.ending is None
        assert house.server.registry.health().failed == 1
        failures = [record for record in caplog.records if record.name == "rustpbx.embed.door"]
        assert sorted(str(record.exc_info[1]) for record in failures if record.exc_info) == [
            "after the answer",
            "before the answer",
        ]
        good.hang_up()
        nursery.cancel_scope.cancel()


async def test_a_handler_that_returns_ends_its_call() -> None:
    """The call lasts as long as its handler; `each_call` ends when the server stops, after its handlers."""
    ended = trio.Event()

    async def answer(call: Call) -> None:
        await call.accept()
        await trio.sleep(3)

    async def serve_calls(house: House) -> None:
        await house.server.each_call(answer)
        ended.set()

    async with open_house(NO_WEBHOOK) as house, trio.open_nursery() as nursery:
        nursery.start_soon(serve_calls, house)
        call = await house.phone.dial(DIAL)
        await call.answered()
        began = trio.current_time()
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        assert trio.current_time() - began == pytest.approx(3, abs=0.2)
        await house.server.shutdown()
        await ended.wait()


# -- cancellation ---------------------------------------------------------------------------------------------------


async def talk(pair: Pair, up: trio.Event) -> None:
    """Be both programs, in one task and its children: a call with speech both ways."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.bob.each_call, repeat)
        async with pair.alice.call() as call:
            await trio.testing.wait_all_tasks_blocked()
            await call.invite(callee=pair.bob_uri, asr=ASR, tts=TTS, vad=VAD)
            up.set()
            await call.tts("good morning", end_of_stream=True)
            await names_until_the_end(call)


async def test_cancelling_the_program_in_the_middle_of_a_call_says_bye() -> None:
    """Both ends of the call are gone at once, with everything they owned, while the servers stay."""
    async with two_servers() as pair:
        up = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, pair, up)
            await up.wait()
            await trio.sleep(1)
            assert pair.leftovers()["calls"] == 2
            nursery.cancel_scope.cancel()
        assert pair.leftovers()["calls"] == pair.leftovers()["legs"] == 0


async def test_cancelling_the_whole_program_takes_the_servers_down_in_order() -> None:
    """The cancellation comes from outside both blocks: the calls are said goodbye to, and no task or port is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    byes = bound = 0
    with trio.CancelScope() as program:
        async with two_servers(quiet=False) as pair, trio.open_nursery() as nursery:
            assert pair.wire is not None
            wire, up = pair.wire, trio.Event()
            nursery.start_soon(talk, pair, up)
            await up.wait()
            program.cancel()
    byes = sum(carried.data.startswith(b"BYE ") for carried in wire.carried())
    bound = len(wire.bound)
    assert program.cancelled_caught
    assert (byes >= 1, bound) == (True, 0)
    assert trio.lowlevel.current_statistics().tasks_living == before


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the n-th scheduling of any task."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio calls it by name
        """Count down."""
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@pytest.mark.parametrize("step", [*range(1, 120, 3), *range(120, 1200, 90)])
async def test_cancelled_at_any_step_a_call_leaves_nothing(step: int) -> None:
    """Wherever the cancellation hits, both sides agree that the call is over, and own nothing of it."""
    async with two_servers() as pair:
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await talk(pair, trio.Event())
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert scope.cancelled_caught


# -- who gets a call ------------------------------------------------------------------------------------------------


async def test_the_program_that_listens_comes_before_the_webhook() -> None:
    """Listening, it gets the call and the webhook hears nothing; before and after, the webhook is asked."""
    async with open_house() as house:
        phone = await house.phone.dial(DIAL)
        await house.webhook.calls.receive()
        phone.cancel()

        with house.server.calls() as calls:
            phone = await house.phone.dial(DIAL)
            call = await anext(calls)
            assert call.incoming
            phone.cancel()
            await call.wait_ended()
        assert house.webhook.calls.statistics().current_buffer_used == 0

        phone = await house.phone.dial(DIAL)
        await house.webhook.calls.receive()
        phone.cancel()
        await phone.ended()


async def test_calls_that_wait_go_to_the_webhook_when_the_program_stops_listening() -> None:
    """Closing turns to the webhook what nobody took, and ends the iterations; another listener keeps them."""
    async with open_house() as house:
        calls, others = house.server.calls(), house.server.calls()
        await house.phone.dial(DIAL)
        await trio.testing.wait_all_tasks_blocked()
        others.close()
        assert [call async for call in others] == []
        assert house.webhook.calls.statistics().current_buffer_used == 0
        calls.close()
        notice = await house.webhook.calls.receive()
        async with house.agent(f"/call/sip?id={notice['dialogId']}") as agent:
            await agent.until("incoming")
            await agent.send("reject", reason="no")
            await agent.ended()


async def test_a_taken_call_is_no_sockets_and_a_sockets_is_not_the_programs() -> None:
    """A socket with the id of a call that waits for the program is refused, as for one that another agent has."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        await house.phone.dial(DIAL)
        await trio.testing.wait_all_tasks_blocked()
        (waiting,) = house.server.registry.summaries()
        with pytest.raises(BaseExceptionGroup) as refused:
            async with house.agent(f"/call/sip?id={waiting.session_id}"):
                raise AssertionError("two agents on one call")
        assert "409" in repr(refused.value)
        async with await anext(calls) as call:
            assert call.id == waiting.session_id


async def test_a_call_that_nobody_takes_is_refused_after_the_accept_timeout() -> None:
    """480 when the time is up, whether it waits at the door or in the hands of a program that does nothing."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        began = trio.current_time()
        taken = await house.phone.dial(DIAL)
        call = await anext(calls)
        waiting = await house.phone.dial(DIAL)
        for phone in (taken, waiting):
            ending = await phone.ended()
            assert refused(ending.cause) == (480, "Temporarily Unavailable")
            assert ending.at - began == pytest.approx(50, abs=0.5)
        assert call.ending is not None
        assert call.ending.reason == "noAnswer"


async def test_a_caller_who_gives_up_is_never_offered() -> None:
    """The queue holds only calls that are still there."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        gone = await house.phone.dial(DIAL, headers=(("X-Order", "first"),))
        await trio.testing.wait_all_tasks_blocked()
        gone.cancel()
        await gone.ended()
        await trio.testing.wait_all_tasks_blocked()
        await house.phone.dial(DIAL, headers=(("X-Order", "second"),))
        async with await anext(calls) as call:
            assert call.header("X-Order") == "second"


async def test_a_program_that_takes_no_calls_gets_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue full the next call is refused, and the ones before it still wait."""
    monkeypatch.setattr("rustpbx.embed.door.WAITING", 2)
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phones = [await house.phone.dial(DIAL) for _ in range(3)]
        assert refused((await phones[2].ended()).cause) == (503, "Service Unavailable")
        assert any(b'text="Too many calls are waiting"' in traced.data for traced in house.phone.trace)
        for _ in range(2):
            async with await anext(calls) as call:
                await call.accept()


async def test_several_tasks_share_the_calls() -> None:
    """Each call goes to one taker."""
    taken: list[str] = []

    async def take(house: House) -> None:
        async for call in house.server.calls():
            async with call:
                taken.append(call.id)

    async with open_house(NO_WEBHOOK) as house, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take, house)
        await trio.testing.wait_all_tasks_blocked()
        phones = [await house.phone.dial(DIAL) for _ in range(5)]
        for phone in phones:
            await phone.ended()
        assert (len(taken), len(set(taken))) == (5, 5)
        nursery.cancel_scope.cancel()


async def test_the_end_of_the_server_is_the_end_of_its_calls() -> None:
    """Iterations end, a call in progress says `hangup`, a new one is refused, and a late listener gets nothing."""
    async with open_house(NO_WEBHOOK) as house:
        calls = house.server.calls()
        phone = await house.phone.dial(DIAL)
        call = await anext(calls)
        async with call:
            await call.accept()
            await phone.answered()
            await house.server.shutdown()
            assert await names_until_the_end(call) == ["incoming", "trackStart", "answer", "trackEnd", "hangup"]
        assert [call async for call in calls] == [call async for call in house.server.calls()] == []
        with pytest.raises(OverloadedError):
            async with house.server.call():
                raise AssertionError("the server has stopped")
