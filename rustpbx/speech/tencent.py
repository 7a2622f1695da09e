"""Tencent Cloud (cloud.tencent.com/document/product/1093, 1073): live transcription, and voices by WebSocket.

A text at once is one connection with the text in its URL (`stream_ws`); a text while it is written goes down another
(`stream_wsv2`). Errors come as messages with a code, after the upgrade has succeeded. Credentials are the options
`appId`, `secretId`, `secretKey`, else `TENCENT_APPID`, `TENCENT_SECRET_ID`, `TENCENT_SECRET_KEY`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.journal import Journal
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.speech.audio import AudioFeed, PcmReader
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance, Voice
from rustpbx.speech.registry import RecognizerOptions, SpeechServices, SynthesizerOptions
from rustpbx.speech.socket import ServiceSocket, open_socket, said_by
from rustpbx.speech.tencent_signing import LIFETIME, Credentials, credentials, signed_target, websocket_base

NAME = "tencent"
ASR_HOST = "asr.cloud.tencent.com"
TTS_HOST = "tts.cloud.tencent.com"

log = Journal(__name__)

PIECE = 0.04
"""Seconds of audio in a frame, as the service wants it."""
FAREWELL = 5.0
"""Seconds that the last words, or the end of the audio, are waited for."""
VOICE = "101001"
"""The voice where no speaker is named."""
LONGEST = 500
"""Characters that go into a URL; a longer text is sent as one that is being written."""

PASSING = frozenset({4006, 4008, 4009, 5000, 5001, 5002, 10002, 10004, 10005, 20000, 20001, 20002, 20003})
"""Codes that another try may not meet again: limits, timeouts, the service's own troubles."""
NOTICES = frozenset({10009})
"""Codes that are no failure: no text for ten minutes; audio and end still follow."""


def _said(message: str | bytes) -> dict[str, Any]:
    """The JSON of a text frame. Raises `SpeechError` for a code that is a failure."""
    said = said_by(NAME, message)
    code = said.get("code", 0)
    if code and code not in NOTICES:
        number = code if isinstance(code, int) else None
        raise SpeechError(f"{NAME}: {said.get('message') or 'error'} ({code})", number, passing=number in PASSING)
    return said


def _milliseconds(value: object) -> float:
    return value / 1000 if isinstance(value, (int, float)) else 0.0


# -- speech to text --------------------------------------------------------------------------------------------------


LISTENING = {
    "voice_format": "1",
    "needvad": "1",
    "vad_silence_time": "700",
    "filter_modal": "0",
    "filter_punc": "0",
    "convert_num_mode": "1",
    "word_info": "1",
}
"""What is asked of transcription; `extra` may say otherwise, and add to it."""


