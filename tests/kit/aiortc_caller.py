"""A caller made of aiortc, as a program of its own: `python -m tests.kit.aiortc_caller CODEC SAYS.raw HEARS.raw`.

It speaks in lines of JSON on its standard streams. It says `offer`, is given `answer`, says each `state` of its
connection, and `said` once all of SAYS has been sent; a line `close` ends it. Audio is raw: 16 kHz, mono, s16le.
"""

from __future__ import annotations

import asyncio
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import aioice.ice
import av
import numpy as np
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

RATE, FRAME = 16000, 320

# aioice leaves loopback out, where all of a test's machine may be.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []  # noqa: ARG005


def tell(**what: object) -> None:
    """One line for whoever runs this."""
    print(json.dumps(what), flush=True)  # noqa: T201 - the standard output is what this program speaks through


class Mouth(MediaStreamTrack):
    """Says what it is given, from the moment that it is connected, and silence before and after."""

    kind = "audio"

    def __init__(self, pcm: Any) -> None:
        super().__init__()
        self.connected = False
        self._frames = list(np.pad(pcm, (0, -len(pcm) % FRAME)).reshape(-1, FRAME))
        self._at = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when it is time for them."""
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        await asyncio.sleep(max(0.0, self._began + self._at / RATE - loop.time()))
        samples = np.zeros(FRAME, np.int16)
        if self.connected and self._frames:
            samples = self._frames.pop(0)
            if not self._frames:
                tell(said=True)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += FRAME
        return frame


async def listen(track: MediaStreamTrack, heard: list[bytes]) -> None:
    """Keep what is heard."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    while True:
        frame = await track.recv()
        assert isinstance(frame, av.AudioFrame)
        heard.extend(bytes(piece.to_ndarray().astype("<i2").tobytes()) for piece in resampler.resample(frame))


async def call(codec: str, says: bytes) -> bytes:
    """One call; what was heard."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    connection, mouth = RTCPeerConnection(), Mouth(np.frombuffer(says, "<i2"))
    heard: list[bytes] = []
    ears: list[asyncio.Task[None]] = []

    @connection.on("connectionstatechange")
    def changed() -> None:
        mouth.connected = mouth.connected or connection.connectionState == "connected"
        tell(state=connection.connectionState)

    @connection.on("track")
    def came(track: MediaStreamTrack) -> None:
        ears.append(asyncio.ensure_future(listen(track, heard)))

    connection.addTrack(mouth)
    known = RTCRtpSender.getCapabilities("audio").codecs
    wanted = [one for one in known if one.mimeType.lower() == f"audio/{codec.lower()}"]
    connection.getTransceivers()[0].setCodecPreferences(wanted)
    await connection.setLocalDescription(await connection.createOffer())
    tell(offer=connection.localDescription.sdp)
    answer = json.loads(await lines.readline())["answer"]
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await lines.readline()
    so_far = b"".join(heard)
    await connection.close()
    return so_far


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(asyncio.run(call(sys.argv[1], Path(sys.argv[2]).read_bytes())))
