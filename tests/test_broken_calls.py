"""What goes wrong inside a call ends that call in order, and a server that cannot start or must stop does so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from rustpbx.app import open_server
from rustpbx.core import Address
from rustpbx.session import commands
from rustpbx.session.conversation import Conversation
from rustpbx.settings import OutboundConfig
from rustpbx.sip import events as sip
from rustpbx.speech.registry import stand_in
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.phone import CallRefusedError
from rustpbx.testing.speech import tone
from rustpbx.testing.wire import Wire, open_wire
from rustpbx.values import network
from tests.kit.agent import connect_agent
from tests.kit.files import File, serve_files, wav
from tests.kit.house import AGENT, open_house, outside_of, server_config
from tests.test_calls import DIAL, SCRIPTED, answered, over, quiet_house


class Buggy:
    """A speech service with a bug of its own, which no `SpeechError` announces."""

    async def synthesize(self, *_: object) -> None:
        """Break."""
        raise ZeroDivisionError("a bug")

    recognize = synthesize


def broken(*_: object, **__: object) -> Any:
    """A handler with a bug."""
    raise ZeroDivisionError("a bug")


@pytest.fixture
def _buggy() -> Iterator[None]:
    """Such a service, by name."""
    with stand_in(["buggy"], lambda _, __: Buggy(), lambda _, __: Buggy()):
        yield


@pytest.mark.usefixtures("_buggy")
@pytest.mark.parametrize("part", ["asr", "tts", "core"])
async def test_a_bug_in_a_call_ends_it_with_bye_hangup_and_a_normal_close(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phone gets its BYE, the agent its `hangup`; the other call of the server never notices."""
    async with quiet_house() as house, answered(house) as (_, other):
        option = {**SCRIPTED, "asr": {"provider": "buggy" if part == "asr" else "scripted"}}
        async with answered(house, **option) as (call, agent):
            if part == "tts":
                await agent.send("tts", text="hello", option={"provider": "buggy"})
            elif part == "core":
                monkeypatch.setitem(Conversation._HANDLERS, commands.History, broken)
                await agent.send("history", speaker="user", text="hello")
            hangup = await over(agent)
            assert (hangup["reason"], hangup["initiator"]) == ("failed", "system")
            assert agent.names.count("trackEnd") == agent.names.count("trackStart")
            assert isinstance((await call.ended()).cause, sip.ByeReceived)
        assert house.server.registry.health().failed == 1
        await other.send("tts", text="still here", endOfStream=True)
        await other.until("trackEnd")
        await other.send("hangup")
        await over(other)


async def test_a_bug_before_the_answer_is_a_500_to_the_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phone gets a final response that blames us, the agent its `hangup`."""
    monkeypatch.setitem(Conversation._HANDLERS, commands.History, broken)
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("ringing")
            await agent.send("history", speaker="user", text="hello")
            with pytest.raises(CallRefusedError) as refused:
                await call.answered()
            assert refused.value.status == 500
            assert (await over(agent))["reason"] == "failed"


@pytest.mark.parametrize(
    "option",
    [
        {"callee": "sip:x@10.0.0.2", "sip": {"headers": {"m": "<sip:evil@10.0.0.9>"}}},
        {"callee": "sip:x@10.0.0.2", "sip": {"headers": {"V": "SIP/2.0/UDP 10.0.0.9"}}},
        {"callee": "sip:x@10.0.0.2", "sip": {"headers": {"Content-Length ": "3"}}},
        {"callee": "sip:x y@10.0.0.2"},
        {"callee": "sip:x@10.0.0.2;a=b c"},
        {"callee": "sip:x@10.0.0.2", "caller": '"A\u0007" <sip:a@b>'},
        {"callee": "sip:x@10.0.0.2", "caller": '<sip:a@b>;x="y\r\nVia: z"'},
        {"callee": "sip:x@10.0.0.2", "caller": "sip:a%@b"},
        {"callee": "sip:x@10.0.0.2", "sip": {"contact": "sip:a b@c"}},
        {"callee": "sip:x@10.0.0.2", "sip": {"username": "u", "realm": "a b"}},
        {"callee": "sip:x@" + "a" * 70 + ".test"},
        {"callee": "sip:x@..test"},
        {"callee": "sip:\u00e4@10.0.0.2;m=\u00e4"},
    ],
)
async def test_whatever_an_invite_says_its_agent_gets_an_outcome(option: dict[str, Any]) -> None:
    """`answer`, `reject` or `error`, whichever fits, never a silent end."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option=option)
        with trio.move_on_after(40):
            await agent.ended()
        if agent.closed is None:
            await agent.send("hangup")
            await over(agent)
        else:
            await over(agent)
            assert {"reject", "error"} & set(agent.names)
            assert house.server.registry.health().failed <= 1


