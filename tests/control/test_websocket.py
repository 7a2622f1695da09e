"""An agent's socket, by a real WebSocket client on an in-memory network: every way it lives and ends."""

from __future__ import annotations

import json
import logging

import pytest
import trio
import trio_websocket
import wsproto
import wsproto.events
from trio.testing import wait_all_tasks_blocked

from rustpbx.control.http import Request
from rustpbx.control.server import HttpConfig
from rustpbx.control.websocket import handshake_key
from rustpbx.control.wire import MAX_MESSAGE
from rustpbx.errors import RustpbxError
from rustpbx.session.commands import Hangup, History, Pause
from rustpbx.session.events import Dtmf, HungUp, Metrics, Other
from rustpbx.session.options import CallType
from rustpbx.session.params import SessionParams
from rustpbx.testing.network import MemoryStream
from tests.control.harness import CLIENT, HOST, UPGRADE, Control, control, wrap_client
from tests.kit.fake_registry import FakeAttachment, Said

QUIET = "/call/sip?ping=0"


async def events(socket: trio_websocket.WebSocketConnection) -> tuple[list[dict[str, object]], int]:
    """Everything until the close, and the close code."""
    got = []
    while True:
        try:
            got.append(json.loads(await socket.get_message()))
        except trio_websocket.ConnectionClosed as closed:
            return got, closed.reason.code if closed.reason else 0


