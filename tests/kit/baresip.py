"""baresip as a phone: a process with a configuration of its own, driven over its control socket.

It listens on loopback, plays a file of ours into its calls and writes down what it hears; it needs no sound card.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import trio

from rustpbx.media.events import Pcm
from tests.kit.program import running
from tests.kit.real import LOOPBACK, free_port
from tests.kit.recordings import BREATH, NO_SOUND, RATE, read_wav, write_wav

READY = "baresip is ready."
LENGTH = 60
"""Seconds of the file that a phone plays: longer than any call, because baresip ends a call with its file."""

PATIENCE = 30.0
"""Seconds that a phone has to do or tell what is waited for."""

MODULE_FOLDERS = ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules")

CONFIG = """\
poll_method select
sip_listen {host}:{sip}
net_interface {host}
rtp_ports {first_rtp}-{last_rtp}
ctrl_tcp_listen {host}:{control}
call_max_calls {max_calls}
statmode_default off
audio_source aufile,{folder}/says.wav
audio_player aubridge,nil
audio_alert aubridge,nil
snd_path {folder}
module_path {modules}
module g711.so
module aufile.so
module aubridge.so
module sndfile.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
"""


class Baresip:
    """One phone. `events` are all that it told so far; `uri` is where to call it."""

    def __init__(self, folder: Path, user: str, sip: int, control: trio.abc.Stream) -> None:
        self.events: list[dict[str, Any]] = []
        self.user = user
        self.address = (LOOPBACK, sip)
        self.uri = f"sip:{user}@{LOOPBACK}:{sip}"
        self._folder = folder
        self._control = control
        self._news = trio.lowlevel.ParkingLot()
        self._answers: list[dict[str, Any]] = []
        self._one_at_a_time = trio.Lock()

    async def read(self) -> None:
        """Collect what it tells until it is gone. Messages are JSON in netstrings."""
        data = b""
        async for piece in self._control:
            data += piece
            while (colon := data.find(b":")) >= 0 and len(data) > (end := colon + 1 + int(data[:colon])):
                self._sort(json.loads(data[colon + 1 : end]))
                data = data[end + 1 :]
                self._news.unpark_all()

    def _sort(self, message: dict[str, Any]) -> None:
        (self._answers if message.get("response") else self.events).append(message)

    async def do(self, command: str, params: str = "") -> str:
        """Have it do one of its commands; what it says to that. AssertionError if it refuses or is gone."""
        async with self._one_at_a_time:
            text = json.dumps({"command": command, "params": params}).encode()
            before = len(self._answers)
            await self._control.send_all(b"%d:%b," % (len(text), text))
            await self._wait(lambda: len(self._answers) > before, f"answer to {command}")
        answer = self._answers[-1]
        assert answer["ok"], f"baresip refused {command} {params}: {answer}"
        return str(answer["data"])

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of that type, as soon as it is there. AssertionError if it is not in time."""
        await self._wait(lambda: self.names.count(kind) >= count, kind)
        return [event for event in self.events if event["type"] == kind][count - 1]

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(PATIENCE):
            while not condition():
                await self._news.park()
        assert condition(), f"baresip told no {what} within {PATIENCE:g} s, but {self.names}"

    async def closed(self, count: int = 1) -> dict[str, Any]:
        """Wait until that many calls have ended and their recordings are whole."""
        event = await self.until("CALL_CLOSED", count)
        await self.do("listcalls")  # the recording is closed in the step in which the event was told
        return event

    @property
    def names(self) -> list[str]:
        """The types of the events, in order."""
        return [event["type"] for event in self.events]

    def heard(self) -> Pcm:
        """All that it has recorded, 8 kHz."""
        return np.concatenate([NO_SOUND, *(read_wav(path) for path in sorted(self._folder.glob("dump-*-dec.wav")))])

    async def hears_packets(self, count: int) -> None:
        """Wait until so many RTP packets of its one call have come. AssertionError if some were lost."""
        heard = -1
        with trio.move_on_after(PATIENCE):
            while heard < count:
                found = re.search(r"lost=0 .*rcvd=(\d+)", await self.do("audio_debug"), re.DOTALL)
                assert found is not None, "packets were lost, or there is no call"
                heard = int(found[1])
        assert heard >= count, f"of {count} packets {heard} have come within {PATIENCE:g} s"


@asynccontextmanager
async def open_baresip(
    tmp_path: Path,
    *,
    user: str = "phone",
    says: Pcm = NO_SOUND,
    account: str = "regint=0",
    max_calls: int = 4,
    config: str = "",
    rate: int = RATE,
) -> AsyncIterator[Baresip]:
    """A phone, ready for calls, with its files in a folder of `tmp_path`; its process ends with the block.

    It plays `says` (at `rate` Hz) 0.3 s into each call, and silence then. `account` are the parameters of its account,
    in baresip's words: `audio_codecs=PCMA;ptime=40`; `config` are further lines of its configuration.
    """
    folder = tmp_path / user
    sip = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM, count=3)  # it has TLS at the second one
    control = sip + 2
    settings = {"host": LOOPBACK, "sip": sip, "control": control, "max_calls": max_calls}
    _set_up(folder, settings, f"<sip:{user}@{LOOPBACK}>;{account}\n", config)
    _record(folder / "says.wav", says, rate)
    # Without stdbuf it would tell only at its end that it is ready.
    command = ["stdbuf", "-oL", "baresip", "-4", "-v", "-s", "-f", str(folder)]
    async with (
        running(command, ready=READY, log=folder / "log"),
        await trio.open_tcp_stream(LOOPBACK, control) as stream,
        trio.open_nursery() as nursery,
    ):
        phone = Baresip(folder, user, sip, stream)
        nursery.start_soon(phone.read)
        try:
            await phone.do("about")  # before it has taken our connection, what it tells is told to nobody
            yield phone
        finally:
            nursery.cancel_scope.cancel()


def _set_up(folder: Path, settings: Mapping[str, object], account: str, more: str) -> None:
    folder.mkdir()
    first_rtp = free_port(socket.SOCK_DGRAM) // 2 * 2
    modules = next(name for name in MODULE_FOLDERS if Path(name).is_dir())
    ports = {"first_rtp": first_rtp, "last_rtp": first_rtp + 40}
    (folder / "config").write_text(CONFIG.format(folder=folder, modules=modules, **ports, **settings) + more)
    (folder / "accounts").write_text(account)


def _record(path: Path, says: Pcm, rate: int) -> None:
    """The file that it plays."""
    breath, rest = np.zeros(BREATH.size * rate // RATE, np.int16), np.zeros(LENGTH * rate, np.int16)
    write_wav(path, np.concatenate([breath, says, rest]), rate)
