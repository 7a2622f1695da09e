"""Messages cut from a byte stream (RFC 3261 section 18.3, keep-alives of RFC 5626 section 3.5.1)."""

from __future__ import annotations

from rustpbx.errors import RemoteError
from rustpbx.sip.headers import parse_number
from rustpbx.sip.parser import DEFAULT_LIMITS, Limits, explain, read_head

PING = b"\r\n\r\n"
"""A keep-alive between messages, handed out like a message: answer it with CRLF."""


class Framer:
    """Feed it what a stream delivers; it gives back whole messages. The pieces' sizes make no difference.

    Once `broken` is set the end of the message cannot be told any more: nothing else comes out, so answer `broken`
    if it is a MalformedRequest that can be answered, and close the connection. At most `limits.message` bytes are kept.

    While it `expects_pong`, the next line end between messages is one. Without that, two answers to two pings of ours
    would look like a ping.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.broken: RemoteError | None = None
        self.expects_pong = False
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0  # no end of a head starts before this index
        self._size: int | None = None  # of the message at the start of the buffer, once its head is there

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return len(self._buffer) > len(PING) or bool(self._buffer.strip(b"\r\n"))

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the messages (and PINGs) they complete, in order."""
        messages: list[bytes] = []
        if self.broken is not None:
            return messages
        self._buffer += data
        try:
            while (message := self._next()) is not None:
                messages.append(message)
        except RemoteError as error:
            self.broken = explain(error, self._broken_head(), self._limits)
            self._buffer.clear()
        return messages

    def _broken_head(self) -> bytes:
        """The head that broke the stream, and not a byte of what came with it: pieces make no difference."""
        end = self._buffer.find(b"\r\n\r\n")
        most = self._limits.message
        return bytes(self._buffer[: most if end < 0 else min(end + 4, most)])

    def _next(self) -> bytes | None:
        if self._size is None:
            if self.expects_pong and self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]
                self.expects_pong = False
            if self._buffer.startswith(PING):
                return self._take(len(PING))
            while self._buffer.startswith(b"\r\n") and len(self._buffer) >= len(PING):
                del self._buffer[:2]  # a pong, or a line end too many before the start line (7.5)
                if self._buffer.startswith(PING):
                    return self._take(len(PING))
            self._size = self._measure()
        if self._size is None or len(self._buffer) < self._size:
            return None
        return self._take(self._size)

    def _measure(self) -> int | None:
        """The size of the message at the start of the buffer; None while its head is incomplete."""
        if self._buffer[:1] == b"\r" and len(self._buffer) < len(PING):
            return None
        end = self._buffer.find(b"\r\n\r\n", self._searched)
        most = self._limits.message
        if end + 4 > most or (end < 0 and len(self._buffer) > most):
            raise RemoteError(f"a header of more than {most} bytes", 513)
        if end < 0:
            self._searched = max(0, len(self._buffer) - 3)
            return None
        _, fields = read_head(bytes(self._buffer[:end]), self._limits)
        lengths = [value for name, value in fields if name == "Content-Length"]
        if len(lengths) != 1:
            raise RemoteError("a stream needs one Content-Length in each message")
        size = end + 4 + parse_number(lengths[0], "Content-Length", 2**32)
        if size > most:
            raise RemoteError(f"a message of more than {most} bytes", 513)
        return size

    def _take(self, size: int) -> bytes:
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        self._size = None
        return message
