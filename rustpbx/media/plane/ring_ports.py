"""`RingPorts`: the media sockets through Linux's io_uring, without a system call for each packet.

Packets are received by requests that stay armed (multishot recvmsg) into a pool of buffers, and a tick's packets are
sent by one submission. `ring_ports` gives None where the kernel is too old (6.2 or newer is needed) or forbids it, as
many containers do; then `rustpbx.media.plane.port` has other means.
"""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Sequence

import numpy as np

from rustpbx.core import Address
from rustpbx.journal import Journal
from rustpbx.media.plane.bank import PACKET
from rustpbx.media.plane.port import Datagram, Parcel, bound_socket, lent_socket
from rustpbx.media.plane.uring import SQE, Array, Bytes, Ring, aligned
from rustpbx.shell.network import Datagrams

log = Journal(__name__)

REQUESTS = 4096
"""Places in the submission ring; what is more is submitted in several goes."""
BUFFERS = 4096
"""Packets that may be received and not yet taken; the kernel's socket buffers hold what is more."""
COMPLETIONS = 4 * BUFFERS

OUT = 16
"""Bytes of `struct io_uring_recvmsg_out`, which the kernel puts before each packet."""
NAME = 28
"""Bytes after it for the source: `struct sockaddr_in6`, the larger one."""
PAYLOAD = OUT + NAME
BUFFER = 2048
KNOWN_SOURCES = 4096
HANDLES = 4096
"""File descriptors that there is room for at first."""

_REGISTER_PBUF_RING = 22
_OP_RECVMSG, _OP_ASYNC_CANCEL, _OP_SEND = 10, 14, 26
_BUFFER_SELECT, _SKIP_SUCCESS = 1 << 5, 1 << 6  # flags of a request
_MULTISHOT = 1 << 1
_CANCEL_ALL_OF_FD = 1 << 0 | 1 << 1
_HAS_BUFFER, _MORE = 1 << 0, 1 << 1  # flags of a completion
_RECEIVE, _SEND, _CANCEL = 1, 2, 3
_BUF = np.dtype([("addr", "<u8"), ("len", "<u4"), ("bid", "<u2"), ("tail", "<u2")])


