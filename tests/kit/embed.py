"""Two servers in one program, on one in-memory wire or on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

import rustpbx
from rustpbx.session.options import SynthesisOption, TranscriptionOption, VadOption
from rustpbx.settings import Config, UaConfig
from rustpbx.testing.house import outside_of
from rustpbx.testing.speech import SCRIPTED, ScriptedSpeech
from rustpbx.testing.wire import Wire, open_wire

ALICE, BOB = "10.0.0.11", "10.0.0.12"
SETTLED = 64 * 0.5 + 31
"""Virtual seconds after a call until its transactions (64*T1) and its port's quarantine are over."""

ASR, TTS, VAD = TranscriptionOption(provider=SCRIPTED), SynthesisOption(provider=SCRIPTED), VadOption()


@attrs.frozen(kw_only=True)
class Pair:
    """Two servers; `bob_uri` is what Alice dials."""

    alice: rustpbx.Server
    bob: rustpbx.Server
    wire: Wire | None = None

    @property
    def bob_uri(self) -> str:
        """Bob's SIP address."""
        assert self.bob.sip is not None
        return f"sip:bob@{self.bob.sip[0]}:{self.bob.sip[1]}"

    def leftovers(self) -> dict[str, int]:
        """What of any call the two still own; all zeros when both are quiet."""
        servers = (self.alice, self.bob)
        stacks = [server.stack for server in servers if server.stack is not None]
        return {
            "calls": sum(len(server.registry.summaries()) for server in servers),
            "legs": sum(server.plane.legs for server in servers),
            "dialogs": sum(stack.counters["dialogs"] for stack in stacks),
            "transactions": sum(stack.counters["transactions_running"] for stack in stacks),
        }


def memory_config(host: str, **ua: float) -> Config:
    """A server on a host of the wire."""
    return Config(ua=UaConfig(addr=host, udp_port=5060, **ua), media_cache_path="")  # type: ignore[arg-type]  # floats all


@asynccontextmanager
async def two_servers(seed: int = 0, *, quiet: bool = True, **ua: float) -> AsyncIterator[Pair]:
    """Alice and Bob in virtual time; with `quiet` they must own nothing of any call once they have settled."""
    with ScriptedSpeech().serving(SCRIPTED):
        async with (
            open_wire(seed) as wire,
            rustpbx.serve(memory_config(ALICE, **ua), outside=outside_of(wire, seed, ALICE), http=False) as alice,
            rustpbx.serve(memory_config(BOB, **ua), outside=outside_of(wire, seed + 1, BOB), http=False) as bob,
        ):
            pair = Pair(alice=alice, bob=bob, wire=wire)
            tasks, bound = trio.lowlevel.current_statistics().tasks_living, list(wire.bound)
            yield pair
            if quiet:
                await trio.sleep(SETTLED)
                assert pair.leftovers() == {"calls": 0, "legs": 0, "dialogs": 0, "transactions": 0}
                assert list(wire.bound) == bound
                assert trio.lowlevel.current_statistics().tasks_living == tasks


@asynccontextmanager
async def two_real_servers() -> AsyncIterator[Pair]:
    """Alice and Bob on loopback sockets."""
    with ScriptedSpeech().serving(SCRIPTED):
        async with (
            rustpbx.serve(addr="127.0.0.1", udp_port=0, rtp_start_port=20000, rtp_end_port=24999, http=False) as alice,
            rustpbx.serve(addr="127.0.0.1", udp_port=0, rtp_start_port=25000, rtp_end_port=29999, http=False) as bob,
        ):
            yield Pair(alice=alice, bob=bob)


def open_files() -> dict[str, str]:
    """The file descriptors of this process, and what each one is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)  # noqa: PTH115 - the text, not a path
        except FileNotFoundError:
            continue  # the one that listed them
    return found


async def repeat(call: rustpbx.Call) -> None:
    """An agent that greets and says back what it hears."""
    await call.accept(asr=ASR, tts=TTS, vad=VAD)
    await call.tts("hello", play_id="greeting", end_of_stream=True)
    async for event in call:
        if isinstance(event, rustpbx.events.AsrFinal):
            await call.tts(f"you said {event.text}", play_id=event.text, end_of_stream=True)