@attrs.frozen
class TencentRecognizer:
    """A `Recognizer`: one connection for the call."""

    services: SpeechServices
    options: RecognizerOptions
    account: Credentials

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Send audio as it is spoken, hear texts; see `rustpbx.speech.base.Recognizer`."""
        engine = self._engine()
        feed = AudioFeed(audio, 8000 if engine.startswith("8k") else 16000, PIECE)
        first = await feed.next()  # a stream that gets no audio for six seconds is closed
        if first is None:
            return
        reach = self.services.reach(self.options.endpoint)
        async with open_socket(reach, self._url(engine), NAME) as socket, trio.open_nursery() as nursery:
            listening = _Listening(socket, feed, transcripts)
            nursery.start_soon(listening.run)
            piece: bytes | None = first
            while piece is not None:
                await socket.send(piece)
                piece = await feed.next()
            await socket.send(json.dumps({"type": "end"}))
            with trio.move_on_after(FAREWELL):
                await listening.over.wait()
            nursery.cancel_scope.cancel()

    def _engine(self) -> str:
        """The model, which also fixes the sample rate."""
        if self.options.model:
            return self.options.model
        return "8k_zh" if self.options.rate == 8000 else "16k_zh_en"

    def _url(self, engine: str) -> str:
        now = self.services.timestamp()
        path = f"/asr/v2/{self.account.app_id}"
        params = {
            **LISTENING,
            **self.options.extra,
            "engine_model_type": engine,
            "voice_id": self.services.new_id(),
            "secretid": self.account.secret_id,
            "timestamp": str(now),
            "expired": str(now + LIFETIME),
            "nonce": str(now),
        }
        query = signed_target(f"{ASR_HOST}{path}", params, self.account.secret_key, name="signature")
        return f"{websocket_base(self.options.endpoint, ASR_HOST)}{path}?{query}"


class _Listening:
    """The texts of one connection."""

    def __init__(self, socket: ServiceSocket, feed: AudioFeed, transcripts: trio.MemorySendChannel[Transcript]) -> None:
        self.over = trio.Event()
        self._socket = socket
        self._feed = feed
        self._transcripts = transcripts

    async def run(self) -> None:
        """Hear until the service has said the last of it."""
        while not self.over.is_set():
            try:
                said = _said(await self._socket.receive())
            except trio.EndOfChannel:
                raise SpeechError(f"{NAME} closed before the end of the audio", passing=True) from None
            await self._hear(said.get("result"))
            if said.get("final") == 1:
                self.over.set()

    async def _hear(self, result: object) -> None:
        if not isinstance(result, dict):
            return
        text, index = result.get("voice_text_str"), result.get("index")
        if not isinstance(text, str) or not text.strip() or not isinstance(index, int) or index < 0:
            return
        started = self._feed.at(_milliseconds(result.get("start_time")))
        ended = max(started, self._feed.at(_milliseconds(result.get("end_time"))))
        await self._transcripts.send(Transcript(index, text, result.get("slice_type") == 2, started, ended))


# -- text to speech --------------------------------------------------------------------------------------------------

_SPEEDS = ((0.6, 0.8, 1.0, 1.2, 1.5, 2.5), (-2.0, -1.0, 0.0, 1.0, 2.0, 6.0))


def tencent_speed(speed: float) -> str:
    """Our multiplier as Tencent's number: -2 is 0.6 times, 0 normal, 6 is 2.5 times."""
    return f"{round(float(np.interp(speed, *_SPEEDS)), 2):g}"


def tencent_volume(volume: int) -> str:
    """Our 0..10 (5 normal) as Tencent's -10..10 (0 normal)."""
    return str(2 * (min(max(volume, 0), 10) - 5))


def voice_type(voice: Voice, default: str) -> str:
    """The number of a voice. Raises `SpeechError` for a speaker that is none."""
    speaker = voice.speaker or default
    if not speaker.isdecimal():
        raise SpeechError(f"{NAME} numbers its voices: {speaker[:40]!r} is none")
    return speaker


