"""The same calls by aiortc: an answer to each offer, Opus both ways. Speaks JSON lines with `bench.webrtc`.

python -m bench.webrtc_aiortc [COMPLEXITY]
"""

from __future__ import annotations

import asyncio
import json
import sys
from fractions import Fraction
from itertools import cycle
from typing import Any

import aioice.ice
import aiortc.codecs.opus
import av
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from bench.codecs import voice
from rustpbx.media.codec.base import RATE, WIDE

aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []  # noqa: ARG005


class Encoder(aiortc.codecs.opus.OpusEncoder):
    """Theirs, at the complexity that is asked for; FFmpeg's name for it is another."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.options = {**self.codec.options, "compression_level": sys.argv[1]}


if len(sys.argv) > 1:
    aiortc.codecs.OpusEncoder = Encoder  # type: ignore[attr-defined]


class Mouth(MediaStreamTrack):
    """Says one sentence after the other."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames = cycle(voice().reshape(-1, WIDE))
        self._at = 0
        self._began = 0.0

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when it is time for them."""
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        await asyncio.sleep(max(0.0, self._began + self._at / RATE - loop.time()))
        frame = av.AudioFrame.from_ndarray(next(self._frames).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += WIDE
        return frame


class Calls:
    """All connections, and who listens to them."""

    def __init__(self) -> None:
        self._connections: list[RTCPeerConnection] = []
        self._ears: list[asyncio.Task[None]] = []

    async def answer(self, question: dict[str, Any]) -> dict[str, object]:
        """Answer an offer; there is nothing else to tell."""
        if "offer" not in question:
            return {"due": 1, "sent": 1, "late_p99": 0.0}
        connection = RTCPeerConnection()
        self._connections.append(connection)
        connection.on("track", lambda track: self._ears.append(asyncio.ensure_future(_listen(track))))
        await connection.setRemoteDescription(RTCSessionDescription(question["offer"], "offer"))
        connection.addTrack(Mouth())
        await connection.setLocalDescription(await connection.createAnswer())
        return {"answer": connection.localDescription.sdp}


async def _listen(track: MediaStreamTrack) -> None:
    """Samples at 16 kHz, as a recogniser wants them."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    while True:
        frame = await track.recv()
        assert isinstance(frame, av.AudioFrame)  # noqa: S101 - an audio track has no others
        for piece in resampler.resample(frame):
            piece.to_ndarray()


async def main() -> None:
    """Serve questions until the pipe closes."""
    calls = Calls()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await calls.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
