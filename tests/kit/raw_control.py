"""The control API under raw bytes: one connection, HTTP and maybe a WebSocket after it, in memory and virtual time."""

from __future__ import annotations

import logging

import attrs
import trio
import trio.testing

from tests.control.harness import Control, control
from tests.kit.fake_registry import Said

PATIENCE = 1000.0
"""Virtual seconds in which every connection must have ended: longer than all limits together."""


@attrs.frozen
class Conversation:
    """What the server sent, and what the session behind it heard (`said`, if there was an upgrade)."""

    sent: bytes
    said: tuple[Said, ...]


def talk(data: bytes) -> Conversation:
    """Send these bytes and no more, and wait for the end. Whatever they are, the connection ends by itself."""
    return trio.run(_talk, data, clock=trio.testing.MockClock(autojump_threshold=0))


async def _talk(data: bytes) -> Conversation:
    failures = _Failures()
    logger = logging.getLogger("rustpbx.control.server")
    logger.addHandler(failures)
    try:
        async with control() as server:
            sent = await _exchange(server, data)
            attachments = list(server.registry.attachments.values())
            counters = server.counters
    finally:
        logger.removeHandler(failures)
    if failures.seen is not None:
        raise failures.seen
    assert counters["connections_failed"] == 0, counters
    assert counters["answered_500"] == 0, counters
    assert all(attachment.gone.is_set() for attachment in attachments), "a session that nobody left"
    return Conversation(sent, tuple(said for attachment in attachments for said in attachment.log))


async def _exchange(server: Control, data: bytes) -> bytes:
    stream = await server.connect()
    sent = bytearray()

    async def read() -> None:
        while piece := await stream.receive_some():
            sent.extend(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(PATIENCE):
            try:
                await stream.send_all(data)
                await stream.send_eof()
            except trio.BrokenResourceError:  # the server had enough of it
                pass
        nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
    assert not nursery.cancel_scope.cancelled_caught, "the connection does not end"
    return bytes(sent)


class _Failures(logging.Handler):
    """Keeps the exception that a connection was ended by, so that it can be raised again."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first."""
        if record.exc_info and self.seen is None:
            self.seen = record.exc_info[1]


def responses(sent: bytes) -> list[int]:
    """The status of every response; one may lack its body, which answers HEAD. After a 101 comes no more HTTP."""
    statuses: list[int] = []
    while sent:
        head, empty, sent = sent.partition(b"\r\n\r\n")
        start, *lines = head.decode("ascii").split("\r\n")
        assert empty, head
        assert start.startswith("HTTP/1.1 "), start
        statuses.append(int(start[9:12]))
        if statuses[-1] == 101:
            break
        fields = dict(line.lower().split(": ", 1) for line in lines)
        if statuses[-1] != 100 and sent and not sent.startswith(b"HTTP/1.1 "):
            size = int(fields["content-length"])
            assert size <= len(sent), "a body that is cut"
            sent = sent[size:]
    return statuses