class Puppet:
    """A WebSocket client without a will: it answers no ping and no close by itself."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self._wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    async def open(self, target: str, early: bytes = b"") -> None:
        """Do the handshake; `early` goes out with the request."""
        request = self._wire.send(wsproto.events.Request(host=HOST, target=target))
        await self.stream.send_all(request + early)
        assert isinstance((await self.read())[0], wsproto.events.AcceptConnection)

    async def read(self) -> list[wsproto.events.Event]:
        """The events in the next bytes."""
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._wire.receive_data(data)
        return list(self._wire.events())


async def puppet(server: Control, target: str) -> tuple[Puppet, FakeAttachment]:
    """An open puppet and the attachment behind it."""
    agent = Puppet(await server.connect())
    await agent.open(target)
    return agent, await server.registry.attached()


# -- opening --------------------------------------------------------------------------------------------------------


async def test_the_query_and_the_peer_reach_the_session() -> None:
    """An unknown id on /call/sip is a session waiting for its invite."""
    target = "/call/sip?id=a%40b&dump=no&ping=0&serverSideTrack=bot&x=y"
    async with control() as server, server.agent(target) as (_, attachment):
        assert attachment.params == SessionParams(
            session_id="a@b",
            call_type=CallType.SIP,
            dump=False,
            ping_interval=0,
            server_side_track="bot",
            remote=CLIENT,
        )


async def test_the_go_clients_targets_upgrade() -> None:
    """Without subprotocol, Origin or token."""
    target = "/call/sip?id=b7Qk2@10.0.0.8-zT91-a0c4&dump=true"
    async with control() as server, server.agent(target) as (_, attachment):
        assert attachment.session_id == "b7Qk2@10.0.0.8-zT91-a0c4"
        await wait_all_tasks_blocked()
        assert attachment.up


async def test_a_second_socket_for_an_id_is_refused_before_the_101() -> None:
    """409 with the id; the first socket does not notice, and the id is free once its agent is gone."""
    async with control() as server:
        async with server.agent("/call/sip?id=s.1&ping=0") as (socket, attachment):
            reply = await server.refused_upgrade("/call/sip?id=s%2E1")
            assert (reply.status, reply.json) == (409, {"error": "session already exists", "id": "s.1"})
            await socket.send_message('{"command":"pause"}')
            assert await attachment.heard() == Said("command", Pause())
        await attachment.gone.wait()
        async with server.agent("/call/sip?id=s.1") as (_, second):
            assert second is not attachment


async def test_a_full_server_says_503() -> None:
    """With Retry-After, before the 101."""
    async with control() as server:
        server.registry.full = True
        reply = await server.refused_upgrade("/call/sip")
        assert (reply.status, reply.json, reply.headers["retry-after"]) == (503, {"error": "no more calls"}, "5")


async def test_without_a_user_agent_call_sip_is_503() -> None:
    """With the documented body, and for this path only."""
    async with control(HttpConfig(sip=False)) as server:
        reply = await server.refused_upgrade("/call/sip")
        assert (reply.status, reply.json) == (
            503,
            {
                "error": "User agent not initialized",
                "message": "no SIP user agent is configured: add [ua] to the config",
            },
        )
        async with server.agent("/call/webrtc"):
            pass
        assert (await server.fetch("/health")).status == 200


async def test_garbage_in_the_query_refuses_the_upgrade() -> None:
    """400, and nothing is reserved."""
    async with control() as server:
        assert (await server.refused_upgrade("/call/sip?dump=maybe")).status == 400
        assert server.registry.attachments == {}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Upgrade": "h2c"}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Key": "not base64 at all!!!!!!!"}, 400),
        ({"Content_Length": "5"}, 400),
    ],
)
async def test_what_is_no_upgrade_is_refused(change: dict[str, str], status: int) -> None:
    """400, or 426 naming the version we speak."""
    headers = {name.replace("_", "-").lower(): value for name, value in {**UPGRADE, **change}.items()}
    with pytest.raises(RustpbxError) as raised:
        handshake_key(Request(method="GET", path="/call/sip", headers=headers))
    assert str(raised.value).startswith(f"{status} ")


async def test_a_plain_get_of_a_socket_path_is_400() -> None:
    """Not an upgrade request."""
    async with control() as server:
        reply = await server.fetch("/call/sip")
        assert (reply.status, reply.json) == (400, {"error": "this path wants a WebSocket upgrade"})
        reply = await server.refused_upgrade("/call/sip", Sec_WebSocket_Version="8")
        assert (reply.status, reply.headers["sec-websocket-version"]) == (426, "13")


async def test_an_upgrade_after_a_request_on_the_same_connection() -> None:
    """Keep-alive and upgrade go together; a frame sent before the 101 is not lost."""
    async with control() as server:
        agent = Puppet(await server.connect())
        await agent.stream.send_all(f"GET /health HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await agent.stream.receive_some()
        text = b'{"command":"pause"}'
        frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
        await agent.open(QUIET, early=frame)
        attachment = await server.registry.attached()
        assert await attachment.heard() == Said("command", Pause())


async def test_a_peer_that_leaves_during_the_upgrade_frees_the_id() -> None:
    """Whether it is seen before or after the 101, the session hears that nobody is there."""
    async with control() as server:
        stream = await server.connect()
        raw = f"GET /call/sip?id=x&ping=0 HTTP/1.1\r\nHost: {HOST}\r\n" + "".join(
            f"{name.replace('_', '-')}: {value}\r\n" for name, value in UPGRADE.items()
        )
        await stream.send_all(f"{raw}\r\n".encode())
        stream.reset()
        await wait_all_tasks_blocked()
        for attachment in server.registry.attachments.values():
            assert attachment.gone.is_set()


# -- talking --------------------------------------------------------------------------------------------------------


async def test_commands_arrive_in_order() -> None:
    """As values."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        await socket.send_message('{"command":"history","speaker":"user","text":"grüß dich"}')
        await socket.send_message('{"command":"hangup","reason":"done"}')
        assert await attachment.heard() == Said("command", History(speaker="user", text="grüß dich"))
        assert await attachment.heard() == Said("command", Hangup(reason="done"))


async def test_what_is_no_command_is_told_and_nothing_else_happens() -> None:
    """Invalid JSON, an unknown command, a wrong type: the session hears what was wrong, the socket lives on."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        for text in ("{", '{"command":"dance"}', '{"command":"tts","text":5}', '{"command":"pause"}'):
            await socket.send_message(text)
        assert [await attachment.heard() for _ in range(4)] == [
            Said("bad_command", "not JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
            Said("bad_command", 'command: unknown command "dance"'),
            Said("bad_command", "text: expected a string, got a number"),
            Said("command", Pause()),
        ]
        assert server.counters["bad_commands"] == 3


async def test_binary_frames_are_audio_and_counted_if_nobody_wants_it() -> None:
    """The session gets each as it came, and says whether it is of use."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        await socket.send_message(b"\x00" * 640)
        await socket.send_message(b"")
        await socket.send_message('{"command":"pause"}')
        assert await attachment.heard() == Said("audio", bytes(640))
        assert await attachment.heard() == Said("audio", b"")
        assert await attachment.heard() == Said("command", Pause())
        assert server.counters["binary_ignored"] == 1


