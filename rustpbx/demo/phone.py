"""The demo's phone, a process of its own: `python -m rustpbx.demo.phone --folder demo-out`.

It takes orders as JSON lines on stdin and tells what happens as JSON lines on stdout, times in epoch seconds. Orders:
`{"do": "dial", "call": "call-1", "uri": ..., "sentence": ...}`, `{"do": "expect", "call": "call-2", "sentence": ...}`.
It says its sentence once the greeting is over, listens to the answer, and leaves two recordings for each call.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio

from rustpbx.errors import RustpbxError
from rustpbx.media.events import Pcm
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.offload import InlineOffload
from rustpbx.sip.trace import Traced
from rustpbx.speech.base import SpeechChunk, Utterance
from rustpbx.speech.registry import SpeechServices, SynthesizerOptions, make_synthesizer
from rustpbx.testing.line import LOUD
from rustpbx.testing.phone import Phone, PhoneCall, open_phone

HOST = "127.0.0.1"
RATE = 8000
DEEPER_RATE, FASTER = 8900, 1.1
"""The caller's voice: synthesised faster at 8,900 Hz and played at 8,000, so a tenth deeper than the server's."""

GREETING_OVER = 0.9  # seconds of silence after which it is the caller's turn
REPLY_LIMIT = 15.0


def tell(what: str, **fields: object) -> None:
    """Write one line for the demo."""
    sys.stdout.write(json.dumps({"what": what, **fields}) + "\n")
    sys.stdout.flush()


async def synthesise(text: str) -> Pcm:
    """The caller's sentence at 8 kHz, without the silence around it: its end is the end of the words."""
    synthesizer = make_synthesizer(SynthesizerOptions(), SpeechServices(offload=InlineOffload()))
    send, receive = trio.open_memory_channel[SpeechChunk](100)
    async with send:
        await synthesizer.synthesize(Utterance(text=text, rate=DEEPER_RATE, speed=FASTER), send)
    pcm = np.concatenate([chunk.pcm async for chunk in receive]).astype(np.int16)
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > LOUD)
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm


def save_wav(path: Path, pcm: Pcm) -> None:
    """Write mono 16-bit samples at 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.astype("<i2").tobytes())


@attrs.define
class _Script:
    """What one call is about."""

    call: str
    sentence: Pcm
    folder: Path
    epoch: float = attrs.field(factory=lambda: time.time() - trio.current_time())

    async def converse(self, call: PhoneCall) -> None:
        """Listen to the greeting, speak, listen to the answer, wait for the end, leave the recordings."""
        media = await call.answered()
        self.tell("talking", codec=media.codec.value)
        self.tell("hears", first=True, at=self.epoch + await call.line.sound())
        await call.line.hush(GREETING_OVER)
        greeting_samples = len(call.hear())
        self.tell("speaks")
        spoken = await call.say(self.sentence)
        self.tell("spoke", at=self.epoch + spoken.ended_at)
        with trio.move_on_after(REPLY_LIMIT):
            self.tell("hears", first=False, at=self.epoch + await call.line.sound(spoken.ended_at))
        ending = await call.ended()
        self.tell("ended", by_us=ending.by_us, cause=type(ending.cause).__name__, at=self.epoch + ending.at)
        heard, sent = self.folder / f"{self.call}-phone-heard.wav", self.folder / f"{self.call}-phone-said.wav"
        save_wav(heard, call.hear())
        save_wav(sent, call.line.said())
        self.tell("saved", heard=heard.name, said=sent.name, greeting_samples=greeting_samples)

    def tell(self, what: str, **fields: object) -> None:
        """A line about this call."""
        tell(what, **{"call": self.call, "at": time.time(), **fields})


async def _obey(phone: Phone, order: dict[str, Any], folder: Path) -> None:
    script = _Script(order["call"], await synthesise(order["sentence"]), folder)
    tell("prepared", call=script.call, seconds=len(script.sentence) / RATE)
    try:
        if order["do"] == "dial":
            call = await phone.dial(order["uri"])
        else:
            call = await phone.ring()
            call.ringing()
            await trio.sleep(0.5)  # long enough to see it ring
            call.answer()
        await script.converse(call)
    except RustpbxError as error:
        script.tell("failed", problem=str(error))


def _trace(traced: Traced, epoch: float) -> None:
    text = traced.data.decode(errors="replace")
    tell("sip", direction=traced.direction, message=text, at=epoch + traced.now)


async def serve(folder: Path) -> None:
    """Take orders until stdin ends."""
    async with open_phone(RealNetwork(), HOST, user="alice") as phone, trio.open_nursery() as nursery:
        epoch = time.time() - trio.current_time()
        phone.on_trace = lambda traced: _trace(traced, epoch)
        tell("ready", uri=phone.uri)
        orders = trio.wrap_file(sys.stdin)
        while line := await orders.readline():
            nursery.start_soon(_obey, phone, json.loads(line), folder)
        nursery.cancel_scope.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """The process's whole life."""
    parser = argparse.ArgumentParser(prog="python -m rustpbx.demo.phone", description="The phone of `rustpbx demo`.")
    parser.add_argument("--folder", type=Path, default=Path("demo-out"), help="where the recordings go")
    try:
        trio.run(serve, parser.parse_args(argv).folder)
    except* KeyboardInterrupt:
        pass  # Ctrl-C reaches the whole process group; the demo says what is to be said
    return 0


if __name__ == "__main__":
    sys.exit(main())
