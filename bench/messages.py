"""What reading and writing SIP costs a message, beside sippy (PyPI), another stack in pure Python, in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from rustpbx.sip.encoder import encode_message
from rustpbx.sip.message import Message
from rustpbx.sip.parser import parse_message

MESSAGES = Path(__file__).parents[1] / "tests" / "golden" / "sip"
FLOW = ("invite", "ringing", "ok", "ack", "bye", "ok")
"""A call as another implementation wrote it: `flow-f1-invite.sip` and so on."""
ROUNDS = 200


@attrs.frozen(kw_only=True)
class Messages:
    """Microseconds a message, the best of some runs; sippy's are None where it is not installed."""

    parse: float
    encode: float
    sippy_parse: float | None
    sippy_encode: float | None

    def __str__(self) -> str:
        ours = f"a message is read in {self.parse:.0f} us and written in {self.encode:.0f} us"
        if self.sippy_parse is None or self.sippy_encode is None:
            return f"{ours} (sippy is not installed)"
        return f"{ours}; sippy: {self.sippy_parse:.0f} us and {self.sippy_encode:.0f} us"


def measure(runs: int = 5) -> Messages:
    """Read and write the messages of a call, ours and sippy's in turn."""
    data = [(MESSAGES / f"flow-f{number}-{name}.sip").read_bytes() for number, name in enumerate(FLOW, 1)]
    read: list[Message] = [parse_message(message) for message in data]
    theirs = _sippy(data)
    work: list[Callable[[], object]] = [lambda: list(map(parse_message, data)), lambda: list(map(encode_message, read))]
    best = [float("inf")] * 4
    for _ in range(runs):
        for index, step in enumerate((*work, *theirs)):
            best[index] = min(best[index], _microseconds(step) / len(data))
    return Messages(
        parse=best[0],
        encode=best[1],
        sippy_parse=best[2] if theirs else None,
        sippy_encode=best[3] if theirs else None,
    )


def _microseconds(step: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(ROUNDS):
        step()
    return (time.process_time() - began) / ROUNDS * 1e6


def _sippy(data: Sequence[bytes]) -> tuple[Callable[[], object], ...]:
    """The same with sippy, which reads most header fields only when they are asked for: so they are."""
    try:
        from sippy.SipRequest import SipRequest  # noqa: PLC0415 - the `bench` extra
        from sippy.SipResponse import SipResponse  # noqa: PLC0415 - the `bench` extra
    except ImportError:
        return ()

    def parse(text: str) -> object:
        message = (SipResponse if text.startswith("SIP/") else SipRequest)(text)
        for name in ("via", "from", "to", "call-id", "cseq", "contact"):
            if message.countHFs(name):
                message.getHFBody(name)
        return message

    texts = [message.decode() for message in data]
    messages = [parse(text) for text in texts]
    return lambda: list(map(parse, texts)), lambda: list(map(str, messages))