async def test_events_arrive_in_order_then_the_close() -> None:
    """Whatever is queued when the call ends is sent; then close code 1000, and no agent is lost."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        attachment.send(Dtmf(track_id="s", timestamp=1, digit="5"))
        attachment.send(HungUp(track_id="s", timestamp=2, start_time=0, hangup_time=2000))
        attachment.end()
        got, code = await events(socket)
        assert ([event["event"] for event in got], code) == (["dtmf", "hangup"], 1000)
        await wait_all_tasks_blocked()
        assert attachment.log == []


async def test_a_close_that_the_agent_does_not_answer_ends_anyway() -> None:
    """Five seconds after our close frame the connection is gone."""
    async with control() as server:
        agent, attachment = await puppet(server, QUIET)
        attachment.end()
        (closing,) = await agent.read()
        assert isinstance(closing, wsproto.events.CloseConnection)
        assert closing.code == 1000
        began = trio.current_time()
        assert await agent.stream.receive_some() == b""
        assert trio.current_time() - began == 5
        assert attachment.log == []


async def test_an_event_that_cannot_be_json_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and counted; the events after it arrive."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        with caplog.at_level(logging.ERROR):
            attachment.send(Metrics(timestamp=1, key="k", duration=1, data={"x": float("nan")}))
            attachment.send(Other(track_id="s", timestamp=1, sender="x"))
            attachment.end()
            got, _ = await events(socket)
        assert [event["event"] for event in got] == ["other"]
        assert server.counters["events_unencodable"] == 1


# -- losing ---------------------------------------------------------------------------------------------------------


async def test_an_agent_that_closes_is_lost() -> None:
    """With its close code."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        await socket.aclose(1001)
        assert await attachment.heard() == Said("lost", "closed by the agent with 1001")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_tcp_connection_that_drops_is_a_lost_agent(how: str) -> None:
    """Go's Shutdown() closes TCP without a close frame."""
    async with control() as server:
        agent, attachment = await puppet(server, QUIET)
        if how == "close":
            await agent.stream.aclose()
        else:
            agent.stream.reset()
        assert await attachment.heard() == Said("lost", "the connection dropped")
        await wait_all_tasks_blocked()
        assert attachment.log == [Said("lost", "the connection dropped")]


async def test_a_write_that_stalls_is_a_lost_agent() -> None:
    """Ten seconds without room for an event."""
    async with control() as server:
        agent, attachment = await puppet(server, QUIET)
        began = trio.current_time()
        for _ in range(20):
            attachment.send(Other(track_id="s", timestamp=1, sender="x" * 10_000))
        assert await attachment.heard() == Said("lost", "a write stalled for 10 s")
        assert trio.current_time() - began == 10
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await agent.stream.send_all(b"x")


async def test_a_message_that_is_too_long_ends_the_socket() -> None:
    """Close code 1009; no more than the limit is ever held."""
    async with control() as server, server.agent(QUIET) as (socket, attachment):
        await socket.send_message(" " * (MAX_MESSAGE + 1))
        assert await events(socket) == ([], 1009)
        assert (await attachment.heard()).what == "lost"


async def test_bytes_that_are_no_websocket_end_the_socket() -> None:
    """An unmasked frame, a reserved opcode: a lost agent."""
    async with control() as server:
        for garbage in (b"\x81\x02hi", b"\x8f\x80\x00\x00\x00\x00", b"\xff" * 100):
            agent, attachment = await puppet(server, QUIET)
            await agent.stream.send_all(garbage)
            assert (await attachment.heard()).what == "lost"
            assert [said.what for said in attachment.log] == ["lost"]


