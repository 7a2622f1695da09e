"""A Linux io_uring: requests and completions in shared memory, read and written here as numpy arrays; see io_uring(7).

What the kernel calls submission and completion queue entries are rows of `SQE` and `CQE`. The rings are read without
memory barriers, which only x86-64 forgives. A ring belongs to the thread that made it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = 4096

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

U32 = np.dtype("<u4")
SQE = np.dtype(
    [
        ("opcode", "u1"),
        ("flags", "u1"),
        ("ioprio", "<u2"),
        ("fd", "<i4"),
        ("addr2", "<u8"),
        ("addr", "<u8"),
        ("len", U32),
        ("op_flags", U32),
        ("user_data", "<u8"),
        ("buf_group", "<u2"),
        ("personality", "<u2"),
        ("addr_len", "<u2"),
        ("pad", "<u2"),
        ("addr3", "<u8"),
        ("pad2", "<u8"),
    ]
)
CQE = np.dtype([("user_data", "<u8"), ("res", "<i4"), ("flags", U32)])
_WAIT = np.dtype([("sigmask", "<u8"), ("sigmask_size", U32), ("pad", U32), ("timeout", "<u8")])
_PARAMS = np.dtype(
    [
        ("sq_entries", U32),
        ("cq_entries", U32),
        ("flags", U32),
        ("thread", U32, 2),
        ("features", U32),
        ("wq_fd", U32),
        ("reserved", U32, 3),
        ("sq_off", U32, 10),
        ("cq_off", U32, 10),
    ]
)

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_SETUP_CQSIZE, _SETUP_SUBMIT_ALL, _SETUP_SINGLE_ISSUER, _SETUP_DEFER_TASKRUN = 1 << 3, 1 << 7, 1 << 12, 1 << 13
_GETEVENTS, _EXT_ARG = 1 << 0, 1 << 3
_OFF_SQES = 0x1000_0000
_PROTECTION = 0x1 | 0x2  # PROT_READ | PROT_WRITE
_SHARED = 0x01 | 0x8000  # MAP_SHARED | MAP_POPULATE
_IN_PASSING = frozenset({errno.ETIME, errno.EINTR, errno.EBUSY, errno.EAGAIN})
"""No time is over, a signal came, or completions must be reaped first, which is what happens next."""


class _Kernel:
    """The three system calls and mmap; each raises OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._syscall = self._libc.syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = [ctypes.c_long] * 7
        size, number = ctypes.c_size_t, ctypes.c_int
        self._mmap = self._libc.mmap
        self._mmap.restype = ctypes.c_void_p
        self._mmap.argtypes = [ctypes.c_void_p, size, number, number, number, ctypes.c_long]
        self._munmap = self._libc.munmap
        self._munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def call(self, number: int, *arguments: int) -> int:
        padded = (*arguments, *(0,) * (6 - len(arguments)))
        result: int = self._syscall(number, *padded)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def map(self, size: int, fd: int, offset: int) -> tuple[int, Bytes]:
        """Share memory of `fd`: its address, and its bytes, which must not be touched after `unmap`."""
        address = self._mmap(None, size, _PROTECTION, _SHARED, fd, offset)
        if address in (None, ctypes.c_void_p(-1).value):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        memory = (ctypes.c_ubyte * size).from_address(address)
        return address, np.ctypeslib.as_array(memory)

    def unmap(self, address: int, size: int) -> None:
        self._munmap(address, size)


