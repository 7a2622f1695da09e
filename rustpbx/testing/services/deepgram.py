"""Deepgram as its documentation says it behaves: authorization, control messages, limits and close codes."""

from __future__ import annotations

import json
from collections import deque

import attrs
import numpy as np
import trio

from rustpbx.testing.services.service import (
    Answer,
    Asked,
    Conversation,
    EmulatedService,
    Message,
    object_of,
    texts_of,
    voice,
)

KEY = "deepgram-key"
LOUD = 500
IDLE = 10.0
"""Seconds without audio or KeepAlive after which a stream is closed with NET-0001."""
LONGEST_TEXT = 2000
FLUSHES, FLUSH_WINDOW = 20, 60.0
SPEECH = 0.06
"""Seconds of audio for each character."""
CHUNK = 1001
"""Bytes of a piece of audio: odd, as pieces may be."""


def _error(status: int, code: str, words: str) -> Answer:
    body = json.dumps({"err_code": code, "err_msg": words, "request_id": "r-1"}).encode()
    return Answer(status, body, (("dg-error", words), ("dg-request-id", "r-1")))


@attrs.define(eq=False)
class EmulatedDeepgram(EmulatedService):
    """`script` is what is recognised, a text for each utterance: what is loud until the pause that was asked for.

    Half of an utterance is settled by itself when it has three words or more. A voice is a tone.
    """

    script: deque[str] = attrs.field(factory=deque, converter=texts_of)
    key: str = KEY

    def admit(self, asked: Asked) -> Answer | None:
        """Wrong keys and parameters refuse the upgrade."""
        return self._refusal(asked)

    async def answer(self, asked: Asked) -> Answer:
        """`POST /v1/speak`."""
        refusal = self._refusal(asked)
        if refusal is not None:
            return refusal
        if asked.method != "POST" or asked.path != "/v1/speak":
            return Answer(404)
        try:
            text = json.loads(asked.body)["text"]
        except (ValueError, KeyError, TypeError):
            return _error(400, "Bad Request", "Failed to parse JSON body")
        if not isinstance(text, str) or not text:
            return _error(400, "Bad Request", "Text is required")
        if len(text) > LONGEST_TEXT:
            return _error(413, "PAYLOAD_TOO_LARGE", "Input text exceeds maximum character limit")
        audio = self._voice(text, asked)
        header = b"" if asked.query.get("container") == "none" else _wav_header(len(audio), _rate(asked))
        return Answer(200, header + audio, (("content-type", "audio/l16"),))

    def _refusal(self, asked: Asked) -> Answer | None:
        if asked.headers.get("authorization") != f"Token {self.key}":
            return _error(401, "INVALID_AUTH", "Invalid credentials.")
        if asked.path not in {"/v1/listen", "/v1/speak"}:
            return Answer(404)
        if asked.query.get("encoding", "linear16") != "linear16" or not asked.query.get("sample_rate", "0").isdigit():
            return _error(400, "Bad Request", "unsupported audio")
        if not asked.query.get("model", "x"):
            return _error(400, "Bad Request", "No such model/version combination found.")
        return None

    async def converse(self, conversation: Conversation) -> None:
        """Transcription or speech."""
        if conversation.asked.path == "/v1/listen":
            await _Transcription(self, conversation).run()
        else:
            await self._speak(conversation)

    # -- speech

    def _voice(self, text: str, asked: Asked) -> bytes:
        rate = _rate(asked)
        return voice(SPEECH * len(text.strip()), rate)

    async def _speak(self, conversation: Conversation) -> None:
        names = {"model_name": "aura", "model_version": "1", "model_uuid": "u-1"}
        await conversation.send(json.dumps({"type": "Metadata", "request_id": "r-1", **names}))
        buffered, sequence, flushed = "", 0, deque[float]()
        while True:
            message = await conversation.receive()
            if isinstance(message, bytes):
                await conversation.close(1003, "MESSAGE-0000")
                return
            said = object_of(message)
            match said.get("type"):
                case "Speak":
                    buffered += str(said.get("text", ""))
                case "Flush":
                    while flushed and trio.current_time() - flushed[0] > FLUSH_WINDOW:
                        flushed.popleft()
                    if len(flushed) == FLUSHES:
                        words = "Too many flushes"
                        await conversation.send(json.dumps({"type": "Warning", "description": words, "code": "X"}))
                        continue
                    flushed.append(trio.current_time())
                    await self._utter(conversation, buffered)
                    buffered = ""
                    await conversation.send(json.dumps({"type": "Flushed", "sequence_id": sequence}))
                    sequence += 1
                case "Clear":
                    buffered = ""
                    await conversation.send(json.dumps({"type": "Cleared", "sequence_id": sequence}))
                case "Close":
                    await conversation.close(1000)
                    return
                case _:
                    await conversation.close(1008, "DATA-0000")
                    return

    async def _utter(self, conversation: Conversation, text: str) -> None:
        audio = self._voice(text, conversation.asked)
        for at in range(0, len(audio), CHUNK):
            await conversation.send(audio[at : at + CHUNK])