async def test_a_bug_behind_one_socket_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The socket whose session raised is lost and logged; another and the server go on."""
    async with control() as server, server.agent(QUIET) as (good, well), server.agent(QUIET) as (bad, sick):
        sick.poison = True
        with caplog.at_level(logging.ERROR):
            await bad.send_message('{"command":"pause"}')
            assert await sick.heard() == Said("lost", "the server ended the connection")
            await wait_all_tasks_blocked()
        assert "a bug in the session" in caplog.text
        await good.send_message('{"command":"pause"}')
        assert await well.heard() == Said("command", Pause())
        assert (await server.fetch("/health")).status == 200
        assert server.counters["connections_failed"] == 1


async def test_agents_are_lost_when_the_server_stops() -> None:
    """Cancelling the server tells every session."""
    async with control() as server, trio.open_nursery() as nursery:
        stream = await server.connect()
        await wrap_client(nursery, stream, QUIET)
        attachment = await server.registry.attached()
        nursery.cancel_scope.cancel()
    assert attachment.log == [Said("lost", "the server ended the connection")]


# -- pings ----------------------------------------------------------------------------------------------------------


async def test_pings_are_control_frames_and_events() -> None:
    """At once and then every interval, both with the RFC 3339 time; a client that answers stays for ever."""
    async with control() as server, server.agent("/call/sip?pingInterval=5") as (socket, attachment):
        payloads = [json.loads(await socket.get_message())["payload"] for _ in range(10)]
        assert payloads == [f"2025-10-30T08:15:{second:02}+00:00" for second in range(0, 50, 5)]
        assert [said.value for said in attachment.log if said.what == "ping"] == payloads
        assert not attachment.gone.is_set()


async def test_the_control_frame_carries_the_time() -> None:
    """As its payload."""
    async with control() as server:
        agent, _ = await puppet(server, "/call/sip?ping=5")
        seen: list[wsproto.events.Event] = []
        while len(seen) < 2:
            seen += await agent.read()
        pings = [event.payload for event in seen if isinstance(event, wsproto.events.Ping)]
        texts = [json.loads(event.data) for event in seen if isinstance(event, wsproto.events.TextMessage)]
        assert pings == [b"2025-10-30T08:15:00+00:00"]
        assert [text["payload"] for text in texts] == ["2025-10-30T08:15:00+00:00"]


async def test_three_missed_pongs_are_a_lost_agent() -> None:
    """Noticed when the fourth ping would be due."""
    async with control() as server:
        _, attachment = await puppet(server, "/call/sip?ping=20")
        began = trio.current_time()
        await attachment.gone.wait()
        assert trio.current_time() - began == 60
        assert [said.what for said in attachment.log] == ["ping", "ping", "ping", "lost"]
        assert attachment.log[-1] == Said("lost", "no pong to 3 pings")


async def test_a_late_pong_answers_the_pings_before_it() -> None:
    """A client may answer several pings with one pong (RFC 6455 section 5.5.3)."""
    async with control() as server:
        agent, attachment = await puppet(server, "/call/sip?ping=20")
        pings: list[wsproto.events.Ping] = []
        while len(pings) < 2:
            pings += [event for event in await agent.read() if isinstance(event, wsproto.events.Ping)]
        await agent.stream.send_all(agent._wire.send(pings[-1].response()))
        began = trio.current_time()
        await attachment.gone.wait()
        assert trio.current_time() - began == 80


async def test_interval_zero_sends_no_pings() -> None:
    """After upgrade without a command nothing happens at all."""
    async with control() as server, server.agent(QUIET) as (_, attachment):
        await trio.sleep(3600)
        assert attachment.log == []


async def test_the_default_interval_is_twenty_seconds() -> None:
    """Pings run from the upgrade on, without a command."""
    async with control() as server, server.agent("/call/sip") as (_, attachment):
        await trio.sleep(59)
        assert [said.value for said in attachment.log] == [
            "2025-10-30T08:15:00+00:00",
            "2025-10-30T08:15:20+00:00",
            "2025-10-30T08:15:40+00:00",
        ]