class RingPorts:
    """`rustpbx.media.plane.port.Ports` on one ring. Raises OSError if the kernel does not have or not allow it."""

    silent = False

    def __init__(self) -> None:
        self._ring = Ring(REQUESTS, COMPLETIONS)
        self._sockets: dict[int, socket.socket] = {}
        self._serial_of = np.zeros(HANDLES, np.uint64)
        self._serial = 0
        self._sources: dict[int | bytes, Address] = {}
        self._planned: Sequence[Parcel] = ()
        self._plan: Array = np.zeros(0, SQE)
        self._plan_names: list[Array] = []
        self._done: list[Array] = []
        self._refused: list[int] = []
        self._used: list[int] = []
        self._lapsed: list[int] = []
        self._memory = aligned(BUFFERS * BUFFER).reshape(BUFFERS, BUFFER)
        self.packets: Bytes = self._memory[:, PAYLOAD : PAYLOAD + PACKET]
        self._entries = aligned(BUFFERS * _BUF.itemsize).view(_BUF)
        self._entries_tail = 0
        self._ring.register(_REGISTER_PBUF_RING, _registration(self._entries.ctypes.data))
        self._give(np.arange(BUFFERS))
        self._message = _message_header()

    # -- sockets

    def open(self, host: str, port: int) -> int:
        """Bind `port` on the IP literal `host` and return its handle. Raises OSError if it is in use."""
        return self._hold(bound_socket(host, port))

    def adopt(self, sock: Datagrams) -> int:
        """Receive what comes to somebody else's socket, and send from it; see `Ports`."""
        return self._hold(lent_socket(sock))

    def _hold(self, sock: socket.socket) -> int:
        handle = sock.fileno()
        self._serial = self._serial % 0xFFFFFF + 1  # never 0, which is that of a closed one
        if handle >= self._serial_of.size:
            self._serial_of = np.concatenate([self._serial_of, np.zeros(handle, np.uint64)])
        self._sockets[handle] = sock
        self._serial_of[handle] = self._serial
        self._arm([handle])
        return handle

    def close(self, handle: int) -> None:
        """Give the port back; an unknown handle is ignored."""
        sock = self._sockets.pop(handle, None)
        if sock is None:
            return
        self._serial_of[handle] = 0
        self._planned = ()
        cancel = np.zeros(1, SQE)
        cancel["opcode"], cancel["fd"], cancel["op_flags"] = _OP_ASYNC_CANCEL, handle, _CANCEL_ALL_OF_FD
        cancel["user_data"] = _CANCEL << 56
        self._ring.submit(cancel)
        sock.close()
        self._ring.process()  # the request holds the socket until the kernel has dropped it

    def shutdown(self) -> None:
        """Close all sockets and the ring; nothing works after that."""
        for handle in list(self._sockets):
            self.close(handle)
        self._ring.close()

    def _arm(self, handles: Sequence[int]) -> None:
        """Receive on these sockets from now on."""
        requests = np.zeros(len(handles), SQE)
        requests["opcode"], requests["flags"], requests["ioprio"] = _OP_RECVMSG, _BUFFER_SELECT, _MULTISHOT
        requests["fd"] = handles
        requests["addr"], requests["len"] = self._message.ctypes.data, 1
        serials = self._serial_of[handles].tolist()
        marks = zip(handles, serials, strict=True)
        requests["user_data"] = [_RECEIVE << 56 | serial << 32 | handle for handle, serial in marks]
        self._ring.submit(requests)

    def name(self, handle: int) -> Address:
        """The address that a handle is bound to."""
        name = self._sockets[handle].getsockname()
        return name[0], name[1]

    # -- receiving

    def receive(self) -> list[Datagram]:
        """All datagrams that wait, as (handle, row of `packets`, size, source); never waits."""
        lapsed, self._lapsed = [handle for handle in self._lapsed if handle in self._sockets], []
        if lapsed:
            self._arm(lapsed)
        else:
            self._ring.process()
        self._reap()
        received = [datagram for done in self._done for datagram in self._read(done)]
        self._done.clear()
        return received

    def recycle(self) -> None:
        """What was received is not needed any more."""
        if self._used:
            self._give(np.array(self._used))
            self._used.clear()

    def _reap(self) -> None:
        """Sort what is completed: packets are kept for `receive`, refused sends for `send_all`."""
        done = self._ring.reap()
        kinds = done["user_data"] >> np.uint64(56)
        self._refused += (done["user_data"][kinds == _SEND] & np.uint64(0xFFFFFFFF)).tolist()
        packets = done[kinds == _RECEIVE]
        if packets.size:
            self._done.append(packets)

    def _read(self, done: Array) -> list[Datagram]:
        handles = (done["user_data"] & np.uint64(0xFFFFFFFF)).astype(np.intp)
        flags, rows = done["flags"], done["flags"] >> 16
        ours = self._serial_of[handles] == (done["user_data"] >> np.uint64(32)) & np.uint64(0xFFFFFF)
        ended = ours & (flags & _MORE == 0)
        if ended.any():  # out of buffers, or an ICMP error of something we sent: armed again
            self._lapsed += handles[ended].tolist()
        held = flags & _HAS_BUFFER != 0
        self._used += rows[held].tolist()
        good = held & ours & (done["res"] >= PAYLOAD)
        if not good.all():
            handles, rows, done = handles[good], rows[good], done[good]
        sizes = np.minimum(done["res"] - PAYLOAD, PACKET)
        return list(zip(handles.tolist(), rows.tolist(), sizes.tolist(), self._sources_of(rows), strict=True))

    def _sources_of(self, rows: Array) -> list[Address]:
        """Where the packets in these buffers come from."""
        names = self._memory[rows, OUT : OUT + NAME]
        # Family, port and IPv4 address are the first eight bytes; an IPv6 address needs all.
        keys: list[int | bytes] = names[:, :8].copy().view(np.uint64)[:, 0].tolist()
        for index in np.flatnonzero(names[:, 0] != socket.AF_INET).tolist():
            keys[index] = names[index].tobytes()
        known = self._sources
        sources = list(map(known.get, keys))
        if None in sources:
            if len(known) > KNOWN_SOURCES:
                known.clear()
            sources = [known.setdefault(key, _address(names[n].tobytes())) for n, key in enumerate(keys)]
        return sources  # type: ignore[return-value]  # what was None has been replaced

    def _give(self, buffers: Array) -> None:
        """Let the kernel use these buffers again."""
        places = (self._entries_tail + np.arange(len(buffers))) % BUFFERS
        self._entries["addr"][places] = self._memory.ctypes.data + buffers * BUFFER
        self._entries["len"][places] = PAYLOAD + PACKET
        self._entries["bid"][places] = buffers
        self._entries_tail = (self._entries_tail + len(buffers)) & 0xFFFF
        self._entries["tail"][0] = self._entries_tail

    # -- sending

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram; False if the system refused it."""
        try:
            self._sockets[handle].sendto(data, destination)
        except (OSError, KeyError):
            return False
        return True

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send datagrams in order; the indices of those that the system refused.

        The same list as the time before is sent by the same requests.
        """
        if parcels is not self._planned:
            self._prepare(parcels)
        self._refused.clear()
        self._ring.submit(self._plan)
        self._reap()
        return sorted(self._refused)

    def _prepare(self, parcels: Sequence[Parcel]) -> None:
        plan = np.zeros(len(parcels), SQE)
        names = [_socket_name(destination) for _, _, destination in parcels]
        plan["opcode"], plan["flags"] = _OP_SEND, _SKIP_SUCCESS
        plan["op_flags"] = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        plan["fd"] = [handle for handle, _, _ in parcels]
        plan["addr"] = [np.frombuffer(data, np.uint8).ctypes.data for _, data, _ in parcels]
        plan["len"] = [len(data) for _, data, _ in parcels]
        plan["addr2"] = [name.ctypes.data for name in names]
        plan["addr_len"] = [name.size for name in names]
        plan["user_data"] = np.arange(len(parcels)) | _SEND << 56
        self._planned, self._plan, self._plan_names = parcels, plan, names