class _Transcription:
    """One live stream."""

    def __init__(self, service: EmulatedDeepgram, conversation: Conversation) -> None:
        self._service = service
        self._conversation = conversation
        self._rate = _rate(conversation.asked)
        self._pause = int(conversation.asked.query.get("endpointing", "10")) / 1000
        self._audio = False
        self._at = 0.0  # seconds of audio so far
        self._from = 0.0  # where the stretch that is not settled begins
        self._loud_until = 0.0
        self._words: list[str] = []  # of the utterance at hand
        self._spoken = 0  # how many of them have been heard
        self._settled = 0

    async def run(self) -> None:
        """Until either side closes."""
        while True:
            message: Message | None = None
            with trio.move_on_after(IDLE):
                message = await self._conversation.receive()
            if message is None:
                await self._conversation.close(1011, "NET-0001")
                return
            if isinstance(message, bytes):
                if not message:
                    await self._conversation.close(1000)
                    return
                await self._listen(np.frombuffer(message[: len(message) // 2 * 2], "<i2"))
            elif not await self._obey(object_of(message)):
                return

    async def _obey(self, said: dict[str, object]) -> bool:
        match said.get("type"):
            case "KeepAlive" if self._audio:
                return True
            case "KeepAlive":
                await trio.sleep(IDLE)  # it does not hold a stream that never had audio
                await self._conversation.close(1011, "NET-0001")
            case "Finalize":
                await self._settle(speech_final=False, from_finalize=True)
                return True
            case "CloseStream":
                await self._settle(speech_final=False, from_finalize=True)
                closing = {"type": "Metadata", "request_id": "r-1", "duration": self._at, "channels": 1}
                await self._conversation.send(json.dumps(closing))
                await self._conversation.close(1000)
            case _:
                error = {"type": "Error", "variant": "SchemaError", "description": "Could not deserialize last message"}
                await self._conversation.send(json.dumps(error))
                await self._conversation.close(1008, "DATA-0000")
        return False

    async def _listen(self, pcm: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
        self._audio = True
        begin, self._at = self._at, self._at + len(pcm) / self._rate
        if len(pcm) and np.abs(pcm.astype(np.int32)).max() > LOUD:
            if not self._words:
                self._words = (self._service.script.popleft() if self._service.script else "words").split()
                self._from = begin
            self._loud_until = self._at
            self._spoken = min(self._spoken + 1, len(self._words))
            settled = self._spoken == len(self._words) // 2 and self._spoken > 0
            await self._tell(final=settled)
        elif self._words and self._at - self._loud_until >= self._pause:
            await self._settle(speech_final=True)

    async def _settle(self, *, speech_final: bool, from_finalize: bool = False) -> None:
        if self._words:
            self._spoken = len(self._words)
            await self._tell(final=True, speech_final=speech_final, from_finalize=from_finalize)
            self._words, self._spoken, self._settled = [], 0, 0

    async def _tell(self, *, final: bool, speech_final: bool = False, from_finalize: bool = False) -> None:
        words = " ".join(self._words[self._settled : self._spoken])
        results = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": self._from,
            "duration": max(0.0, self._loud_until - self._from),
            "is_final": final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [{"transcript": words, "confidence": 0.9, "words": []}]},
        }
        if final:
            self._settled, self._from = self._spoken, self._loud_until
        await self._conversation.send(json.dumps(results))


def _rate(asked: Asked) -> int:
    return int(asked.query.get("sample_rate", "24000"))


def _wav_header(size: int, rate: int) -> bytes:
    head = b"WAVEfmt " + (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + (1).to_bytes(2, "little")
    form = rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little") + (2).to_bytes(2, "little")
    form += (16).to_bytes(2, "little") + b"data" + size.to_bytes(4, "little")
    return b"RIFF" + (36 + size).to_bytes(4, "little") + head + form
