"""Session descriptions (RFC 8866) and offer/answer for audio (RFC 3264).

`model.py` has the values, `parser.py` and `encoder.py` turn them from and to bytes, `negotiate.py` decides.
"""

from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.model import MediaDescription, SdpError, SessionDescription
from rustpbx.media.sdp.negotiate import LocalMedia, NegotiationError, accept_answer, answer, describe, offer
from rustpbx.media.sdp.parser import parse_sdp

__all__ = [
    "LocalMedia",
    "MediaDescription",
    "NegotiationError",
    "SdpError",
    "SessionDescription",
    "accept_answer",
    "answer",
    "describe",
    "encode_sdp",
    "offer",
    "parse_sdp",
]
