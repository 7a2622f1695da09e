"""G.711 against the reference, code by code and sample by sample."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from rustpbx.media.codec.g711 import LAWS, PCMA, PCMU, Law
from rustpbx.media.events import Codec

ALL_CODES = np.arange(256, dtype=np.uint8)
ALL_SAMPLES = np.arange(65536, dtype=np.uint16).view(np.int16)

# SHA-256 of what audioop (CPython 3.11.7) gives for all codes and for all samples, little-endian.
GOLDEN = {
    Codec.PCMU: (
        "3dab54339e520bb2c924826e3b72a917a2b612e9fd12fc867500f1d983a75827",
        "617fa4850d68d3906597e949f7625fb2fc46db479e29707f33159b3d131721cb",
    ),
    Codec.PCMA: (
        "e04788d110e58ff8c70c93b8480190d973e3b67876b6119abbaec766cc75c174",
        "f77c76aa923ee25617453f87514828a12896227f82ff383bf3bb53d6ac7c2a0f",
    ),
}


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def audioop_functions() -> dict[Codec, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    """Decoder and encoder of the standard library per law; empty where it has none any more (3.13)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import audioop  # noqa: PLC0415 - deprecated since 3.11, gone in 3.13
    except ImportError:
        return {}
    return {
        Codec.PCMU: (lambda codes: audioop.ulaw2lin(codes, 2), lambda pcm: audioop.lin2ulaw(pcm, 2)),
        Codec.PCMA: (lambda codes: audioop.alaw2lin(codes, 2), lambda pcm: audioop.lin2alaw(pcm, 2)),
    }


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.codec.name)
def test_equals_the_golden_hashes(law: Law) -> None:
    """All 256 codes decode and all 65,536 samples encode as recorded from audioop."""
    decoded = law.decode(ALL_CODES).astype("<i2").tobytes()
    encoded = law.encode(ALL_SAMPLES).tobytes()
    assert (sha256(decoded), sha256(encoded)) == GOLDEN[law.codec]


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.codec.name)
def test_equals_audioop_where_it_exists(law: Law) -> None:
    """Bit-exact with the standard library; on Pythons without audioop the golden hashes stand for it."""
    for decode, encode in [audioop_functions().get(law.codec, (None, None))]:
        if decode is not None and encode is not None:
            assert law.decode(ALL_CODES).tobytes() == decode(ALL_CODES.tobytes())
            assert law.encode(ALL_SAMPLES).tobytes() == encode(ALL_SAMPLES.tobytes())


def test_known_values() -> None:
    """The corners of tables 1 and 2 of G.711."""
    assert PCMU.decode(np.array([0x00, 0x80, 0x7F, 0xFF], np.uint8)).tolist() == [-32124, 32124, 0, 0]
    assert PCMA.decode(np.array([0x2A, 0xAA, 0x55, 0xD5], np.uint8)).tolist() == [-32256, 32256, -8, 8]
    assert (PCMU.silence, PCMA.silence) == (0xFF, 0xD5)


def test_round_trip_of_every_code() -> None:
    """Encoding a decoded code returns it, but for the negative zero of mu-law."""
    assert PCMA.encode(PCMA.decode(ALL_CODES)).tolist() == ALL_CODES.tolist()
    back = PCMU.encode(PCMU.decode(ALL_CODES))
    assert np.flatnonzero(back != ALL_CODES).tolist() == [0x7F]
    assert back[0x7F] == 0xFF


def test_rows_keep_their_shape() -> None:
    """Both directions take arrays of any shape."""
    rows = np.tile(ALL_CODES, (3, 1))
    assert PCMU.decode(rows).shape == (3, 256)
    assert PCMU.encode(PCMU.decode(rows)).shape == (3, 256)
