"""SRTP and SRTCP (RFC 3711, RFC 6188, RFC 7714) in place, by libsrtp: `Sealer` for what we send, `Opener` for the rest.

Packets are changed where they lie, in the rows that the plane receives into and sends from. pylibsrtp's own classes
copy each packet three times; its binding is called directly, which halves the cost. One thread only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pylibsrtp import Policy
from pylibsrtp._binding import ffi, lib

from rustpbx.errors import MediaError
from rustpbx.media.events import SrtpKey, SrtpSuite
from rustpbx.media.rtp import Buffer

TRAILER = 16
"""Most bytes that sealing adds to an RTP packet: the tag. An MKI is never used."""

REPORT_TRAILER = TRAILER + 4
"""The same for RTCP: its tag and its index."""

MOST_SOURCES = 64
"""SSRCs that one key opens. Each is a context that libsrtp keeps; a peer that comes with more is not understood."""

REJECTED = -1
"""Not sealed by the peer: no or a wrong tag, too short, another SSRC too many."""

REPLAYED = -2
"""Its number was seen before, or is too old to tell. Whether the peer had sealed it is not asked any more."""

Pointer = Any
"""Where a packet begins: an opaque pointer of the binding."""

_OK = lib.srtp_err_status_ok
_protect, _unprotect = lib.srtp_protect, lib.srtp_unprotect
_SSRC: Callable[[Buffer, int], tuple[int]] = struct.Struct("!I").unpack_from
_REPLAYS = frozenset({9, 10})  # srtp_err_status_replay_fail, srtp_err_status_replay_old

_PROFILES = {
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SrtpSuite.AES_CM_128_HMAC_SHA1_32: Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    SrtpSuite.AES_256_CM_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SrtpSuite.AES_256_CM_HMAC_SHA1_32: Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    SrtpSuite.AEAD_AES_128_GCM: Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    SrtpSuite.AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
"""The profile that a suite begins with: DTLS-SRTP, which the profiles are for, has none of AES-256 in counter mode."""

_AES_256_CM = frozenset({SrtpSuite.AES_256_CM_HMAC_SHA1_80, SrtpSuite.AES_256_CM_HMAC_SHA1_32})
_CIPHER, _KEY_SIZE = 0, 1  # fields of srtp_crypto_policy_t, each 32 bits; the binding does not name them
_AES_ICM_128, _AES_ICM_256 = 1, 5
_TAG_SIZES = {
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: 10,
    SrtpSuite.AES_CM_128_HMAC_SHA1_32: 4,
    SrtpSuite.AES_256_CM_HMAC_SHA1_80: 10,
    SrtpSuite.AES_256_CM_HMAC_SHA1_32: 4,
    SrtpSuite.AEAD_AES_128_GCM: 16,
    SrtpSuite.AEAD_AES_256_GCM: 16,
}


def pointers(rows: npt.NDArray[np.uint8]) -> Sequence[Pointer]:
    """Where each of `rows` (n, m) begins; good for as long as the array lives."""
    first, step = rows.ctypes.data, rows.strides[0]
    return [ffi.cast("unsigned char *", first + step * index) for index in range(len(rows))]


def overhead(suite: SrtpSuite) -> int:
    """Bytes that sealing adds to an RTP packet."""
    return _TAG_SIZES[suite]


class _Context:
    """libsrtp's state for one direction of one key."""

    def __init__(self, key: SrtpKey, ssrc_type: int) -> None:
        self.key = key
        policy, self._kept = _policy(key, ssrc_type)
        session = ffi.new("srtp_t *")
        status = lib.srtp_create(session, policy)
        if status != _OK:
            raise MediaError(f"SRTP with {key.suite.value} is not possible here (libsrtp says {status})")
        self._owner = ffi.gc(session, _dealloc)
        self._session = session[0]
        self._size = ffi.new("int *")
        self._copy = ffi.new(f"unsigned char[{_LONGEST + REPORT_TRAILER}]")

    def _copied(self, function: Any, data: Buffer) -> bytes | None:
        """`data` after a function that changes a packet in place."""
        if len(data) > _LONGEST:
            return None
        ffi.memmove(self._copy, data, len(data))
        self._size[0] = len(data)
        if function(self._session, self._copy, self._size) != _OK:
            return None
        return bytes(ffi.buffer(self._copy, self._size[0]))


_LONGEST = 2048
"""Bytes of a packet that is copied."""


class Sealer(_Context):
    """What we send with one key."""

    def __init__(self, key: SrtpKey) -> None:
        """Raises `MediaError` if this machine's libsrtp does not have the suite."""
        super().__init__(key, lib.ssrc_any_outbound)

    def seal(self, packet: Pointer, size: int) -> bool:
        """Seal the RTP packet of `size` bytes at `packet`, which has room for `overhead` more; False if it cannot be.

        A sequence number is sealed once: the same again, or an older one, is refused.
        """
        self._size[0] = size
        return bool(_protect(self._session, packet, self._size) == _OK)

    def job(self, packet: Pointer, size: int) -> Job:
        """The same for `seal_all`, as often as wanted."""
        cell = ffi.new("int *")
        return (self, self._session, packet, cell, size)

    def sealed(self, data: Buffer) -> bytes | None:
        """The same for whoever has no such place: RTP as SRTP; None if it cannot be sealed."""
        return self._copied(_protect, data)

    def seal_report(self, data: Buffer) -> bytes | None:
        """RTCP as SRTCP; None if it cannot be sealed."""
        return self._copied(lib.srtp_protect_rtcp, data)


