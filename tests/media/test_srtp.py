"""SRTP through libsrtp: the RFCs' vectors, a second implementation, and what a hostile peer may send."""

from __future__ import annotations

import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from rustpbx.media.events import SrtpKey, SrtpSuite
from rustpbx.media.rtcp import ReceiverReport, SourceDescription, build_rtcp
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.srtp import MOST_SOURCES, REJECTED, REPLAYED, SUPPORTED, TRAILER, Opener, Sealer, overhead, pointers
from tests.kit.srtp import HEADER, Protector, derive, keystream

REPORT = build_rtcp([ReceiverReport(ssrc=0xCAFEBABE), SourceDescription(ssrc=0xCAFEBABE, cname="a phone")])
SUITES = pytest.mark.parametrize("suite", SrtpSuite)


def key_of(suite: SrtpSuite, seed: int = 1) -> SrtpKey:
    """A key."""
    return SrtpKey(suite, random.Random(seed).randbytes(suite.key_size))


def rtp(sequence: int, ssrc: int = 0xCAFEBABE, size: int = 160) -> bytes:
    """A packet of that sequence number."""
    payload = random.Random(sequence).randbytes(size)
    return build_rtp(RtpPacket(payload_type=0, sequence=sequence, timestamp=160 * sequence, ssrc=ssrc, payload=payload))


class Row:
    """A place in memory, as the plane has them."""

    def __init__(self) -> None:
        self.rows = np.zeros((3, 512), np.uint8)
        self.place = pointers(self.rows)[1]

    def seal(self, sealer: Sealer, packet: bytes) -> bytes | None:
        """A packet sealed in it."""
        self.rows[1, : len(packet)] = np.frombuffer(packet, np.uint8)
        done = sealer.seal(self.place, len(packet))
        return bytes(self.rows[1, : len(packet) + overhead(sealer.key.suite)]) if done else None

    def open(self, opener: Opener, packet: bytes) -> bytes | int:
        """A packet opened in it, or why not. Nothing beside it changes."""
        self.rows[:] = 0xEE
        self.rows[1, : len(packet)] = np.frombuffer(packet, np.uint8)
        size = opener.open(self.place, memoryview(self.rows[1])[: len(packet)])
        assert (self.rows[[0, 2]] == 0xEE).all()
        assert (self.rows[1, len(packet) :] == 0xEE).all()
        return bytes(self.rows[1, :size]) if size >= 0 else size


# -- the second implementation is right ------------------------------------------------------------------------------

CASES = [
    (
        "e1f97a0d3e018be0d64fa32c06de4139",
        "0ec675ad498afeebb6960b3aabe6",
        "c61e7a93744f39ee10734afe3ff7a087",
        "30cbbc08863d8c85d49db34a9ae1",
        "cebe321f6ff7716b6fd4ab49af256a156d38baa4",
    ),
    (
        "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6",
        "3b04803de51ee7c96423ab5b78d2",
        "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4",
        "fa31791685ca444a9e07c6c64e93",
        "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05",
    ),
]


@pytest.mark.rfc("3711", "B.3")
@pytest.mark.rfc("6188", "7.2")
@pytest.mark.parametrize(("master", "salt", "cipher", "cipher_salt", "auth"), CASES)
def test_key_derivation(master: str, salt: str, cipher: str, cipher_salt: str, auth: str) -> None:
    """The vectors of RFC 3711 appendix B.3 and RFC 6188 section 7.2."""
    key, start = bytes.fromhex(master), bytes.fromhex(salt)
    derived = [derive(key, start, label, size).hex() for label, size in ((0, len(key)), (2, 14), (1, 20))]
    assert derived == [cipher, cipher_salt, auth]


@pytest.mark.rfc("3711", "B.2")
def test_the_keystream() -> None:
    """AES in counter mode, RFC 3711 appendix B.2."""
    start = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000")
    assert keystream(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), start, 48).hex() == (
        "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0"
    )