@attrs.frozen
class TencentSynthesizer:
    """A `Synthesizer` and `StreamingSynthesizer`: a connection for each text."""

    services: SpeechServices
    endpoint: str | None
    account: Credentials
    extra: Mapping[str, str]

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say one text; see `rustpbx.speech.base.Synthesizer`."""
        if len(utterance.text) > LONGEST:
            send, texts = trio.open_memory_channel[str](1)
            with send:
                send.send_nowait(utterance.text)
            await self.stream(texts, utterance, audio)
            return
        url = self._url("stream_ws", utterance, self.services.new_id(), text=utterance.text)
        async with open_socket(self.services.reach(self.endpoint), url, NAME) as socket:
            await _Speaking(socket, utterance.rate, audio).run()

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Say a text as it is written; see `rustpbx.speech.base.StreamingSynthesizer`."""
        try:
            first = await texts.receive()
        except trio.EndOfChannel:
            return
        session = self.services.new_id()
        url = self._url("stream_wsv2", voice, session)
        reach = self.services.reach(self.endpoint)
        async with open_socket(reach, url, NAME) as socket, trio.open_nursery() as nursery:
            speaking = _Speaking(socket, voice.rate, audio)
            nursery.start_soon(speaking.run)
            await speaking.ready.wait()
            await self._say(socket, session, "ACTION_SYNTHESIS", first)
            async for text in texts:
                await self._say(socket, session, "ACTION_SYNTHESIS", text)
            await self._say(socket, session, "ACTION_COMPLETE", "")

    async def _say(self, socket: ServiceSocket, session: str, action: str, text: str) -> None:
        order = {"session_id": session, "message_id": self.services.new_id(), "action": action, "data": text}
        if text or action == "ACTION_COMPLETE":
            await socket.send(json.dumps(order))

    def _url(self, kind: str, voice: Voice, session: str, *, text: str | None = None) -> str:
        now = self.services.timestamp()
        params = {
            "EnableSubtitle": "True",
            **({"EmotionCategory": voice.emotion} if voice.emotion else {}),
            **self.extra,
            "Action": "TextToStreamAudioWS" if kind == "stream_ws" else "TextToStreamAudioWSv2",
            "AppId": self.account.app_id,
            "SecretId": self.account.secret_id,
            "Timestamp": str(now),
            "Expired": str(now + LIFETIME),
            "SessionId": session,
            "VoiceType": voice_type(voice, VOICE),
            "Volume": tencent_volume(voice.volume),
            "Speed": tencent_speed(voice.speed),
            "SampleRate": str(voice.rate),
            "Codec": "pcm",
            **({"Text": text} if text is not None else {}),
        }
        query = signed_target(f"GET{TTS_HOST}/{kind}", params, self.account.secret_key, name="Signature")
        return f"{websocket_base(self.endpoint, TTS_HOST)}/{kind}?{query}"


class _Speaking:
    """The audio of one connection, with places in the text as far as the subtitles are ahead of it."""

    def __init__(self, socket: ServiceSocket, rate: int, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        self.ready = trio.Event()
        self._socket = socket
        self._rate = rate
        self._audio = audio
        self._reader = PcmReader(rate, NAME)
        self._samples = 0
        self._subtitles: deque[tuple[float, int]] = deque(maxlen=1000)

    async def run(self) -> None:
        """Until the service says that it was the last."""
        while True:
            try:
                message = await self._socket.receive()
            except trio.EndOfChannel:
                raise SpeechError(f"{NAME} closed before the end of the audio", passing=True) from None
            if isinstance(message, bytes):
                await self._send(self._reader.feed(message))
                continue
            said = _said(message)
            if said.get("ready") == 1:
                self.ready.set()
            self._note(said.get("result"))
            if said.get("final") == 1:
                await self._send(self._reader.flush())
                return

    def _note(self, result: object) -> None:
        subtitles = result.get("subtitles") if isinstance(result, dict) else None
        for subtitle in subtitles if isinstance(subtitles, list) else ():
            index = subtitle.get("BeginIndex") if isinstance(subtitle, dict) else None
            if isinstance(index, int) and index >= 0:
                self._subtitles.append((_milliseconds(subtitle.get("BeginTime")), index))

    async def _send(self, pcm: Pcm) -> None:
        """Cut at each place that is known."""
        while pcm.size:
            mark = None
            while self._subtitles and round(self._subtitles[0][0] * self._rate) <= self._samples:
                mark = self._subtitles.popleft()[1]
            cut = round(self._subtitles[0][0] * self._rate) - self._samples if self._subtitles else pcm.size
            await self._audio.send(SpeechChunk(pcm[:cut], self._rate, mark))
            self._samples += min(cut, pcm.size)
            pcm = pcm[cut:]


# -- the options of a call -------------------------------------------------------------------------------------------


def recognizer(options: RecognizerOptions, services: SpeechServices) -> TencentRecognizer:
    """Tencent's ears for one call. Raises `SpeechError` without credentials."""
    return TencentRecognizer(services, options, credentials(options.app_id, options.secret_id, options.secret_key))


def synthesizer(options: SynthesizerOptions, services: SpeechServices) -> TencentSynthesizer:
    """Tencent's voice for one call. Raises `SpeechError` without credentials."""
    account = credentials(options.app_id, options.secret_id, options.secret_key)
    return TencentSynthesizer(services, options.endpoint, account, options.extra)
