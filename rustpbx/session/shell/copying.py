"""Copies of a call's audio for its agent, as binary messages: what both sides say, frame by frame."""

from __future__ import annotations

from collections.abc import Callable

import trio

from rustpbx.session.shell.services import Services

SERVER_SIDE, SESSION = b"\0", b"\1"
"""What a message begins with: whose audio it is."""

FRAME = 0.02
"""Seconds of a message."""


async def copy_audio(leg: str, services: Services, play: Callable[[bytes], None]) -> None:
    """Hand both sides of `leg` to `play` until it is closed: a byte for the track, then s16le mono at 16 kHz."""
    await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_copy, leg, services, SERVER_SIDE, play)
        nursery.start_soon(_copy, leg, services, SESSION, play)


async def _copy(leg: str, services: Services, track: bytes, play: Callable[[bytes], None]) -> None:
    if services.plane.leg(leg) is None:
        return  # the call ended before this began
    with services.plane.tap(leg, seconds=FRAME, played=track == SERVER_SIDE) as tap:
        async for block in tap.blocks:
            play(track + block.pcm.astype("<i2", copy=False).tobytes())
