"""The load: one process that plays every phone, each with its own socket, and counts what it hears. Speaks JSON lines.

Lean on purpose: connected sockets, one packet buffer a phone, sends spread over the 20 ms.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time

import numpy as np
import numpy.typing as npt

from rustpbx.media.codec.g711 import PCMU

TICK = 0.02
SO_TIMESTAMPNS = 35
"""Linux: the kernel says when each packet arrived. Python does not name it."""

GROUPS = 4
"""The phones send in so many groups, 5 ms apart."""


def speech(seconds: int = 8) -> bytes:
    """Something that a VAD takes for speech half of the time: a buzz with formants and syllables, and pauses."""
    time_axis = np.arange(seconds * 8000) / 8000
    buzz: npt.NDArray[np.float64] = sum(  # type: ignore[assignment]  # sum() of arrays is an array
        gain * np.sin(2 * np.pi * 130 * k * time_axis)
        for k, gain in ((1, 0.6), (2, 0.8), (4, 1.0), (5, 0.9), (9, 0.5), (17, 0.2))
    )
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time_axis)
    talking = (time_axis % 4) < 2
    pcm = 3000 * buzz * syllables * talking
    return PCMU.encode(np.clip(pcm, -32768, 32767).astype(np.int16)).tobytes()


class Phones:
    """All phones."""

    def __init__(self) -> None:
        self._audio = speech()
        self._sockets: list[socket.socket] = []
        self._packets: list[bytearray] = []
        self._last: list[float] = []
        self._ticks = 0
        self._calling = False
        self._received = self._refused = 0
        self._gaps: list[float] = []
        self._marked = time.monotonic()

    def run(self) -> None:
        """Until the questions end."""
        questions = select.poll()
        questions.register(sys.stdin.fileno(), select.POLLIN)
        due = time.monotonic()
        group = 0
        while True:
            due += TICK / GROUPS
            time.sleep(max(0.0, due - time.monotonic()))
            if questions.poll(0) and not self._answer():
                return
            if self._calling:
                self._receive(group)
                self._send(group)
            group = (group + 1) % GROUPS
            self._ticks += group == 0

    def _send(self, group: int) -> None:
        tick, audio = self._ticks, self._audio
        for index in range(group, len(self._sockets), GROUPS):
            packet = self._packets[index]
            struct.pack_into("!HI", packet, 2, tick & 0xFFFF, tick * 160 & 0xFFFFFFFF)
            at = (tick + 13 * index) * 160 % len(audio)
            packet[12:] = audio[at : at + 160]
            try:
                self._sockets[index].send(packet)
            except OSError:
                self._refused += 1

    def _receive(self, group: int) -> None:
        """Count what came to the phones of a group. To wait for it would charge the server with each waking up."""
        for index in range(group, len(self._sockets), GROUPS):
            with contextlib.suppress(OSError):  # nothing there, or the server has gone
                while True:
                    self._count(index, self._sockets[index].recvmsg(0, 64)[1])

    def _count(self, index: int, ancillary: list[tuple[int, int, bytes]]) -> None:
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        now = seconds + nanoseconds / 1e9
        self._received += 1
        self._gaps.append(now - self._last[index])
        self._last[index] = now

    def _answer(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        question = json.loads(line)
        answer: dict[str, object] = {}
        if "bind" in question:
            answer = {"ports": [self._bind(index) for index in range(question["bind"])]}
        elif "call" in question:
            for sock, port in zip(self._sockets, question["call"], strict=True):
                sock.connect(("127.0.0.1", port))
            self._calling = True
        else:
            answer = self._mark()
        print(json.dumps(answer), flush=True)
        return True

    def _bind(self, index: int) -> int:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind(("127.0.0.1", 0))
        self._sockets.append(sock)
        self._packets.append(bytearray(struct.pack("!BBHII", 0x80, 0, 0, 0, 1000 + index) + bytes(160)))
        self._last.append(time.time())
        port: int = sock.getsockname()[1]
        return port

    def _mark(self) -> dict[str, object]:
        """What came since the last mark."""
        now = time.monotonic()
        answer: dict[str, object] = {}
        if self._calling:
            off = np.abs(np.array(self._gaps or [TICK]) - TICK)
            answer = {
                "received": self._received,
                "seconds": now - self._marked,
                "jitter_p99": float(np.percentile(off, 99)),
                "refused": self._refused,
            }
        self._received = self._refused = 0
        self._gaps = []
        self._marked = now
        return answer


if __name__ == "__main__":
    Phones().run()
