"""Deepgram (developers.deepgram.com): live transcription; speech over HTTP, or a WebSocket while text is written.

The key is the option `secretKey`, else `DEEPGRAM_API_KEY`. `endpoint` is the base URL, `https://api.deepgram.com` if
no agent names another. `extra` options become query parameters, over the defaults below.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs
import trio

from rustpbx.errors import SpeechError
from rustpbx.journal import Journal
from rustpbx.media.events import AudioBlock
from rustpbx.outbound import Reach
from rustpbx.speech.audio import AudioFeed, PcmReader
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance, Voice
from rustpbx.speech.registry import RecognizerOptions, SpeechServices, SynthesizerOptions
from rustpbx.speech.socket import (
    Headers,
    ServiceSocket,
    next_text,
    open_socket,
    refused,
    said_by,
    secret,
    service_errors,
)
from rustpbx.speech.text import Sentences

NAME = "deepgram"
ENDPOINT = "https://api.deepgram.com"
KEY = "DEEPGRAM_API_KEY"

log = Journal(__name__)

LISTENING = {
    "model": "nova-3",
    "interim_results": "true",
    "punctuate": "true",
    "smart_format": "true",
    "endpointing": "300",
    "utterance_end_ms": "1000",
    "vad_events": "true",
}
"""What is asked of transcription unless `extra` says otherwise."""
VOICE = "aura-2-thalia-en"
"""The voice where no speaker is named."""
SLOWEST, FASTEST = 0.7, 1.5
"""What it takes as speed."""
PIECE = 0.1
"""Seconds of audio in a frame."""
KEEP_ALIVE = 5.0
"""Seconds without audio after which the service is told that we are there; it hangs up after ten."""
FAREWELL = 5.0
"""Seconds that the last words are waited for."""
FLUSHES, FLUSH_WINDOW = 18, 60.0
"""Flushes that we send within so many seconds: Deepgram takes 20, and ignores more."""


def _url(endpoint: str | None, path: str, query: Mapping[str, str], *, websocket: bool) -> str:
    base = (endpoint or ENDPOINT).rstrip("/")
    scheme, _, rest = base.partition("://")
    secure = scheme.lower() in ("https", "wss")
    kind = ("wss" if secure else "ws") if websocket else ("https" if secure else "http")
    return f"{kind}://{rest}{path}?{urlencode(sorted(query.items()))}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


# -- speech to text --------------------------------------------------------------------------------------------------


@attrs.frozen
class DeepgramRecognizer:
    """A `Recognizer`: one connection for the call."""

    reach: Reach
    url: str
    headers: Headers = attrs.field(repr=False)
    rate: int

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Send audio, hear texts; see `rustpbx.speech.base.Recognizer`."""
        feed = AudioFeed(audio, self.rate, PIECE)
        first = await feed.next()  # a stream that gets no audio at all is closed after ten seconds
        if first is None:
            return
        async with open_socket(self.reach, self.url, NAME, self.headers) as socket, trio.open_nursery() as nursery:
            listening = _Listening(socket, feed, transcripts)
            nursery.start_soon(listening.run)
            await _send_all(socket, feed, first)
            await socket.send(json.dumps({"type": "CloseStream"}))
            with trio.move_on_after(FAREWELL):
                await listening.over.wait()
            nursery.cancel_scope.cancel()


async def _send_all(socket: ServiceSocket, feed: AudioFeed, piece: bytes | None) -> None:
    """Everything that is said, and in silence a sign of life."""
    while piece is not None:
        await socket.send(piece)
        while True:
            with trio.move_on_after(KEEP_ALIVE):
                piece = await feed.next()
                break
            await socket.send(json.dumps({"type": "KeepAlive"}))


