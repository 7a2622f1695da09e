"""What the media plane is told and what it tells: read this file to know the layer.

`MediaFormat` is the agreement that SDP negotiation reaches and the plane obeys. Facts come back per leg. Times are
monotonic seconds on the plane's clock, positions are milliseconds of audio really sent.
"""

from __future__ import annotations

from enum import Enum

import attrs
import numpy as np
import numpy.typing as npt

from rustpbx.core import Address
from rustpbx.errors import LocalError

Pcm = npt.NDArray[np.int16]
"""Mono samples, shape (n,)."""


class Codec(Enum):
    """Audio codecs by their SDP encoding name."""

    PCMU = "PCMU"
    PCMA = "PCMA"
    G722 = "G722"
    OPUS = "opus"


class Direction(Enum):
    """RFC 3264 section 5.1, from our point of view."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"


class SrtpSuite(Enum):
    """What protects a stream, by its SDP name (RFC 4568 section 6.2, RFC 6188, RFC 7714)."""

    AES_CM_128_HMAC_SHA1_80 = "AES_CM_128_HMAC_SHA1_80"
    AES_CM_128_HMAC_SHA1_32 = "AES_CM_128_HMAC_SHA1_32"
    AES_256_CM_HMAC_SHA1_80 = "AES_256_CM_HMAC_SHA1_80"
    AES_256_CM_HMAC_SHA1_32 = "AES_256_CM_HMAC_SHA1_32"
    AEAD_AES_128_GCM = "AEAD_AES_128_GCM"
    AEAD_AES_256_GCM = "AEAD_AES_256_GCM"

    @property
    def key_size(self) -> int:
        """Bytes of master key and master salt together."""
        return _KEY_SIZES[self]


_KEY_SIZES = {
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: 30,
    SrtpSuite.AES_CM_128_HMAC_SHA1_32: 30,
    SrtpSuite.AES_256_CM_HMAC_SHA1_80: 46,
    SrtpSuite.AES_256_CM_HMAC_SHA1_32: 46,
    SrtpSuite.AEAD_AES_128_GCM: 28,
    SrtpSuite.AEAD_AES_256_GCM: 44,
}


@attrs.frozen
class SrtpKey:
    """What opens one direction of a stream: `master` is the master key with the master salt behind it."""

    suite: SrtpSuite
    master: bytes = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if len(self.master) != self.suite.key_size:
            raise LocalError(f"a key of {len(self.master)} bytes for {self.suite.value}")


@attrs.frozen(kw_only=True)
class SrtpKeys:
    """Both directions of a protected stream (RFC 3711): the key that we send with, and the peer's."""

    send: SrtpKey
    receive: SrtpKey


@attrs.frozen(kw_only=True)
class OpusParams:
    """How a peer wants to be sent Opus (RFC 7587 6.1): rates are in Hz and bits a second, `bitrate` None as we like."""

    playback_rate: int = 48_000
    bitrate: int | None = None
    fec: bool = False
    dtx: bool = False
    cbr: bool = False


@attrs.frozen(kw_only=True)
class MediaFormat:
    """One agreed audio stream.

    `remote` is the RTP address from the peer's SDP, `rtcp` where its RTCP goes (equal to `remote` under rtcp-mux, None
    for no RTCP). `receive_pt` is what the peer puts on packets to us, `send_pt` what we put on ours; the same for
    telephone-event (None if not agreed), whose durations count `dtmf_rate` Hz if not as the codec's clock does.
    `ptime` in ms is what the peer asked us to send. `opus` is how it wants that codec. With `srtp` both sides send
    SRTP and SRTCP and nothing else.
    """

    codec: Codec
    receive_pt: int
    send_pt: int
    remote: Address
    rtcp: Address | None = None
    rtcp_mux: bool = False
    direction: Direction = Direction.SENDRECV
    receive_dtmf_pt: int | None = None
    send_dtmf_pt: int | None = None
    dtmf_rate: int | None = None
    ptime: int = 20
    srtp: SrtpKeys | None = None
    opus: OpusParams = OpusParams()


@attrs.frozen
class LegOpened:
    """A leg has its socket: the even RTP port (RTCP on the next one, or muxed) and our SSRC."""

    leg: str
    port: int
    ssrc: int


@attrs.frozen
class VadParams:
    """Voice activity detection of one leg; times in seconds. `silence_timeout` None is off."""

    engine: str = "webrtc"
    speech_padding: float = 0.25
    silence_padding: float = 0.1
    threshold: float = 0.5
    silence_timeout: float | None = None


@attrs.frozen
class AudioBlock:
    """Some audio for a tap: samples, their rate in Hz, and when the first one was heard."""

    pcm: Pcm = attrs.field(eq=False)
    rate: int
    at: float


# -- facts ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class SpeechStarted:
    """Speech has lasted `speech_padding`; `at` is its real start."""

    leg: str
    at: float


@attrs.frozen
class SpeechEnded:
    """Silence has lasted `silence_padding` after reported speech; `silence_at` is when silence began."""

    leg: str
    started_at: float
    silence_at: float
    at: float


@attrs.frozen
class SilenceContinues:
    """Nobody has spoken for another `silence_timeout`; `since` is the start of that stretch, `at` its end."""

    leg: str
    since: float
    at: float


@attrs.frozen
class DigitPressed:
    """One key press (one of 0-9*#A-D): an RFC 4733 event, or tones found in the audio (`inband`)."""

    leg: str
    digit: str
    at: float
    inband: bool = False


@attrs.frozen
class BeepHeard:
    """One steady tone was in the audio, as answering machines have it: from `started_at` until `at`."""

    leg: str
    started_at: float
    at: float


@attrs.frozen
class KeyReleased:
    """A key that we pressed is up again, and the gap behind it has passed."""

    leg: str
    digit: str


@attrs.frozen
class LegFailed:
    """The plane ejected this leg because its own processing raised; the call must end."""

    leg: str
    problem: str


@attrs.frozen
class MediaSilent:
    """Neither RTP nor RTCP came from the peer for so many seconds, though it was to send; told again after as many."""

    leg: str
    seconds: float


@attrs.frozen
class WatchFailed:
    """This VAD engine cannot be had, so the leg is not watched for speech: `problem` says what is missing."""

    leg: str
    engine: str
    problem: str


@attrs.frozen
class DenoiseFailed:
    """The leg's audio is left as it is: `problem` says what is missing, or what went wrong."""

    leg: str
    problem: str


Fact = (
    SpeechStarted
    | SpeechEnded
    | SilenceContinues
    | WatchFailed
    | DenoiseFailed
    | DigitPressed
    | BeepHeard
    | KeyReleased
    | LegFailed
    | MediaSilent
)


@attrs.frozen
class LegStats:
    """Counters of a leg at its end; `round_trip` in seconds if RTCP told."""

    packets_sent: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    packets_dropped: int = 0
    jitter: float = 0.0
    round_trip: float | None = None
