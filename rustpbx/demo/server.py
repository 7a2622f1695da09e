"""The server as a child process: its configuration, its start, its log, its end."""

from __future__ import annotations

import json
import random
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import attrs
import httpx
import trio

from rustpbx.demo.trouble import PortTakenError, ServerDiedError
from rustpbx.outbound import open_client
from rustpbx.shell.network import RealNetwork
from rustpbx.speech.local import READY

HOST = "127.0.0.1"
RTP_PORTS = 40
START_LIMIT = 20.0  # seconds
WARM_LIMIT = 20.0  # seconds
LAST_LINES = 15


@attrs.frozen
class Ports:
    """Where the server will be: HTTP, SIP, and the first RTP port."""

    http: int
    sip: int
    rtp: int


def choose_ports(http: int = 0, sip: int = 0) -> Ports:
    """Check the ports asked for, find free ones for those left at 0. Raises `PortTakenError`."""
    return Ports(
        _free(socket.SOCK_STREAM, http, "--http-port"), _free(socket.SOCK_DGRAM, sip, "--sip-port"), _free_range()
    )


def _free(kind: socket.SocketKind, port: int, option: str) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to listen on
        try:
            probe.bind((HOST, port))
        except OSError as error:
            name = "TCP" if kind is socket.SOCK_STREAM else "UDP"
            raise PortTakenError(name, HOST, port, option) from error
        return int(probe.getsockname()[1])


def _free_range() -> int:
    """The first of `RTP_PORTS` UDP ports in a row, even; the last try is taken unseen."""
    for _ in range(50):
        first = random.randrange(20_000, 30_000, 2)
        held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(RTP_PORTS)]
        try:
            for offset, probe in enumerate(held):
                probe.bind((HOST, first + offset))
        except OSError:
            continue
        finally:
            for probe in held:
                probe.close()
        break
    return first


def write_config(folder: Path, ports: Ports, webhook: str) -> Path:
    """The server's configuration, as a user would write it."""
    path = folder / "config.toml"
    path.write_text(
        f"""\
# Written by `rustpbx demo`.
http_addr = "{HOST}:{ports.http}"
log_level = "info"
rtp_start_port = {ports.rtp}
rtp_end_port = {ports.rtp + RTP_PORTS}
media_cache_path = {json.dumps(str(folder / "cache"))}
recorder_path = {json.dumps(str(folder / "recordings"))}

[ua]
addr = "{HOST}"
udp_port = {ports.sip}
accept_timeout = "30s"

[ua.handler]
type = "webhook"
url = {json.dumps(webhook)}
"""
    )
    return path


class ServerProcess:
    """A running server. `http` is its `host:port`."""

    def __init__(self, process: trio.Process, output: trio.abc.ReceiveStream, ports: Ports, log: Path) -> None:
        self.http = f"{HOST}:{ports.http}"
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = process
        self._output = output
        self._log = log
        self._warm = trio.Event()

    async def read_log(self) -> None:
        """Copy its output into the log file until it ends, keeping the last lines."""
        rest = b""
        async with await trio.open_file(self._log, "ab") as file:
            async for chunk in self._output:
                await file.write(chunk)
                await file.flush()
                *lines, rest = (rest + chunk).split(b"\n")
                self.last_lines.extend(line.decode(errors="replace") for line in lines)
                if any(READY.encode() in line for line in lines):
                    self._warm.set()
        if rest:
            self.last_lines.append(rest.decode(errors="replace"))

    async def read_rest(self) -> None:
        """Copy what it said at its end."""
        with trio.move_on_after(1, shield=True):
            await self.read_log()

    async def watch(self) -> None:
        """Wait until it ends, which it should not. Raises `ServerDiedError`."""
        await self.read_log()
        status = await self._process.wait()
        raise ServerDiedError(f"the server ended with status {status}", self.last_lines)

    async def listening(self) -> None:
        """Wait until `/health` answers. Raises `ServerDiedError` after `START_LIMIT` seconds."""
        with trio.move_on_after(START_LIMIT):
            async with open_client(RealNetwork()) as client:
                while not await self._healthy(client):  # noqa: ASYNC110 - another process has no Event for us
                    await trio.sleep(0.05)
                return
        raise ServerDiedError(f"the server did not listen on {self.http} within {START_LIMIT:.0f} s", self.last_lines)

    async def warm(self) -> bool:
        """Wait until the embedded speech is loaded, so that no call waits for it; False after `WARM_LIMIT` seconds."""
        with trio.move_on_after(WARM_LIMIT):
            await self._warm.wait()
        return self._warm.is_set()

    async def _healthy(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(f"http://{self.http}/health", timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code == 200


@asynccontextmanager
async def running_server(config: Path, ports: Ports, log: Path) -> AsyncIterator[ServerProcess]:
    """Start `python -m rustpbx --conf ...`, wait until it listens, stop it at the end of the block."""
    command = [sys.executable, "-u", "-m", "rustpbx", "--conf", str(config)]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        if process.stdout is None:
            raise ServerDiedError("the server has no output", ())
        server = ServerProcess(process, process.stdout, ports, log)
        try:
            nursery.start_soon(server.watch)
            await server.listening()
            yield server
        finally:
            nursery.cancel_scope.cancel()  # first: that it ends now is no news
            await stop(process)
            await server.read_rest()


async def stop(process: trio.Process) -> None:
    """End a child, cancelled or not: politely, then after five seconds by force."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.terminate()
            with trio.move_on_after(5):
                await process.wait()
        if process.poll() is None:
            process.kill()
            await process.wait()
