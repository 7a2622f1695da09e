"""Which formats of SDP are codecs of ours, and what is said with them: numbers, names, and Opus's parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from rustpbx.media.events import Codec, OpusParams
from rustpbx.media.sdp.model import Fmtp, MediaDescription, RtpMap


@attrs.frozen
class CodecRules:
    """What a leg may be spoken in, best first; with `own_order` ours decides which codec of an offer is answered."""

    codecs: tuple[Codec, ...] = (Codec.PCMU, Codec.PCMA)
    own_order: bool = False

    def preferring(self, codec: Codec | None) -> CodecRules:
        """The same with this codec first, if it is one of them."""
        if codec not in self.codecs:
            return self
        return attrs.evolve(self, codecs=(codec, *(other for other in self.codecs if other is not codec)))


OFFERED = {
    Codec.PCMU: RtpMap(0, "PCMU", 8000),
    Codec.PCMA: RtpMap(8, "PCMA", 8000),
    Codec.G722: RtpMap(9, "G722", 8000),
    Codec.OPUS: RtpMap(111, "opus", 48_000, 2),
}
"""How we offer them: static types, and the dynamic one that browsers use. G.722's clock is an error that became
the rule (RFC 3551 4.5.2), and Opus always says two channels (RFC 7587 7)."""

DTMF = {8000: RtpMap(101, "telephone-event", 8000), 48_000: RtpMap(97, "telephone-event", 48_000)}
"""Telephone-event by the clock of the codec beside it, with which it shares its RTP time (RFC 4733 2.1)."""

DTMF_EVENTS = "0-16"
"""The digits and flash (RFC 4733 section 3.2)."""

OPUS = "maxplaybackrate=16000;sprop-maxcapturerate=16000;useinbandfec=1"
"""What we want to be sent: what is above 8 kHz is not listened to, and what is lost is taken from the next packet."""

Key = tuple[str, int, int]
"""What makes two formats the same: name, clock rate, channels."""


def key(rtpmap: RtpMap) -> Key:
    """Names are the same in any case."""
    return rtpmap.encoding.upper(), rtpmap.clock_rate, rtpmap.channels


_CODECS = {key(rtpmap): codec for codec, rtpmap in OFFERED.items()}


def codec_of(rtpmap: RtpMap) -> Codec | None:
    """The codec that a format stands for; None if it is none of ours."""
    return _CODECS.get(key(rtpmap))


def is_dtmf(rtpmap: RtpMap) -> bool:
    """Telephone-event, at a clock rate of a codec of ours."""
    return rtpmap.encoding.lower() == "telephone-event" and rtpmap.clock_rate in DTMF


def dtmf_for(codec: RtpMap, formats: Iterable[RtpMap]) -> RtpMap | None:
    """The telephone-event that goes with a codec: that of its clock rate; at 8 kHz with Opus too, as phones do it."""
    events = [rtpmap for rtpmap in formats if is_dtmf(rtpmap) and rtpmap.clock_rate in (codec.clock_rate, 8000)]
    return min(events, key=lambda rtpmap: rtpmap.clock_rate != codec.clock_rate, default=None)


def odd_rate(codec: RtpMap, dtmf: RtpMap | None) -> int | None:
    """The clock rate of a telephone-event that is not its codec's; None if it is."""
    return dtmf.clock_rate if dtmf is not None and dtmf.clock_rate != codec.clock_rate else None


def parameters(rtpmap: RtpMap) -> Fmtp | None:
    """What we say with a format."""
    text = DTMF_EVENTS if is_dtmf(rtpmap) else OPUS if codec_of(rtpmap) is Codec.OPUS else None
    return Fmtp(str(rtpmap.payload_type), text) if text is not None else None


def opus_params(media: MediaDescription, payload_type: int) -> OpusParams:
    """What a peer wants to be sent (RFC 7587 6.1); what makes no sense is as if it were not there."""
    text = next((fmtp.parameters for fmtp in media.fmtps if fmtp.format == str(payload_type)), "")
    said = {name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in text.split(";"))}
    return OpusParams(
        playback_rate=_number(said.get("maxplaybackrate"), 8000, 48_000) or 48_000,
        bitrate=_number(said.get("maxaveragebitrate"), 6000, 510_000),
        fec=said.get("useinbandfec") == "1",
        dtx=said.get("usedtx") == "1",
        cbr=said.get("cbr") == "1",
    )


def _number(text: str | None, least: int, most: int) -> int | None:
    if text is None or not re.fullmatch(r"[0-9]{1,6}", text):
        return None
    return int(text) if least <= int(text) <= most else None