class _Listening:
    """The texts of one connection. An utterance is one or more settled stretches, and what may still be revised."""

    def __init__(self, socket: ServiceSocket, feed: AudioFeed, transcripts: trio.MemorySendChannel[Transcript]) -> None:
        self.over = trio.Event()
        self._socket = socket
        self._feed = feed
        self._transcripts = transcripts
        self._index = 0
        self._settled: list[str] = []
        self._started: float | None = None
        self._ended = 0.0

    async def run(self) -> None:
        """Hear until the service has said the last of it."""
        try:
            while True:
                await self._hear(said_by(NAME, await self._socket.receive()))
        except trio.EndOfChannel:
            await self._finish()
            self.over.set()

    async def _hear(self, said: dict[str, Any]) -> None:
        match said.get("type"):
            case "Results":
                await self._results(said)
            case "UtteranceEnd":
                await self._finish()
            case "Metadata":
                await self._finish()
                self.over.set()
            case "Error":
                words = said.get("description") or said.get("message") or said.get("variant") or "unknown error"
                raise SpeechError(f"{NAME}: {words}", passing=True)
            case "SpeechStarted" | None:
                pass
            case other:
                log.debug("deepgram says %r", str(other)[:40])

    async def _results(self, said: dict[str, Any]) -> None:
        text = _transcript(said)
        start = _number(said.get("start"))
        end = start + _number(said.get("duration"))
        final = said.get("is_final") is True
        if text:
            if self._started is None:
                self._started = start
            self._ended = max(self._ended, end)
            if final:
                self._settled.append(text)
            await self._tell(" ".join([*self._settled, *([] if final else [text])]), final=False)
        if final and (said.get("speech_final") is True or said.get("from_finalize") is True):
            await self._finish()

    async def _finish(self) -> None:
        """The utterance is over, if there was one."""
        if self._settled:
            await self._tell(" ".join(self._settled), final=True)
            self._index += 1
        self._settled, self._started = [], None

    async def _tell(self, text: str, *, final: bool) -> None:
        started = self._feed.at(self._started or 0.0)
        ended = max(started, self._feed.at(self._ended))
        await self._transcripts.send(Transcript(self._index, text, final, started, ended))


def _transcript(said: dict[str, Any]) -> str:
    """The first alternative's text, whatever else is missing."""
    try:
        text = said["channel"]["alternatives"][0]["transcript"]
    except (KeyError, IndexError, TypeError):
        return ""
    return text.strip() if isinstance(text, str) else ""


# -- text to speech --------------------------------------------------------------------------------------------------


@attrs.frozen
class DeepgramSynthesizer:
    """A `Synthesizer` (HTTP) and `StreamingSynthesizer` (WebSocket). Deepgram has no volume and no emotion."""

    reach: Reach
    endpoint: str | None
    headers: Headers = attrs.field(repr=False)
    extra: Mapping[str, str]

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say one text; see `rustpbx.speech.base.Synthesizer`."""
        reader = PcmReader(utterance.rate, NAME)
        url = _url(self.endpoint, "/v1/speak", {**self._query(utterance), "container": "none"}, websocket=False)
        request = self.reach.client.build_request("POST", url, headers=self.headers, json={"text": utterance.text})
        with service_errors(NAME):
            response = await self.reach.client.send(request, stream=True)
            try:
                if not response.is_success:
                    raise refused(NAME, response.status_code, _why((await response.aread())[:1000]))
                async for data in response.aiter_bytes():
                    await _send(audio, reader, data, utterance.rate)
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Say a text as it is written; see `rustpbx.speech.base.StreamingSynthesizer`."""
        url = _url(self.endpoint, "/v1/speak", self._query(voice), websocket=True)
        first = await next_text(texts)
        if first is None:
            return
        async with open_socket(self.reach, url, NAME, self.headers) as socket, trio.open_nursery() as nursery:
            speaking = _Speaking(socket, voice.rate, audio)
            nursery.start_soon(speaking.run)
            await speaking.say_all(first, texts)
            await speaking.silent()
            await socket.send(json.dumps({"type": "Close"}))
            nursery.cancel_scope.cancel()

    def _query(self, voice: Voice) -> dict[str, str]:
        asked = {"model": voice.speaker or VOICE, "encoding": "linear16", "sample_rate": str(voice.rate)}
        if voice.speed != 1.0:  # only some voices have it, and the others refuse it
            asked["speed"] = f"{min(max(voice.speed, SLOWEST), FASTEST):g}"
        return {**asked, **self.extra}


