"""One connection of raw bytes to the control API: whatever they are, answered or ended, and no task of ours fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS
from rustpbx.session.commands import Hangup, Pause
from tests.control.harness import HOST
from tests.kit.fake_registry import Said
from tests.kit.predicates import control_http
from tests.kit.raw_control import responses, talk
from tests.kit.strategies_sip import mutated

KEPT = {path.name: path.read_bytes() for path in TARGETS["control_http"].inputs()}
UPGRADE = KEPT["upgrade_no_pings"]


def frame(opcode: int, payload: bytes, *, last: bool = True, mask: bytes = b"\1\2\3\4") -> bytes:
    """A client's frame (RFC 6455 section 5.2)."""
    size = len(payload)
    head = bytes([opcode | (0x80 if last else 0), 0x80 | min(size, 126)]) + (size.to_bytes(2) if size > 125 else b"")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


frames = st.builds(frame, st.sampled_from([0, 1, 1, 2, 3, 8, 9, 10, 0x41]), st.binary(max_size=130), last=st.booleans())


@given(mutated(st.sampled_from(sorted(KEPT.values()))))
@settings(max_examples=60)
def test_any_bytes_get_whole_answers_and_an_end(data: bytes) -> None:
    """Requests, upgrades and frames with bytes changed."""
    control_http(data)


@given(st.lists(frames, max_size=8).map(b"".join), st.booleans())
@settings(max_examples=60)
def test_any_frames_are_survived(data: bytes, pings: bool) -> None:
    """Fragments, pings, closes and reserved codes in any order end in a close, which the session hears of once."""
    conversation = talk((UPGRADE.replace(b"&ping=0", b"") if pings else UPGRADE) + data)
    assert [said.what for said in conversation.said].count("lost") == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame(8, b"\x03\xe8bye") + frame(9, b"x"), [Said("lost", "closed by the agent with 1000")]),
        (frame(1, b'{"command":', last=False) + frame(9, b"") + frame(0, b'"pause"}'), [Said("command", Pause())]),
        (frame(1, b'{"command":"hangup"}') * 500, [Said("command", Hangup())] * 500),
        (frame(9, b"x" * 125) * 2000, []),
        (frame(1, b"", last=False) + frame(0, b"", last=False) * 5000 + frame(0, b"x"), []),
    ],
    ids=["ping after close", "ping between fragments", "many commands", "a flood of pings", "empty fragments"],
)
def test_what_a_peer_may_do_to_a_socket(data: bytes, said: list[Said]) -> None:
    """The commands among it arrive, each once and in order; the rest costs nothing but its bytes."""
    heard = list(talk(UPGRADE + data).said)
    assert heard[: len(said)] == said
    assert heard[-1].what == "lost"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("1\r\nx\r\n" * 65_536 + "0\r\n\r\n", 200),
        ("1\r\nx\r\n" * 65_537 + "0\r\n\r\n", 413),
        ("1;" + "e" * 2000 + "\r\nx\r\n0\r\n\r\n", 200),
    ],
    ids=["bytes one by one", "one byte too many", "a chunk's extension"],
)
def test_a_body_in_small_pieces_is_one_body(sent: str, status: int) -> None:
    """However many chunks it comes in, its size is what counts, and counting takes no longer for more of them."""
    head = f"POST /call/kill/x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert responses(talk((head + sent).encode()).sent) == [status]