class Ring:
    """`submit` requests, let the kernel `process` what has come, `reap` what is completed.

    `completions` is the size of the completion ring. Raises OSError if the kernel does not have or not allow it.
    """

    def __init__(self, requests: int, completions: int) -> None:
        self._kernel = _Kernel()
        self._completions = completions
        params = np.zeros(1, _PARAMS)
        # Packets are processed when we ask, not when they come: a thread that sleeps is not woken by each of them.
        params["flags"] = _SETUP_CQSIZE | _SETUP_SUBMIT_ALL | _SETUP_SINGLE_ISSUER | _SETUP_DEFER_TASKRUN
        params["cq_entries"] = completions
        self.fd = self._kernel.call(_SETUP, requests, params.ctypes.data)
        self._no_time = np.zeros(2, np.int64)
        self._wait = np.zeros(1, _WAIT)
        self._wait["timeout"] = self._no_time.ctypes.data
        self._waiting = self._wait.ctypes.data
        self._maps: list[tuple[int, int]] = []
        self.close = weakref.finalize(self, _release, self._kernel, self.fd, self._maps)
        try:
            self._attach(params[0])
        except BaseException:
            self.close()
            raise

    def _attach(self, params: Array) -> None:
        head, tail, mask, _, _, _, array = (int(offset) for offset in params["sq_off"][:7])
        cq_head, cq_tail, cq_mask, _, _, cqes = (int(offset) for offset in params["cq_off"][:6])
        entries, completions = int(params["sq_entries"]), int(params["cq_entries"])
        rings = self._map(max(array + 4 * entries, cqes + CQE.itemsize * completions), 0)
        self._sqes = self._map(SQE.itemsize * entries, _OFF_SQES).view(SQE)
        self._sq_head, self._sq_tail = _word(rings, head), _word(rings, tail)
        self._cq_head, self._cq_tail = _word(rings, cq_head), _word(rings, cq_tail)
        self._sq_mask, self._cq_mask = int(_word(rings, mask)[0]), int(_word(rings, cq_mask)[0])
        self._cqes = rings[cqes : cqes + CQE.itemsize * completions].view(CQE)
        rings[array : array + 4 * entries].view(U32)[:] = np.arange(entries, dtype=U32)
        self.entries = entries

    def _map(self, size: int, offset: int) -> Bytes:
        address, memory = self._kernel.map(size, self.fd, offset)
        self._maps.append((address, size))
        return memory

    def register(self, operation: int, argument: Array) -> None:
        """io_uring_register(2) with one argument. Raises OSError."""
        self._kernel.call(_REGISTER, self.fd, operation, argument.ctypes.data, 1)

    def submit(self, requests: Array) -> None:
        """Hand over requests, in their order; what can be done at once is done when this returns."""
        for start in range(0, len(requests), self.entries):
            part = requests[start : start + self.entries]
            tail = int(self._sq_tail[0])
            self._sqes[(tail + np.arange(len(part))) & self._sq_mask] = part
            self._sq_tail[0] = (tail + len(part)) & 0xFFFFFFFF
            self._enter(len(part), 0, 0)

    def process(self) -> None:
        """Let the kernel process what has come, without waiting for more."""
        # Asked for fewer it would do some twenty at a time; asked for all it would wait, but for no time.
        self._enter(0, self._completions, _GETEVENTS | _EXT_ARG, self._waiting, _WAIT.itemsize)

    def _enter(self, *arguments: int) -> None:
        try:
            self._kernel.call(_ENTER, self.fd, *arguments)
        except OSError as problem:
            if problem.errno not in _IN_PASSING:
                raise

    def reap(self) -> Array:
        """What has been completed since the last time: a copy, (n,) of user_data, res, flags."""
        head, tail = int(self._cq_head[0]), int(self._cq_tail[0])
        if head == tail:
            return self._cqes[:0]
        done: Array = self._cqes[np.arange(head, head + ((tail - head) & 0xFFFFFFFF)) & self._cq_mask]
        self._cq_head[0] = tail
        return done


def _release(kernel: _Kernel, fd: int, maps: list[tuple[int, int]]) -> None:
    os.close(fd)
    for address, size in maps:
        kernel.unmap(address, size)


def aligned(size: int) -> Bytes:
    """Zeroed memory that begins at a page, as the kernel wants what it shares."""
    memory = np.zeros(size + PAGE, np.uint8)
    return memory[-memory.ctypes.data % PAGE :][:size]


def _word(memory: Bytes, offset: int) -> Array:
    return memory[offset : offset + 4].view(U32)
