"""A media pass at work: the call's audio to a WebSocket, the WebSocket's audio to the call."""

from __future__ import annotations

import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.codec.resample import Resampler
from rustpbx.media.plane.source import Source
from rustpbx.session.effects import PassEnded
from rustpbx.session.options import MediaPassOption
from rustpbx.session.shell.services import Services
from rustpbx.session.shell.track import Report
from rustpbx.speech.audio import AudioFeed, PcmReader
from rustpbx.speech.socket import ServiceSocket, first_error, open_socket

NAME = "the media pass"
GENERATION = 0
"""Of its source: any playback that comes later is newer."""
KEPT_BLOCKS = 50
"""Blocks of 100 ms that wait while the service does not read: the latest five seconds."""
LEAVING = 0.2
"""Seconds that the closing words may take when the call ends."""


class PassTrack:
    """The media pass of one call. `run` is a task, the rest is synchronous."""

    def __init__(self, option: MediaPassOption, leg: str, services: Services, report: Report) -> None:
        self._option = option
        self._leg = leg
        self._services = services
        self._report = report
        self._scope = trio.CancelScope()
        self._source: Source | None = None
        self._flushed = trio.CancelScope()

    def flush(self) -> None:
        """Send nothing more of what has come so far."""
        if self._source is not None:
            self._source.stop()
        self._flushed.cancel()

    def stop(self) -> None:
        """Say goodbye to the service; nothing of it is heard from now on."""
        if self._source is not None:
            self._source.stop()
        self._scope.cancel()

    async def run(self) -> None:
        """Until the service leaves, fails, or is left."""
        problem: SpeechError | None = None
        with self._scope:
            try:
                with first_error():
                    await self._converse()
            except SpeechError as failed:
                problem = failed
            self._report(PassEnded(str(problem) if problem else None, problem.code if problem else None))

    async def _converse(self) -> None:
        option, plane = self._option, self._services.plane
        await trio.lowlevel.checkpoint()
        if plane.leg(self._leg) is None:
            return  # the call ended before this began
        reach = self._services.speech.reach(option.url)
        with plane.tap(self._leg, capacity=KEPT_BLOCKS) as tap:
            async with open_socket(reach, _url(option), NAME) as socket, trio.open_nursery() as nursery:
                feed = AudioFeed(
                    tap.blocks, option.output_sample_rate, option.packet_size / 2 / option.output_sample_rate
                )
                nursery.start_soon(self._send, socket, feed)
                try:
                    await self._play(socket)
                finally:
                    if self._scope.cancel_called:
                        with trio.move_on_after(LEAVING, shield=True):
                            await socket.leave()
                nursery.cancel_scope.cancel()

    async def _send(self, socket: ServiceSocket, feed: AudioFeed) -> None:
        """Messages of exactly the size that was asked for; what is left at the end of the call is no message."""
        while (piece := await feed.next()) is not None:
            if len(piece) == self._option.packet_size:
                await socket.send(piece)

    async def _play(self, socket: ServiceSocket) -> None:
        """Play what comes, on one source after the other where it is flushed, until the service closes."""
        reader = PcmReader(self._option.input_sample_rate, NAME)
        over = False
        while not over:
            self._flushed = trio.CancelScope()
            with self._flushed:
                async with self._services.plane.source(self._leg, GENERATION) as self._source:
                    over = await self._hear(socket, reader, self._source)

    async def _hear(self, socket: ServiceSocket, reader: PcmReader, source: Source) -> bool:
        """Until the service has closed, and what it said last was heard."""
        resampler = Resampler(self._option.input_sample_rate, source.rate)
        async with trio.open_nursery() as nursery:
            if self._option.ptime:
                nursery.start_soon(self._pad, source, self._option.ptime)
            try:
                while True:
                    message = await socket.receive()
                    if isinstance(message, bytes):
                        await source.write(resampler.feed(reader.feed(message)))
            except trio.EndOfChannel:
                nursery.cancel_scope.cancel()
        source.finish()
        await source.ended()
        return True

    async def _pad(self, source: Source, ptime: int) -> None:
        """Where a period is asked for, the track never runs dry: silence takes the place of what has not come."""
        silence = np.zeros(source.rate * ptime // 1000, np.int16)
        while True:
            await source.dry()
            await source.write(silence)


def _url(option: MediaPassOption) -> str:
    """The service's URL with what it should know of our audio in its query."""
    joint = "&" if "?" in option.url else "?"
    return f"{option.url}{joint}sample_rate={option.output_sample_rate}&packet_size={option.packet_size}"