class _Speaking:
    """One connection: sentences out, audio in. Each flush is answered by its audio and one `Flushed`."""

    def __init__(self, socket: ServiceSocket, rate: int, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        self._socket = socket
        self._rate = rate
        self._audio = audio
        self._reader = PcmReader(rate, NAME)
        self._starts: deque[int] = deque()  # where the texts of flushes that have no audio yet begin
        self._mark: int | None = None
        self._waiting = 0
        self._quiet = trio.Event()
        self._flushed: deque[float] = deque(maxlen=FLUSHES)

    async def say_all(self, piece: str | None, texts: trio.MemoryReceiveChannel[str]) -> None:
        """Send the text, a sentence at a time; flush as often as the service allows, and at the end."""
        sentences, start = Sentences(), None
        while piece is not None:
            for sentence in sentences.feed(piece):
                start = sentence.start if start is None else start
                await self._speak(sentence.text + " ")
                if self._may_flush():
                    await self._flush(start)
                    start = None
            piece = await next_text(texts)
        for sentence in sentences.flush():
            start = sentence.start if start is None else start
            await self._speak(sentence.text)
        if start is not None:
            await self._flush(start)

    async def run(self) -> None:
        """Hear the audio, until cancelled."""
        while True:
            try:
                message = await self._socket.receive()
            except trio.EndOfChannel:
                raise SpeechError(f"{NAME} closed before the end of the audio", passing=True) from None
            if isinstance(message, bytes):
                if self._mark is None and self._starts:
                    self._mark = self._starts.popleft()
                    await _send(self._audio, self._reader, message, self._rate, self._mark)
                else:
                    await _send(self._audio, self._reader, message, self._rate)
            else:
                self._hear(said_by(NAME, message))

    async def silent(self) -> None:
        """Wait until all that was flushed has been spoken."""
        while self._waiting:
            self._quiet = trio.Event()
            await self._quiet.wait()

    def _hear(self, said: dict[str, Any]) -> None:
        match said.get("type"):
            case "Flushed":
                if self._mark is None and self._starts:
                    self._starts.popleft()  # a flush without audio
                self._mark = None
                self._waiting = max(0, self._waiting - 1)
                self._quiet.set()
            case "Warning":
                log.info("deepgram warns: %s", str(said.get("description"))[:200])
            case "Error":
                raise SpeechError(f"{NAME}: {said.get('description') or 'unknown error'}", passing=True)

    async def _speak(self, text: str) -> None:
        await self._socket.send(json.dumps({"type": "Speak", "text": text}))

    async def _flush(self, start: int) -> None:
        self._waiting += 1
        self._starts.append(start)
        self._flushed.append(trio.current_time())
        await self._socket.send(json.dumps({"type": "Flush"}))

    def _may_flush(self) -> bool:
        """Whether a flush is left after one is kept for the end."""
        if len(self._flushed) < FLUSHES:
            return True
        return trio.current_time() - self._flushed[0] > FLUSH_WINDOW


async def _send(
    audio: trio.MemorySendChannel[SpeechChunk], reader: PcmReader, data: bytes, rate: int, mark: int | None = None
) -> None:
    pcm = reader.feed(data)
    if pcm.size:
        await audio.send(SpeechChunk(pcm, rate, mark))


def _why(body: bytes) -> str:
    """What an error's body says, in either of its shapes."""
    try:
        said = json.loads(body)
        return str(said.get("err_msg") or said.get("message") or "")
    except (ValueError, AttributeError):
        return body.decode(errors="replace")


# -- the options of a call -------------------------------------------------------------------------------------------


def _headers(key: str | None) -> Headers:
    return (("Authorization", f"Token {secret(key, KEY, NAME)}"),)


def recognizer(options: RecognizerOptions, services: SpeechServices) -> DeepgramRecognizer:
    """Deepgram's ears for one call. Raises `SpeechError` without credentials."""
    query = {**LISTENING, "encoding": "linear16", "sample_rate": str(options.rate), "channels": "1"}
    query |= {name: value for name, value in (("model", options.model), ("language", options.language)) if value}
    url = _url(options.endpoint, "/v1/listen", {**query, **options.extra}, websocket=True)
    return DeepgramRecognizer(services.reach(options.endpoint), url, _headers(options.secret_key), options.rate)


def synthesizer(options: SynthesizerOptions, services: SpeechServices) -> DeepgramSynthesizer:
    """Deepgram's voice for one call. Raises `SpeechError` without credentials."""
    return DeepgramSynthesizer(
        services.reach(options.endpoint), options.endpoint, _headers(options.secret_key), options.extra
    )
