"""A small HTTP file server on any `Network`: what `play` fetches from in tests."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping

import attrs
import h11
import numpy as np
import trio

from rustpbx.core import Address
from rustpbx.media.events import Pcm
from rustpbx.shell.network import Network


@attrs.frozen
class File:
    """One answer."""

    body: bytes
    content_type: str = "audio/wav"
    status: int = 200


def wav(pcm: Pcm, rate: int = 8000, *, channels: int = 1) -> bytes:
    """A wav file; with two channels both carry `pcm`."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(pcm, channels).tobytes())
    return out.getvalue()


async def serve_files(network: Network, address: Address, files: Mapping[str, File]) -> None:
    """Answer GETs of `files` by path for ever; anything else is 404."""

    async def answer(stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        target = ""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                target = event.target.decode()
            elif isinstance(event, h11.ConnectionClosed):
                await stream.aclose()
                return
            else:
                break
        file = files.get(target, File(b"not here", "text/plain", 404))
        headers = [
            ("content-length", str(len(file.body))),
            ("content-type", file.content_type),
            ("connection", "close"),
        ]
        response = h11.Response(status_code=file.status, headers=headers)
        parts = [response, h11.Data(data=file.body), h11.EndOfMessage()]
        await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
        await stream.aclose()

    listener = await network.listen(*address)
    async with trio.open_nursery() as nursery:
        await trio.serve_listeners(answer, [listener], handler_nursery=nursery)
