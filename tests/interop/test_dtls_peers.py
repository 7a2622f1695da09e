"""DTLS-SRTP with programs of others: GnuTLS begins, an OpenSSL of its own waits, and both ends export the same keys."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rustpbx.media import dtls
from rustpbx.media.dtls.handshake import LABEL
from rustpbx.media.dtls.tables import DtlsState
from rustpbx.media.events import SrtpKey, SrtpKeys, SrtpSuite
from rustpbx.shell.drive import drive
from tests.kit.program import Program, running
from tests.kit.real import LOOPBACK, free_port

pytestmark = pytest.mark.real_time

SIZE = 60
"""Bytes of both keys and salts of AES-CM."""


class Peer:
    """Our end: an association on a UDP socket, which tells what it comes to."""

    def __init__(self, *, active: bool) -> None:
        self.certificate = dtls.Certificate(time())
        self.core = dtls.Association(self.certificate, active=active, entropy=os.urandom, timeout=20.0)
        self.facts, self.told = trio.open_memory_channel[dtls.Effect](10)
        self._inbox, self._coming = trio.open_memory_channel[dtls.Input](100)
        self._leaving, self._sent = trio.open_memory_channel[dtls.Send](100)
        self._socket = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def bind(self) -> int:
        """Its port."""
        await self._socket.bind((LOOPBACK, 0))
        return int(self._socket.getsockname()[1])

    def give(self, what: dtls.Input) -> None:
        """Hand an input to the core."""
        self._inbox.send_nowait(what)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It is driven until the end of the block."""
        with self._socket:  # closed only once nobody waits for it
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive)
                nursery.start_soon(self._send)
                nursery.start_soon(drive, self.core, self._coming, self._perform)
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()

    def _perform(self, effect: dtls.Effect) -> None:
        if isinstance(effect, dtls.Send):
            self._leaving.send_nowait(effect)
        else:
            self.facts.send_nowait(effect)

    async def _send(self) -> None:
        async for send in self._sent:
            await self._socket.sendto(send.data, send.destination)

    async def _receive(self) -> None:
        while True:
            data, source = await self._socket.recvfrom(4096)
            if self.core.state is DtlsState.IDLE:
                self.give(dtls.Path(source))
            self.give(dtls.Datagram(data, source))


def files(folder: Path, certificate: dtls.Certificate) -> tuple[str, str]:
    """A key and its certificate as the programs want them."""
    key, shown = folder / "key.pem", folder / "certificate.pem"
    key.write_bytes(certificate.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shown.write_bytes(certificate.certificate.public_bytes(Encoding.PEM))
    return str(key), str(shown)


async def exported(program: Program, words: str) -> tuple[SrtpKey, SrtpKey]:
    """The client's and the server's key by what a program says that it has exported (RFC 5764 4.2)."""
    await program.until(words)
    found = re.search(rf"{words}([0-9a-fA-F]{{{2 * SIZE}}})", program.said)
    assert found is not None, program.said
    data = bytes.fromhex(found[1])
    client, server = (data[16 * n :][:16] + data[32 + 14 * n :][:14] for n in (0, 1))
    suite = SrtpSuite.AES_CM_128_HMAC_SHA1_80
    return SrtpKey(suite, client), SrtpKey(suite, server)


@pytest.mark.interop("gnutls-cli")
@pytest.mark.rfc("5764", "4.1.2", "4.2")
@pytest.mark.rfc("6347", "4.2.1")
@pytest.mark.parametrize("mtu", [1400, 300])
async def test_gnutls_begins(tmp_path: Path, mtu: int) -> None:
    """It comes back with our cookie and shows its certificate, in fragments if its MTU is small: the same keys."""
    theirs, ours = dtls.Certificate(time()), Peer(active=False)
    ours.give(dtls.Trust((theirs.fingerprint,)))
    port = await ours.bind()
    key, certificate = files(tmp_path, theirs)
    command = [
        *("gnutls-cli", "--udp", "--insecure", f"--mtu={mtu}", "--srtp-profiles=SRTP_AES128_CM_HMAC_SHA1_80"),
        *(f"--keymatexport={LABEL.decode()}", f"--keymatexportsize={SIZE}"),
        *(f"--x509keyfile={key}", f"--x509certfile={certificate}", "-p", str(port), LOOPBACK),
    ]
    async with (
        ours.running(),
        running(command, ready="Key material: ", log=tmp_path / "log", stdin=subprocess.PIPE) as program,
    ):
        client, server = await exported(program, "Key material: ")
        assert await ours.told.receive() == dtls.Secured(SrtpKeys(send=server, receive=client))
    assert ours.core.counters == {"dtls_bare_hellos": 1}


@pytest.mark.interop("openssl")
@pytest.mark.rfc("5764", "4.1.2", "4.2")
async def test_openssl_waits(tmp_path: Path) -> None:
    """We begin; it wants our certificate, and has the same keys; it hears our goodbye."""
    theirs, ours = dtls.Certificate(time()), Peer(active=True)
    ours.give(dtls.Trust((theirs.fingerprint,)))
    await ours.bind()
    port = free_port(socket.SOCK_DGRAM)
    key, certificate = files(tmp_path, theirs)
    command = [
        *("stdbuf", "-oL", "openssl", "s_server", "-dtls1_2", "-accept", f"{LOOPBACK}:{port}", "-Verify", "1"),
        *("-use_srtp", "SRTP_AES128_CM_SHA1_80", "-key", key, "-cert", certificate),
        *("-keymatexport", LABEL.decode(), "-keymatexportlen", str(SIZE)),
    ]
    async with (
        running(command, ready="ACCEPT", log=tmp_path / "log", stdin=subprocess.PIPE) as program,
        ours.running(),
    ):
        ours.give(dtls.Path((LOOPBACK, port)))
        client, server = await exported(program, "Keying material: ")
        assert await ours.told.receive() == dtls.Secured(SrtpKeys(send=client, receive=server))
        ours.give(dtls.Close())
        await program.until("CONNECTION CLOSED")