def _registration(address: int) -> Array:
    """`struct io_uring_buf_reg` of buffer group 0."""
    registration = np.zeros(5, np.uint64)
    registration[0] = address
    registration[1] = BUFFERS
    return registration


def _message_header() -> Array:
    """`struct msghdr` that asks for the source of each packet."""
    header = np.zeros(7, np.uint64)
    header[1] = NAME
    return header


def _address(name: bytes) -> Address:
    """An address out of `struct sockaddr_in` or `sockaddr_in6`."""
    port = int.from_bytes(name[2:4], "big")
    if int.from_bytes(name[:2], sys.byteorder) == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port


def _socket_name(address: Address) -> Array:
    """`struct sockaddr_in` or `sockaddr_in6`."""
    host, port = address
    if ":" in host:
        family, rest = socket.AF_INET6, bytes(4) + socket.inet_pton(socket.AF_INET6, host) + bytes(4)
    else:
        family, rest = socket.AF_INET, socket.inet_pton(socket.AF_INET, host) + bytes(8)
    return np.frombuffer(family.to_bytes(2, sys.byteorder) + port.to_bytes(2, "big") + rest, np.uint8)


def ring_ports() -> RingPorts | None:
    """`RingPorts` if a packet sent through them arrives, else None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":  # the rings are read without memory barriers
        return None
    try:
        ports = RingPorts()
        return ports if _works(ports) else None
    except (OSError, ValueError) as problem:
        log.debug("no io_uring: %s", problem)
        return None


def _works(ports: RingPorts) -> bool:
    """Whether all operations that are used do what they should: kernels differ, and sandboxes more."""
    handle = ports.open("127.0.0.1", 0)
    try:
        here = ports.name(handle)
        refused = ports.send_all([(handle, memoryview(b"probe"), here)])
        received = ports.receive()
        fits = [(h, size, source, bytes(ports.packets[row, :size])) for h, row, size, source in received]
        ports.recycle()
        return not refused and fits == [(handle, 5, here, b"probe")]
    finally:
        ports.close(handle)