Job = tuple[Sealer, Any, Pointer, Any, int]
"""A packet to be sealed where it lies: by whom (so that it lives as long), and how."""


def seal_all(jobs: Iterable[Job]) -> list[int]:
    """Seal packets as `Sealer.seal` does; the indices of those that cannot be."""
    refused = []
    for index, (_, session, packet, cell, size) in enumerate(jobs):
        cell[0] = size
        if _protect(session, packet, cell):
            refused.append(index)
    return refused


class Opener(_Context):
    """What a peer sends with one key, from any SSRC."""

    def __init__(self, key: SrtpKey) -> None:
        """Raises `MediaError` if this machine's libsrtp does not have the suite."""
        super().__init__(key, lib.ssrc_any_inbound)
        self._sources: set[tuple[int]] = set()
        self._latest: tuple[int] | None = None
        self._tag = overhead(key.suite)
        self._least = 12 + self._tag

    def open(self, packet: Pointer, data: Buffer) -> int:
        """Open the SRTP packet `data`, which begins at `packet`, where it lies: its size as RTP, or why not.

        What is not opened is `REJECTED` or `REPLAYED`, and lies there changed or not: nothing may read it.
        """
        size = len(data)
        if size < self._least:
            return REJECTED
        source = _SSRC(data, 8)
        if source != self._latest and not self._may_come(source):
            return REJECTED
        self._size[0] = size
        status = _unprotect(self._session, packet, self._size)
        if status != _OK:
            return REPLAYED if status in _REPLAYS else REJECTED
        if source != self._latest:
            self._came(source)
        return size - self._tag

    def opened(self, data: Buffer) -> bytes | None:
        """The same for whoever has no such place: SRTP as RTP; None if it is not the peer's, or was seen before."""
        if len(data) < self._least or not self._may_come(_SSRC(data, 8)):
            return None
        packet = self._copied(_unprotect, data)
        if packet is not None:
            self._came(_SSRC(data, 8))
        return packet

    def open_report(self, data: Buffer) -> bytes | None:
        """SRTCP as RTCP; None if it is not the peer's, or was seen before."""
        if len(data) < 8 + 4 + 10 or not self._may_come(_SSRC(data, 4)):
            return None
        report = self._copied(lib.srtp_unprotect_rtcp, data)
        if report is not None:
            self._sources.add(_SSRC(data, 4))
        return report

    def _may_come(self, source: tuple[int]) -> bool:
        """Whether there is room for this SSRC."""
        return source in self._sources or len(self._sources) < MOST_SOURCES

    def _came(self, source: tuple[int]) -> None:
        """A packet of this SSRC was opened."""
        self._sources.add(source)
        self._latest = source


def _policy(key: SrtpKey, ssrc_type: int) -> tuple[Any, Any]:
    """A policy of libsrtp's, and the memory it points to."""
    policy = ffi.new("srtp_policy_t *")
    profile = _PROFILES[key.suite]
    for part, fill in (
        (policy.rtp, lib.srtp_crypto_policy_set_from_profile_for_rtp),
        (policy.rtcp, lib.srtp_crypto_policy_set_from_profile_for_rtcp),
    ):
        fill(ffi.addressof(part), profile)
        if key.suite in _AES_256_CM:
            _widen(ffi.cast("int32_t *", ffi.addressof(part)), key)
    master = ffi.new("unsigned char[]", key.master)
    policy.key = master
    policy.ssrc.type = ssrc_type
    return policy, master


def _widen(fields: Any, key: SrtpKey) -> None:
    """Make AES-256 of a policy for AES-128, whose fields must be where every libsrtp 2 has them."""
    if (fields[_CIPHER], fields[_KEY_SIZE]) != (_AES_ICM_128, SrtpSuite.AES_CM_128_HMAC_SHA1_80.key_size):
        raise MediaError(f"SRTP with {key.suite.value} is not possible with this libsrtp")
    fields[_CIPHER], fields[_KEY_SIZE] = _AES_ICM_256, key.suite.key_size


def _dealloc(session: Any) -> None:
    lib.srtp_dealloc(session[0])


def _supported() -> tuple[SrtpSuite, ...]:
    suites = []
    for suite in SrtpSuite:
        try:
            Sealer(SrtpKey(suite, bytes(suite.key_size)))
        except MediaError:
            continue
        suites.append(suite)
    return tuple(suites)


SUPPORTED = _supported()
"""The suites that this machine's libsrtp has: all of them, as a rule."""
