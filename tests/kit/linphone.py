"""linphonec as a phone: a process with a configuration of its own, driven by what one would type.

It takes its address from the default route even for calls on loopback: unless the machine has none but loopback, its
SDP names an address that its packets do not come from, as behind a NAT.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import trio

from rustpbx.media.events import Pcm
from tests.kit.program import Program, running
from tests.kit.real import LOOPBACK, free_port
from tests.kit.recordings import BREATH, NO_SOUND, RATE, read_wav, write_wav

READY = "Creating listening point"

CONFIG = """\
[sip]
sip_port={sip}
sip_tcp_port=0
sip_tls_port=0
bind_address={host}
{more}[net]
firewall_policy=0
[rtp]
audio_rtp_port={rtp}
[sound]
echocancellation=0
"""


class Linphone:
    """One phone. `uri` is where to call it."""

    def __init__(self, folder: Path, program: Program, keyboard: trio.abc.SendStream, sip: int) -> None:
        self.uri = f"sip:linphone@{LOOPBACK}:{sip}"
        self._folder = folder
        self._program = program
        self._keyboard = keyboard

    async def type(self, line: str) -> None:
        """Give it a command; digits alone are keys of the phone."""
        await self._keyboard.send_all(f"{line}\n".encode())

    async def until(self, words: str, count: int = 1) -> None:
        """Wait until it has said that so many times. AssertionError if it does not in time."""
        await self._program.until(words, count)

    def heard(self) -> Pcm:
        """All that it has recorded, 8 kHz; whole once it has said that the call has ended."""
        return read_wav(self._folder / "heard.wav")


@asynccontextmanager
async def open_linphone(tmp_path: Path, says: Pcm = NO_SOUND, sip_config: str = "") -> AsyncIterator[Linphone]:
    """A phone, ready for calls, that says `says` (8 kHz) 0.3 s into each call; its process ends with the block.

    `sip_config` are further lines of the [sip] section of its configuration.
    """
    folder = tmp_path / "linphone"
    sip = _set_up(folder, says, sip_config)
    command = ["linphonec", "-c", str(folder / "rc"), "-d", "6"]
    environment = {**os.environ, "HOME": str(folder), "TERM": "dumb"}
    keys, terminal = os.openpty()  # it reads its input by itself only from a terminal
    async with trio.lowlevel.FdStream(keys) as keyboard:
        try:
            run = running(command, ready=READY, log=folder / "log", stdin=terminal, environment=environment)
            async with run as program:
                phone = Linphone(folder, program, keyboard, sip)
                await phone.type("ipv6 disable")
                await phone.type("soundcard use files")
                await phone.type(f"play {folder / 'says.wav'}")
                await phone.type(f"record {folder / 'heard.wav'}")
                yield phone
        finally:
            os.close(terminal)


def _set_up(folder: Path, says: Pcm, more: str) -> int:
    (folder / ".local/share/linphone").mkdir(parents=True)  # without its database it never goes on the net
    sip, rtp = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM) // 2 * 2
    (folder / "rc").write_text(CONFIG.format(host=LOOPBACK, sip=sip, rtp=rtp, more=more))
    write_wav(folder / "says.wav", np.concatenate([BREATH, says, np.zeros(60 * RATE, np.int16)]))
    return sip
