"""Debian's coturn on loopback: a TURN server that is not ours."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from rustpbx.core import Address
from tests.kit.certificates import make_files
from tests.kit.program import Program, running
from tests.kit.real import LOOPBACK, free_port

USERNAME, PASSWORD, REALM = "alice", "wonderland", "example.org"


@attrs.frozen
class Coturn:
    """Where it is, by UDP and TCP, and by TLS; `program` has what it says of what it does."""

    address: Address
    secure: Address
    program: Program


@asynccontextmanager
async def open_coturn(tmp_path: Path, *options: str) -> AsyncIterator[Coturn]:
    """A server that relays between loopback addresses; its process ends with the block."""
    port, secure = (free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM) for _ in range(2))
    files = make_files(tmp_path, LOOPBACK)
    command = [
        *(shutil.which("turnserver") or "turnserver", "-n", "--no-cli", "--no-dtls", "--lt-cred-mech", "-v"),
        *("--listening-ip", LOOPBACK, "--relay-ip", LOOPBACK, "--allow-loopback-peers"),
        *("--listening-port", str(port), "--tls-listening-port", str(secure)),
        *("--cert", str(files.certificate), "--pkey", str(files.private_key)),
        *("--user", f"{USERNAME}:{PASSWORD}", "--realm", REALM, "--userdb", str(tmp_path / "users")),
        *("--pidfile", str(tmp_path / "pid"), "--log-file", "stdout", "--simple-log", "--relay-threads", "1"),
        *options,
    ]
    async with running(command, ready="SQLite DB connection success", log=tmp_path / "coturn.log") as program:
        yield Coturn((LOOPBACK, port), (LOOPBACK, secure), program)
