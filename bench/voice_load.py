"""The other side of the speech measurement: phones, their agents, and the speech service that the server uses.

    python -m bench.voice_load VOICE_PORT HTTP_PORT

A VoiceApi as its server behaves (`rustpbx.testing.services.voiceapi`), and for each call a phone, an RTP port and an
agent's WebSocket, all in one process with one clock. It answers each line of JSON with a line of JSON: `{"call": 100}`
brings the calls up and has all of them speak and be spoken to; `{"probe": 3}` measures each call so many times, and
tells the times in ms.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import attrs
import numpy as np
import trio

from bench.load import speech_file
from rustpbx.errors import RustpbxError
from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.events import Pcm
from rustpbx.shell.network import RealNetwork
from rustpbx.testing.agent import Agent, connect_agent
from rustpbx.testing.phone import Phone, PhoneCall, open_phone
from rustpbx.testing.services.service import Conversation
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from rustpbx.testing.speech import tone

HOST = "127.0.0.1"
OPTION: dict[str, object] = {
    "asr": {"provider": "voiceapi"},
    "tts": {"provider": "voiceapi"},
    "vad": {"type": "webrtc", "speechPadding": 60},
}
LONG = "what is said goes on until it is cut " * 10
PACE = 0.08
"""Seconds before each piece of 0.2 s: the service is faster than life, and its audio not there all at once."""
SPREAD = 1.0
"""Seconds over which what all calls do is spread."""
PATIENCE = 5.0
"""Seconds after which what should have happened has not."""
QUIET = 0.3
"""Seconds without sound after which the last packet was the last."""


@attrs.define(eq=False)
class Voice(EmulatedVoiceApi):
    """Says a tone at its pace, and notes how long it took to begin."""

    async def _say(self, conversation: Conversation, text: str) -> None:  # noqa: ARG002 - it never ends before it is cut
        query = conversation.asked.query
        piece = tone(0.2, rate=int(query["samplerate"])).astype("<i2").tobytes()
        began = trio.current_time()
        await trio.sleep(PACE)
        TOOK[int(query["sid"])] = trio.current_time() - began
        while True:
            await conversation.send(piece)
            await trio.sleep(PACE)


TOOK: dict[int, float] = {}
"""Seconds that the service took to begin, by call: each call's speaker is its number."""


@attrs.define(eq=False)
class Measured:
    """One call: its phone and its agent; the times of its probes in ms."""

    number: int
    phone: PhoneCall
    agent: Agent
    first: list[float] = attrs.field(factory=list)
    stop: list[float] = attrs.field(factory=list)
    barge: list[float] = attrs.field(factory=list)
    plays: int = 0
    speaks: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def speak(self) -> float:
        """Have something long said; when the command was sent."""
        self.plays += 1
        began = trio.current_time()
        await self.agent.send("tts", text=LONG, playId=f"p{self.plays}", speaker=str(self.number))
        return began

    async def talk(self, pcm: Pcm) -> None:
        """The phone's side: speech and pauses, until `speaks` is cancelled."""
        with self.speaks:
            while True:
                await self.phone.say(pcm)

    async def last_sound(self) -> float:
        """When the last packet with sound came, once there is quiet."""
        line = self.phone.line
        while True:
            last = line.loud_at
            await trio.sleep_until(max(last, trio.current_time() - QUIET) + QUIET)
            if line.loud_at == last:
                return last

    async def probe(self, speech: Pcm, rng: random.Random) -> None:
        """One round: how soon the first packet is out, how soon it is quiet, and how soon by the caller's voice."""
        await self.agent.send("interrupt")
        await self.last_sound()
        await trio.sleep(1 + SPREAD * rng.random())  # what the phone said last is over, too
        began = await self.speak()
        self.first.append(float("inf"))
        with trio.move_on_after(PATIENCE):
            sounded = await self.phone.line.sound(began)
            self.first[-1] = 1000 * (sounded - began - TOOK[self.number])
        await trio.sleep(0.5 + rng.random())
        told = trio.current_time()
        await self.agent.send("interrupt")
        self.stop.append(max(0.0, 1000 * (await self.last_sound() - told)))
        await self.speak()
        await trio.sleep(1 + rng.random())
        await self._barge_in(speech)

    async def _barge_in(self, speech: Pcm) -> None:
        count = self.agent.names.count("speaking") + 1
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(self.phone.say, speech)
            with trio.move_on_after(PATIENCE) as patience:
                await self.agent.until("speaking", count)
            await self.agent.send("interrupt")
            last = await self.last_sound()
            self.barge.append(float("inf") if patience.cancelled_caught else 1000 * (last - began))


class Load:
    """All calls, and what is asked of them."""

    def __init__(self, phone: Phone, http: int, nursery: trio.Nursery) -> None:
        self._phone = phone
        self._http = http
        self._nursery = nursery
        self._calls: list[Measured] = []
        self._speech = PCMU.decode(np.frombuffer(speech_file().read_bytes(), np.uint8))

    async def call(self, count: int) -> dict[str, Any]:
        """Bring so many calls up, one after the other, and have them talk both ways."""
        for number in range(count):
            up = trio.Event()
            self._nursery.start_soon(self._hold, number, up)
            await up.wait()
        await trio.sleep(SPREAD)
        return {"calls": len(self._calls)}

    async def _hold(self, number: int, up: trio.Event) -> None:
        async with connect_agent(RealNetwork(), (HOST, self._http), f"/call/sip?id=voice-{number}") as agent:
            option = {"callee": self._phone.uri, "caller": "sip:agent@127.0.0.1", **OPTION}
            await agent.send("invite", option=option)
            call = await self._phone.ring()
            call.answer()
            await agent.until("answer")
            measured = Measured(number, call, agent)
            self._calls.append(measured)
            await measured.speak()
            up.set()
            await measured.talk(self._speech)
            await trio.sleep_forever()

    async def probe(self, rounds: int) -> dict[str, Any]:
        """Measure them all at once, so many times."""
        rng = random.Random(1)
        for measured in self._calls:
            measured.speaks.cancel()
        await trio.sleep(1)  # until no utterance is open any more
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                for measured in self._calls:
                    nursery.start_soon(measured.probe, self._speech[:16000], rng)
        kinds = ("first", "stop", "barge")
        return {kind: [ms for call in self._calls for ms in getattr(call, kind)] for kind in kinds}


async def main() -> None:
    """Answer until the pipe closes."""
    voice_port, http = map(int, sys.argv[1:])
    async with trio.open_nursery() as nursery:
        await nursery.start(Voice().serve, RealNetwork(), (HOST, voice_port))
        async with open_phone(RealNetwork(), HOST, seed=1) as phone:
            load = Load(phone, http, nursery)
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                ((what, count),) = json.loads(line).items()
                try:
                    answer = await (load.call(count) if what == "call" else load.probe(count))
                except RustpbxError as problem:
                    answer = {"problem": str(problem)}
                print(json.dumps(answer), flush=True)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
