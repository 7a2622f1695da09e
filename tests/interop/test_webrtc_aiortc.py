"""Calls from aiortc, a WebRTC stack of others, on real sockets: Opus and G.711, words both ways, both ways to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio

from rustpbx.media.events import Pcm
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, alike, over
from tests.kit.program import Program, running
from tests.kit.real import open_real_house

pytestmark = pytest.mark.real_time


class Caller:
    """The program, and what it says."""

    def __init__(self, program: Program, hears: Path) -> None:
        self.program = program
        self._hears = hears

    @property
    def lines(self) -> list[dict[str, str]]:
        """All lines so far."""
        return [json.loads(line) for line in self.program.said.splitlines() if line.startswith("{")]

    @property
    def offer(self) -> str:
        """Its SDP."""
        return self.lines[0]["offer"]

    async def tell(self, line: str) -> None:
        """Write to its standard input."""
        await self.program.write(f"{line}\n".encode())

    async def connected(self) -> None:
        """Its own word for it."""
        await self.program.until('"state": "connected"')

    async def close(self) -> Pcm:
        """Hang up; what it has heard."""
        await self.tell("close")
        await self.program.ended()
        return np.frombuffer(self._hears.read_bytes(), "<i2").astype(np.int16)


@asynccontextmanager
async def aiortc_caller(folder: Path, codec: str) -> AsyncIterator[Caller]:
    """One that has an offer and says QUESTION once it is connected."""
    says, hears = folder / "says.raw", folder / "hears.raw"
    said = np.concatenate([np.zeros(8000, np.int16), spoken(QUESTION, rate=16000), np.zeros(16000, np.int16)])
    says.write_bytes(said.astype("<i2").tobytes())
    command = [sys.executable, "-m", "tests.kit.aiortc_caller", codec, str(says), str(hears)]
    async with running(command, ready='"offer"', log=folder / "aiortc.log", stdin=subprocess.PIPE) as program:
        yield Caller(program, hears)


@pytest.mark.parametrize("codec", ["opus", "PCMU"])
async def test_aiortc_calls(tmp_path: Path, codec: str) -> None:
    """Words both ways; its `close` is the end of the call, and nothing is left of it."""
    async with open_real_house(tmp_path) as house, aiortc_caller(tmp_path, codec) as caller:
        async with house.agent("/call/webrtc") as agent:
            await agent.send("invite", option={"offer": caller.offer, **SPEECH})
            answer = await agent.until("answer")
            assert f" {codec}/" in answer["sdp"]
            await caller.tell(json.dumps({"answer": answer["sdp"]}))
            await caller.connected()
            assert alike((await agent.until("asrFinal"))["text"], QUESTION)
            await agent.says(ANSWER + TAIL)
            heard = await caller.close()
            await over(agent, "caller", "caller")
            assert "error" not in agent.names
        assert alike(heard_text(heard, 16000), ANSWER + TAIL)
        assert await house.owned() == NOTHING


async def test_our_hangup_ends_aiortc(tmp_path: Path) -> None:
    """The goodbye of DTLS: its connection is closed at once."""
    async with open_real_house(tmp_path) as house, aiortc_caller(tmp_path, "opus") as caller:
        async with house.agent("/call/webrtc") as agent:
            await agent.send("invite", option={"offer": caller.offer})
            await caller.tell(json.dumps({"answer": (await agent.until("answer"))["sdp"]}))
            await caller.connected()
            await agent.send("hangup")
            await over(agent, "system", "system")
            with trio.fail_after(5):
                await caller.program.until('"state": "closed"')
        assert await house.owned() == NOTHING
