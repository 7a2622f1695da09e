"""The other side of the speech measurement: phones, their agents, and the speech service that the server uses.

    python -m bench.voice_load VOICE_PORT HTTP_PORT

A VoiceApi as its server behaves (`rustpbx.testing.services.voiceapi`), and for each call an agent's WebSocket and a
phone, whose audio is the business of `bench/load/phones.c`. It answers each line of JSON with a line of JSON:
`{"call": 100}` brings the calls up and has all of them speak and be spoken to; `{"probe": 3}` measures each call so
many times, and tells the times in ms.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from contextvars import ContextVar
from typing import Any

import attrs
import trio

from bench.child import Child
from bench.load import build, speech_file
from rustpbx.errors import RustpbxError
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.shell.network import RealNetwork
from rustpbx.testing.agent import Agent, connect_agent
from rustpbx.testing.phone import Phone, open_phone
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
THINKS = 0.08
"""Seconds from a text to its first audio."""
FASTER = 2.5
"""How much faster than life the service speaks: its audio is not there all at once."""
SPREAD = 8.0
"""Seconds over which the turns of all calls are spread: people take one each ten seconds or so."""
PATIENCE = 5.0
"""Seconds after which what should have happened has not."""
QUIET = 0.3
"""Seconds without sound after which the last packet was the last."""
LOOK = 0.02
"""Seconds between two looks at what the phones hear; the times are theirs."""
ANSWER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
)


@attrs.define(eq=False)
class Voice(EmulatedVoiceApi):
    """Says a tone at its pace, and notes how long it took to begin."""

    async def _serve(self, stream: trio.abc.Stream) -> None:
        accepted.set(time.monotonic())
        await super()._serve(stream)

    async def converse(self, conversation: Conversation) -> None:
        """Note when the connection stood."""
        stood.set(time.monotonic())
        await super().converse(conversation)

    async def _say(self, conversation: Conversation, text: str) -> None:  # noqa: ARG002 - it never ends before it is cut
        asked = time.monotonic()
        query = conversation.asked.query
        rate, size = int(query["samplerate"]), int(query["chunk_size"])
        piece = tone(size / 2 / rate, rate=rate).astype("<i2").tobytes()
        await trio.sleep(THINKS)
        TOOK[int(query["sid"])] = stood.get() - accepted.get() + time.monotonic() - asked
        while True:
            await conversation.send(piece)
            await trio.sleep(size / 2 / rate / FASTER)


accepted: ContextVar[float] = ContextVar("accepted")
stood: ContextVar[float] = ContextVar("stood")
"""Of this connection: when it was there, and when it was a WebSocket."""

TOOK: dict[int, float] = {}
"""Seconds that the service itself took, by call (each call's speaker is its number): its part of connecting, and from
the text to the first audio.
"""


class Phones:
    """The phones' audio. `sounds` has for each, in seconds of the monotonic clock: when it began to talk, when what it
    hears (or heard last) began, when the last packet with sound came.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._limit = trio.CapacityLimiter(1)
        self.sounds: list[tuple[float, float, float]] = []
        self.looked = trio.Event()

    async def tell(self, line: str) -> dict[str, Any]:
        """Send a line, wait for the answer."""
        return await trio.to_thread.run_sync(self._child.tell, line, limiter=self._limit)

    async def look(self) -> None:
        """Keep `sounds` true."""
        while True:
            self.sounds = (await self.tell("sounds"))["sounds"]
            self.looked.set()
            self.looked = trio.Event()
            await trio.sleep(LOOK)


@attrs.define(eq=False)
class Measured:
    """One call: its phone's number and its agent; the times of its probes in ms."""

    number: int
    phones: Phones
    agent: Agent
    first: list[float] = attrs.field(factory=list)
    stop: list[float] = attrs.field(factory=list)
    barge: list[float] = attrs.field(factory=list)
    plays: int = 0

    async def speak(self) -> float:
        """Have something long said; when the command was sent."""
        self.plays += 1
        began = time.monotonic()
        await self.agent.send("tts", text=LONG, playId=f"p{self.plays}", speaker=str(self.number))
        return began

    async def last_sound(self) -> float:
        """When the last packet with sound came, once there is quiet."""
        while True:
            now = time.monotonic()
            await self.phones.looked.wait()
            last = self.phones.sounds[self.number][2]
            if now - last >= QUIET:
                return last

    async def sound_after(self, began: float) -> float:
        """When the sound began that was not there yet at `began`."""
        while (sounded := self.phones.sounds[self.number][1]) < began:
            await self.phones.looked.wait()
        return sounded

    async def probe(self, rng: random.Random) -> None:
        """One round: how soon the first packet is out, how soon it is quiet, and how soon by the caller's voice."""
        await self.agent.send("interrupt")
        await self.last_sound()
        await trio.sleep(1 + SPREAD * rng.random())  # what the phone said last is over, too
        began = await self.speak()
        self.first.append(float("inf"))
        with trio.move_on_after(PATIENCE):
            sounded = await self.sound_after(began)
            self.first[-1] = 1000 * (sounded - began - TOOK[self.number])
        await trio.sleep(0.5 + rng.random())
        told = time.monotonic()
        await self.agent.send("interrupt")
        self.stop.append(max(0.0, 1000 * (await self.last_sound() - told)))
        await self.speak()
        await trio.sleep(1 + rng.random())
        await self._barge_in()

    async def _barge_in(self) -> None:
        count = self.agent.names.count("speaking") + 1
        await self.phones.tell(f"talk {self.number}")
        with trio.move_on_after(PATIENCE) as patience:
            await self.agent.until("speaking", count)
        await self.agent.send("interrupt")
        last = await self.last_sound()
        talked = self.phones.sounds[self.number][0]
        self.barge.append(float("inf") if patience.cancelled_caught else 1000 * (last - talked))


class Load:
    """All calls, and what is asked of them."""

    def __init__(self, phone: Phone, phones: Phones, http: int, nursery: trio.Nursery) -> None:
        self._phone = phone
        self._phones = phones
        self._http = http
        self._nursery = nursery
        self._calls: list[Measured] = []

    async def call(self, count: int) -> dict[str, Any]:
        """Bring so many calls up, one after the other, and have them talk both ways."""
        ours = (await self._phones.tell(f"bind {count}"))["ports"]
        theirs = [await self._nursery.start(self._hold, number, port) for number, port in enumerate(ours)]
        await self._phones.tell("call " + " ".join(map(str, theirs)))
        self._nursery.start_soon(self._phones.look)
        await trio.sleep(SPREAD)
        return {"calls": len(self._calls)}

    async def _hold(self, number: int, port: int, *, task_status: trio.TaskStatus[int]) -> None:
        """One call; started with the port where the server wants its audio."""
        async with connect_agent(RealNetwork(), (HOST, self._http), f"/call/sip?id=voice-{number}") as agent:
            option = {"callee": self._phone.uri, "caller": "sip:agent@127.0.0.1", **OPTION}
            await agent.send("invite", option=option)
            call = await self._phone.ring()
            call.answer(body=ANSWER.format(port=port).encode())
            await agent.until("answer")
            measured = Measured(number, self._phones, agent)
            self._calls.append(measured)
            await measured.speak()
            task_status.started(parse_sdp(call.incoming.offer).media[0].port if call.incoming else 0)
            await trio.sleep_forever()

    async def probe(self, rounds: int) -> dict[str, Any]:
        """Measure them all at once, so many times."""
        rng = random.Random(1)
        await self._phones.tell("hush")
        await trio.sleep(1)  # until no utterance is open any more
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                for measured in self._calls:
                    nursery.start_soon(measured.probe, rng)
        kinds = ("first", "stop", "barge")
        return {kind: [ms for call in self._calls for ms in getattr(call, kind)] for kind in kinds}


async def main() -> None:
    """Answer until the pipe closes."""
    voice_port, http = map(int, sys.argv[1:])
    gc.freeze()
    gc.disable()  # its pauses would be taken for the server's
    with Child([str(build("phones")), str(speech_file()), "0"], None) as audio:
        print(json.dumps({"phones": audio.pid}), flush=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(Voice().serve, RealNetwork(), (HOST, voice_port))
            async with open_phone(RealNetwork(), HOST, seed=1) as phone:
                phone.audio = False
                load = Load(phone, Phones(audio), http, nursery)
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
