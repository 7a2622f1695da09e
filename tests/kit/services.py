"""Speech services in memory: a way to them, audio for them, and what comes back."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import trio

from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.outbound import OutboundPolicy, Reach, open_client, open_guarded_client
from rustpbx.shell.nurseries import sole_error
from rustpbx.shell.offload import InlineOffload
from rustpbx.speech.base import Recognizer, SpeechChunk, Synthesizer, Transcript, Utterance
from rustpbx.speech.registry import SpeechServices
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.services.service import EmulatedService, Message
from rustpbx.testing.wire import Wire
from rustpbx.values import network as private_network

GOLDEN = Path(__file__).parents[1] / "golden" / "speech"
HOST = "10.0.0.9"
PORT = 8000
NOW = 1_700_000_000
"""Seconds since the epoch."""
BEGAN = 1000.0
"""When the audio of these tests was spoken, on the call's clock."""


@asynccontextmanager
async def serving(service: EmulatedService, *, open_to_agents: bool = False) -> AsyncIterator[SpeechServices]:
    """The service at `HOST:PORT`, and a server's services that reach it; agents may name it if `open_to_agents`.

    It is always `NOW`.
    """
    wire = Wire(seed=1)
    network = MemoryNetwork(wire, "10.0.0.1")
    policy = OutboundPolicy(allow_private=(private_network("10.0.0.0/8"),) if open_to_agents else ())
    async with (
        open_client(network) as client,
        open_guarded_client(network, policy) as guarded,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(service.serve, MemoryNetwork(wire, HOST), (HOST, PORT))
        yield SpeechServices(
            offload=InlineOffload(),
            trusted=Reach(network=network, client=client),
            guarded=Reach(network=network, client=guarded, policy=policy),
            wall=lambda: NOW,
            rng=random.Random(1),
        )
        nursery.cancel_scope.cancel()


def loud(seconds: float, rate: int = 16000) -> Pcm:
    """A tone."""
    tone: Pcm = (8000 * np.sin(2 * np.pi * 440 / rate * np.arange(round(seconds * rate)))).astype(np.int16)
    return tone


def quiet(seconds: float, rate: int = 16000) -> Pcm:
    """Silence."""
    return np.zeros(round(seconds * rate), np.int16)


async def hear(recognizer: Recognizer, audio: Pcm, *, pace: float = 1.0) -> list[Transcript]:
    """The transcripts of 16 kHz audio in blocks of 100 ms, that come as fast as they are spoken (or `pace` times)."""
    send_audio, blocks = trio.open_memory_channel[AudioBlock](0)
    send, transcripts = trio.open_memory_channel[Transcript](1000)

    async def speak() -> None:
        with send_audio:
            for at in range(0, len(audio), 1600):
                await send_audio.send(AudioBlock(audio[at : at + 1600], 16000, BEGAN + at / 16000))
                await trio.sleep(0.1 / pace)

    with sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with send:
                await recognizer.recognize(blocks, send)
            nursery.cancel_scope.cancel()
    return [transcript async for transcript in transcripts]


async def say(synthesizer: Synthesizer, utterance: Utterance) -> list[SpeechChunk]:
    """The audio of an utterance."""
    send, chunks = trio.open_memory_channel[SpeechChunk](10_000)
    with send:
        await synthesizer.synthesize(utterance, send)
    return [chunk async for chunk in chunks]


def golden(name: str) -> dict[str, Any]:
    """One of the recordings of what genuine clients and servers say."""
    recording: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return recording


def as_frames(messages: Sequence[Message]) -> list[dict[str, object]]:
    """Messages as the recordings note them: text as it is, binary by length and hash."""
    return [
        {"opcode": "text", "text": message}
        if isinstance(message, str)
        else {"opcode": "binary", "len": len(message), "sha256": hashlib.sha256(message).hexdigest()}
        for message in messages
    ]
