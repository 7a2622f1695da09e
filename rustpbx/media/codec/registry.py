"""Which coder serves which codec."""

from __future__ import annotations

from collections.abc import Callable

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import Coder
from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.codec.g722 import G722Coder
from rustpbx.media.codec.libopus import libopus
from rustpbx.media.codec.opus import OpusCoder
from rustpbx.media.codec.pcm import LawCoder, PlainCoder
from rustpbx.media.events import Codec, MediaFormat

MAKERS: dict[Codec, Callable[[MediaFormat], Coder]] = {
    Codec.OPUS: lambda media: OpusCoder(media.opus),
    Codec.G722: lambda _: G722Coder(),
}
"""For the codecs that are not G.711, which the media plane does for all legs at once."""


def make_coder(media: MediaFormat) -> Coder | None:
    """A new coder for an agreement; None for G.711. Raises `MediaError` if its library is not here."""
    maker = MAKERS.get(media.codec)
    return None if maker is None else maker(media)


def is_possible(codec: Codec) -> bool:
    """Whether its library is here."""
    try:
        libopus()
    except MediaError:
        return codec is not Codec.OPUS
    return True


STREAMS: dict[str, Callable[[], Coder]] = {
    "pcm": PlainCoder,
    "pcmu": lambda: LawCoder(PCMU),
    "pcma": lambda: LawCoder(PCMA),
    "g722": G722Coder,
}
"""For audio that comes as a stream of bytes, by the names that an agent has for it."""


def make_stream_coder(codec: str) -> Coder:
    """A new coder for a stream. Raises `MediaError` for a codec that there is not."""
    maker = STREAMS.get(codec)
    if maker is None:
        raise MediaError(f"there is no codec {codec!r} for a stream; there are {', '.join(sorted(STREAMS))}")
    return maker()