@pytest.mark.rfc("7714", "16")
@pytest.mark.parametrize(
    ("size", "sealed"),
    [
        (
            16,
            "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            32,
            "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ],
)
def test_galois_counter_mode(size: int, sealed: str) -> None:
    """RFC 7714 sections 16.1.1 and 16.2.1, whose keys are session keys: how the nonce and the header are used."""
    packet = bytes.fromhex("8040f17b8041f8d35501a0b2") + b"Gallia est omnis divisa in partes tres"
    protector = Protector(key_of(SrtpSuite.AEAD_AES_128_GCM))
    protector._rtp = (bytes(range(size)), b"", bytes.fromhex("517569642070726f2071756f"))
    assert protector.seal(packet)[HEADER:].hex() == sealed
    assert (
        AESGCM(bytes(range(size)))
        .decrypt(bytes.fromhex("51753c6580c2726f20718414"), bytes.fromhex(sealed), packet[:HEADER])
        .startswith(b"Gallia")
    )


# -- ours is right ---------------------------------------------------------------------------------------------------


def test_every_suite_is_there() -> None:
    """The libsrtp that pylibsrtp brings has all of them."""
    assert tuple(SrtpSuite) == SUPPORTED


@pytest.mark.parametrize(
    ("suite", "case", "sealed"),
    [
        (SrtpSuite.AES_CM_128_HMAC_SHA1_80, CASES[0], "4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb"),
        (SrtpSuite.AES_256_CM_HMAC_SHA1_80, CASES[1], "f1d9de17ff251ff1aa007774b0b4b40da08d9d9a5b3a55d8873b"),
    ],
)
def test_packets_that_libsrtp_publishes(suite: SrtpSuite, case: tuple[str, ...], sealed: str) -> None:
    """With the master keys of RFC 3711 and RFC 6188: our own widening of a policy to AES-256 included."""
    header = bytes.fromhex("800f1234decafbadcafebabe")
    key = SrtpKey(suite, bytes.fromhex(case[0] + case[1]))
    packet = header + b"\xab" * 16
    assert Row().seal(Sealer(key), packet) == header + bytes.fromhex(sealed)
    assert Row().open(Opener(key), header + bytes.fromhex(sealed)) == packet


@SUITES
def test_rtp_agrees_with_the_second_implementation(suite: SrtpSuite) -> None:
    """Both ways, over a wrap of the sequence number: the rollover counter counts."""
    key = key_of(suite)
    sealer, opener, other, row = Sealer(key), Opener(key), Protector(key), Row()
    for index in range(65_500, 65_600):
        packet, roc = rtp(index & 0xFFFF), index >> 16
        sealed = row.seal(sealer, packet)
        assert sealed == other.seal(packet, roc)
        assert row.open(opener, other.seal(packet, roc)) == packet
        assert other.open(sealed, roc) == packet
        assert len(sealed) - len(packet) <= TRAILER


@SUITES
def test_rtcp_agrees_with_the_second_implementation(suite: SrtpSuite) -> None:
    """Both ways; a report that came before is not opened again."""
    key = key_of(suite)
    sealer, opener, other = Sealer(key), Opener(key), Protector(key)
    for index in range(1, 20):
        sealed = sealer.seal_report(REPORT)
        assert sealed == other.seal_report(REPORT, index)
        assert other.open_report(sealed) == REPORT
        assert opener.open_report(other.seal_report(REPORT, index)) == REPORT
    assert opener.open_report(other.seal_report(REPORT, 19)) is None


# -- what must not be believed ---------------------------------------------------------------------------------------


@SUITES
def test_replayed_and_forged_packets(suite: SrtpSuite) -> None:
    """The same again is told apart from what nobody with the key has sent; neither harms what comes after."""
    key = key_of(suite)
    opener, other, row = Opener(key), Protector(key), Row()
    first = other.seal(rtp(1))
    assert row.open(opener, first) == rtp(1)
    assert row.open(opener, first) == REPLAYED
    assert row.open(opener, rtp(2)) == REJECTED
    assert row.open(opener, Protector(key_of(suite, 2)).seal(rtp(2))) == REJECTED
    for at in (1, 9, 12, len(first) - 1):
        changed = bytearray(other.seal(rtp(2)))
        changed[at] ^= 1
        assert row.open(opener, bytes(changed)) == REJECTED
    for sequence in (300, 2, 299):
        assert row.open(opener, other.seal(rtp(sequence))) == (REPLAYED if sequence == 2 else rtp(sequence))


@SUITES
def test_one_key_opens_a_bounded_number_of_sources(suite: SrtpSuite) -> None:
    """Each SSRC is memory: so many and no more, RTP and RTCP together; those that were first go on."""
    key = key_of(suite)
    opener, other, row = Opener(key), Protector(key), Row()
    for ssrc in range(MOST_SOURCES):
        assert row.open(opener, other.seal(rtp(1, ssrc))) == rtp(1, ssrc)
    assert row.open(opener, other.seal(rtp(1, MOST_SOURCES))) == REJECTED
    assert opener.open_report(other.seal_report(REPORT)) is None
    assert row.open(opener, other.seal(rtp(2, 3))) == rtp(2, 3)


def test_a_sequence_number_is_sealed_once() -> None:
    """The same keystream twice would open both packets to anybody: refused, and the next one goes on."""
    sealer, row = Sealer(key_of(SrtpSuite.AES_CM_128_HMAC_SHA1_80)), Row()
    assert row.seal(sealer, rtp(7)) is not None
    assert row.seal(sealer, rtp(7)) is None
    assert row.seal(sealer, rtp(8)) is not None


def test_a_key_is_not_shown() -> None:
    """Not in what a log or a traceback may print."""
    key = key_of(SrtpSuite.AEAD_AES_256_GCM)
    assert repr(key) == "SrtpKey(suite=<SrtpSuite.AEAD_AES_256_GCM: 'AEAD_AES_256_GCM'>)"


OPENERS = {suite: Opener(key_of(suite)) for suite in SrtpSuite}


@settings(max_examples=300)
@given(suite=st.sampled_from(SrtpSuite), data=st.binary(max_size=400))
def test_any_bytes_are_rejected(suite: SrtpSuite, data: bytes) -> None:
    """Nothing but a packet that was sealed with the key is ever opened, and nothing raises."""
    assert Row().open(OPENERS[suite], data) == REJECTED
    assert OPENERS[suite].open_report(data) is None


@settings(max_examples=300)
@given(suite=st.sampled_from(SrtpSuite), data=st.data())
def test_cut_and_bent_packets_are_rejected(suite: SrtpSuite, data: st.DataObject) -> None:
    """Of a real packet every part is covered by its tag: cut, lengthened or with a bit changed it is not opened."""
    key = key_of(suite)
    whole = Protector(key).seal(rtp(data.draw(st.integers(0, 65_535)), size=data.draw(st.integers(0, 200))))
    cut = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    bent = bytearray(whole)
    bent[bit // 8] ^= 1 << bit % 8
    for broken in (whole[:cut], bytes(bent), whole + data.draw(st.binary(min_size=1, max_size=20))):
        assert Row().open(Opener(key), broken) == REJECTED
    report = Protector(key).seal_report(REPORT)
    cut = data.draw(st.integers(0, len(report) - 1))
    assert Opener(key).open_report(report[:cut]) is None
