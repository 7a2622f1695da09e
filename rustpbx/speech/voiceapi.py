"""VoiceApi (github.com/ruzhila/voiceapi), a self-hosted service: no credentials, one WebSocket each way.

ASR: binary s16le in, JSON `{"text", "finished", "idx"}` out, without times. TTS: one text frame in, binary s16le out
until a text frame says that it is done. The endpoint is the base URL: the option, else `VOICEAPI_ENDPOINT`, else
port 8000 of this machine.
"""

from __future__ import annotations

import os
from typing import Any

import attrs
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.outbound import Reach
from rustpbx.speech.audio import AudioFeed, PcmReader
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.registry import RecognizerOptions, SpeechServices, SynthesizerOptions
from rustpbx.speech.socket import ServiceSocket, open_socket, said_by
from rustpbx.speech.spares import Spares, Way

NAME = "voiceapi"
DEFAULT_ENDPOINT = "http://localhost:8000"

PIECE = 0.1
"""Seconds of audio in a frame."""
ENDPOINTING = 1.2
"""Seconds of silence after which the streaming model ends an utterance."""
TAIL = 2.5
"""Seconds of silence that bring the last words out: there is no message for the end of the audio."""
FAREWELL = 2.0
"""Seconds that the last words are waited for."""
CHUNK = 16384
"""Bytes of a frame of synthesised audio; even, or samples would be split. A frame goes out when it is full or its block
of speech ends, so that long ones delay nothing: the blocks come faster than they are spoken.
"""


def _base(endpoint: str | None) -> str:
    """The base URL as a WebSocket URL, without a slash at its end."""
    url = (endpoint or os.environ.get("VOICEAPI_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    for http, websocket in (("http://", "ws://"), ("https://", "wss://")):
        if url.lower().startswith(http):
            return websocket + url[len(http) :]
    return url


# -- speech to text --------------------------------------------------------------------------------------------------


class VoiceApiRecognizer:
    """A `Recognizer`: one connection for the call."""

    def __init__(self, reach: Reach, endpoint: str | None, rate: int) -> None:
        self._reach = reach
        self._url = f"{_base(endpoint)}/asr?samplerate={rate}"
        self._rate = rate

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Send audio, hear texts; see `rustpbx.speech.base.Recognizer`."""
        feed = AudioFeed(audio, self._rate, PIECE)
        async with open_socket(self._reach, self._url, NAME) as socket, trio.open_nursery() as nursery:
            listening = _Listening(socket, feed, transcripts)
            nursery.start_soon(listening.run)
            while (piece := await feed.next()) is not None:
                await socket.send(piece)
            await socket.send(bytes(2 * round(self._rate * TAIL)))
            with trio.move_on_after(FAREWELL):
                await listening.quiet()
            nursery.cancel_scope.cancel()


class _Listening:
    """The texts of one connection; their times are estimated by what had been sent when they came."""

    def __init__(self, socket: ServiceSocket, feed: AudioFeed, transcripts: trio.MemorySendChannel[Transcript]) -> None:
        self._socket = socket
        self._feed = feed
        self._transcripts = transcripts
        self._index: int | None = None  # of the utterance that is not final yet
        self._started = 0.0
        self._spoken = 0.0  # seconds into the audio at which its last new word was heard
        self._silent = trio.Event()
        self._silent.set()

    async def run(self) -> None:
        """Hear until the service closes, which it does not on its own while it is well."""
        while True:
            try:
                message = await self._socket.receive()
            except trio.EndOfChannel:
                raise SpeechError(f"{NAME} closed the connection", passing=True) from None
            if isinstance(message, str):
                await self._hear(said_by(NAME, message))

    async def quiet(self) -> None:
        """Wait until no utterance is unfinished."""
        await self._silent.wait()

    async def _hear(self, said: dict[str, Any]) -> None:
        text, index, final = said.get("text"), said.get("idx"), said.get("finished") is True
        if not isinstance(text, str) or not isinstance(index, int) or not text.strip():
            return
        now = self._feed.duration
        if index != self._index:
            self._index, self._started = index, self._spoken if final else max(self._spoken, now - PIECE)
            self._silent = trio.Event()
        self._spoken = max(self._started, now - ENDPOINTING if final else now)
        times = self._feed.at(self._started), self._feed.at(self._spoken)
        if final:
            self._index = None
            self._silent.set()
        await self._transcripts.send(Transcript(index, text, final, *times))


# -- text to speech --------------------------------------------------------------------------------------------------


@attrs.frozen
class VoiceApiSynthesizer:
    """A `Synthesizer`: one connection for each text; the server answers a second one with silence."""

    reach: Reach
    endpoint: str | None
    spares: Spares

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say one text; see `rustpbx.speech.base.Synthesizer`. Volume and emotion are not known to the service."""
        way = Way(self.reach, self._url(utterance), NAME)
        if not await self._say(way, utterance, audio):
            await self._say(way, utterance, audio, fresh=True)

    async def _say(
        self, way: Way, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk], *, fresh: bool = False
    ) -> bool:
        """Say it; False if the connection had waited and turns out to be dead, before any answer."""
        reader = PcmReader(utterance.rate, NAME)
        async with self.spares.open(way, fresh=fresh) as socket:
            try:
                await socket.send(utterance.text)
                message = await _answer(socket)
            except SpeechError:
                if socket.waited:
                    return False
                raise
            while isinstance(message, bytes) or "progress" not in said_by(NAME, message):
                if isinstance(message, bytes):
                    await _send(audio, reader.feed(message), utterance.rate)
                message = await _answer(socket)
        await _send(audio, reader.flush(), utterance.rate)
        return True

    def _url(self, utterance: Utterance) -> str:
        speaker = utterance.speaker or os.environ.get("VOICEAPI_SPEAKER_ID") or "0"
        if not speaker.isdecimal():
            raise SpeechError(f"{NAME} numbers its speakers: {speaker[:40]!r} is none")
        return (
            f"{_base(self.endpoint)}/tts?samplerate={utterance.rate}&interrupt=true&sid={speaker}"
            f"&chunk_size={CHUNK}&speed={utterance.speed:g}&split=false"
        )


async def _answer(socket: ServiceSocket) -> str | bytes:
    """The server's next message; it never closes by itself while it is well."""
    try:
        return await socket.receive()
    except trio.EndOfChannel:
        raise SpeechError(f"{NAME} closed before the end of the audio", passing=True) from None


async def _send(audio: trio.MemorySendChannel[SpeechChunk], pcm: Pcm, rate: int) -> None:
    if pcm.size:
        await audio.send(SpeechChunk(pcm, rate))


def recognizer(options: RecognizerOptions, services: SpeechServices) -> VoiceApiRecognizer:
    """VoiceApi's ears for one call."""
    return VoiceApiRecognizer(services.reach(options.endpoint), options.endpoint, options.rate)


def synthesizer(options: SynthesizerOptions, services: SpeechServices) -> VoiceApiSynthesizer:
    """VoiceApi's voice for one call."""
    return VoiceApiSynthesizer(services.reach(options.endpoint), options.endpoint, services.spares)