async def test_a_name_that_no_resolver_takes_is_an_error_of_the_invite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system resolver raises UnicodeError for a label of 64 characters."""

    async def resolve(_: MemoryNetwork, host: str) -> list[str]:
        raise UnicodeError(f"label too long: {host}")

    async with quiet_house() as house, house.agent() as agent:
        monkeypatch.setattr(MemoryNetwork, "resolve", resolve)
        await agent.send("invite", option={"callee": "sip:x@name.test"})
        error = await agent.until("error")
        assert "name.test" in error["error"]
        await over(agent)


async def test_a_session_id_may_be_used_again_as_soon_as_its_call_is_over() -> None:
    """The ended call's dialog still waits for stray copies; the next call of that id does not mind."""
    async with quiet_house() as house:
        for _ in range(2):
            async with house.agent("/call/sip?id=same") as agent:
                await agent.send("invite", option={"callee": house.phone.uri})
                call = await house.phone.ring()
                call.answer()
                await agent.until("answer")
                await agent.send("hangup")
                await over(agent)
                assert isinstance((await call.ended()).cause, sip.ByeReceived)


@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_graceful_interrupt_while_the_next_text_is_ready(at_once: int) -> None:
    """The text being spoken ends, the next one is dropped, and the call goes on."""
    async with quiet_house() as house, answered(house) as (call, agent):
        option = {"maxConcurrentTasks": at_once}
        await agent.send("tts", text="x" * 220, playId="p", option=option)
        await agent.send("tts", text="never heard", playId="p", option=option)
        await call.line.sound()
        await trio.sleep(0.5)
        await agent.send("interrupt", graceful=True)
        assert (await agent.until("interruption"))["subtitle"] == "x" * 220
        ended = await agent.until("trackEnd")
        assert ended["duration"] == pytest.approx(11_000, abs=300)
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("wild", [1, 2**31 - 1])
async def test_the_smallest_and_largest_numbers_of_an_option_harm_nothing(wild: int) -> None:
    """Whatever an option says, the playback is heard and the call goes on."""
    asr = {"provider": "scripted", "samplerate": wild, "bufferSize": wild}
    vad = {"type": "webrtc", "silenceTimeout": wild, "speechPadding": wild, "silencePadding": wild}
    tts = {"provider": "scripted", "maxConcurrentTasks": wild, "samplerate": wild, "waitInputTimeout": wild}
    async with quiet_house() as house, answered(house, asr=asr, vad=vad, tts=tts) as (call, agent):
        await agent.send("tts", text="hello", endOfStream=True, waitInputTimeout=wild)
        await call.line.sound()
        await agent.until("trackEnd")
        await trio.sleep(1)
        assert all(event.get("duration", 0) >= 0 for event in agent.events)
        await agent.send("hangup")
        await over(agent)


async def test_a_ringtone_of_one_sample_does_not_keep_the_server_busy() -> None:
    """It is looped in pieces of a second."""
    config = server_config(outbound=OutboundConfig(allow_private=(network("10.0.0.0/8"),)))
    async with quiet_house(config=config) as house, trio.open_nursery() as nursery:
        files = {"/r.wav": File(wav(tone(1 / 8000)))}
        nursery.start_soon(serve_files, house.agents, (AGENT, 9001), files)
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("ringing", ringtone=f"http://{AGENT}:9001/r.wav")
            await call.progressed()
            await trio.sleep(3)
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            await agent.send("hangup")
            await over(agent)
        nursery.cancel_scope.cancel()


# -- the server's own beginning and end -----------------------------------------------------------------------------


async def test_a_taken_port_is_an_error_and_not_a_hang() -> None:
    """A second server on the same addresses fails with OSError, whichever of the ports is taken."""
    async with open_house() as house:
        for ua in (server_config().ua, None):
            with trio.fail_after(5), pytest.raises(BaseExceptionGroup) as taken:
                async with open_server(server_config(ua=ua), outside_of(house.wire)):
                    raise AssertionError("both are up")
            assert taken.group_contains(OSError)


async def test_a_server_that_stops_tells_its_agents_first() -> None:
    """An agent without a call yet has no BYE to wait for, and still gets `hangup` and close code 1000."""
    stop = trio.Event()

    async def serve(wire: Wire, *, task_status: trio.TaskStatus[Address]) -> None:
        async with open_server(server_config(), outside_of(wire)) as server:
            task_status.started(server.http)
            await stop.wait()

    async with open_wire(0) as wire, trio.open_nursery() as nursery:
        http = await nursery.start(serve, wire)
        async with connect_agent(wire.host(AGENT), http) as agent:
            await agent.send("history", speaker="user", text="anybody here?")
            await agent.until("addHistory")
            stop.set()
            assert (await over(agent))["reason"] == "system"
