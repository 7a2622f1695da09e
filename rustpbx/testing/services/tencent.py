"""Tencent Cloud's speech services as their documentation says they behave: signatures, codes, order of messages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import deque
from urllib.parse import parse_qsl, urlsplit

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

APP_ID, SECRET_ID, SECRET_KEY = "1250000000", "AKIDEXAMPLE", "example-key"
LOUD = 500
PAUSE = 0.7
IDLE = 6.0
"""Seconds without audio after which transcription gives up (4008)."""
SPEECH = 0.06
"""Seconds of audio for each character."""
CHUNK = 1280
LONGEST = 150


@attrs.define(eq=False)
class EmulatedTencent(EmulatedService):
    """`script` is what is recognised, a text for each utterance; a voice is a tone with a subtitle for each character.

    `now` is the time that timestamps are checked against: within five minutes for HTTP, `Expired` for the others.
    """

    now: int = attrs.field(kw_only=True)
    script: deque[str] = attrs.field(factory=deque, converter=texts_of)
    secret_key: str = SECRET_KEY

    # -- signatures

    def _signed(self, asked: Asked, host: str, method: str, name: str) -> bool:
        """HMAC-SHA1 over the decoded values, sorted; whatever else is in the query is signed too."""
        params = dict(parse_qsl(urlsplit(asked.target).query, keep_blank_values=True))
        given = params.pop(name, "")
        joined = "&".join(f"{field}={value}" for field, value in sorted(params.items()))
        text = f"{method}{host}{asked.path}?{joined}"
        wanted = base64.b64encode(hmac.new(self.secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()
        expired = next((value for field, value in params.items() if field.lower() == "expired"), "0")
        return hmac.compare_digest(given, wanted) and int(expired) > self.now

    def _tc3(self, asked: Asked) -> bool:
        """TC3-HMAC-SHA256 over what was really sent."""
        headers = asked.headers
        timestamp = headers.get("x-tc-timestamp", "0")
        if not timestamp.isdigit() or abs(int(timestamp) - self.now) > 300:
            return False
        date = headers.get("authorization", "").partition("Credential=")[2].split("/")[1:2]
        scope = f"{date[0] if date else ''}/tts/tc3_request"
        signed = f"content-type:{headers.get('content-type')}\nhost:{headers.get('host')}\n"
        request = f"{asked.method}\n/\n\n{signed}\ncontent-type;host\n{hashlib.sha256(asked.body).hexdigest()}"
        text = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = b"TC3" + self.secret_key.encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        wanted = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        given = f"TC3-HMAC-SHA256 Credential={SECRET_ID}/{scope}, SignedHeaders=content-type;host, Signature={wanted}"
        return hmac.compare_digest(headers.get("authorization", ""), given)

    # -- TextToVoice

    async def answer(self, asked: Asked) -> Answer:
        """The API, whose errors have status 200 as well."""
        if not self._tc3(asked):
            return _failure("AuthFailure.SignatureFailure", "The provided credentials could not be validated.")
        if asked.headers.get("x-tc-action") != "TextToVoice" or asked.headers.get("x-tc-version") != "2019-08-23":
            return _failure("InvalidAction", "The API does not exist.")
        fields = json.loads(asked.body)
        if len(fields.get("Text", "")) > LONGEST or not fields.get("Text"):
            return _failure("UnsupportedOperation.TextTooLong", "Text too long.")
        if not isinstance(fields.get("VoiceType"), int) or not fields.get("SessionId"):
            return _failure("InvalidParameterValue", "VoiceType or SessionId")
        audio = _voice(fields["Text"], fields["SampleRate"])
        said = {"Audio": base64.b64encode(audio).decode(), "SessionId": fields["SessionId"], "RequestId": "r-1"}
        return _json_answer({"Response": said})

    # -- WebSockets

    def admit(self, asked: Asked) -> Answer | None:
        """Only paths are refused by HTTP; everything else is told by a message after the upgrade."""
        known = asked.path.startswith("/asr/v2/") or asked.path in {"/stream_ws", "/stream_wsv2"}
        return None if known else Answer(404)

    async def converse(self, conversation: Conversation) -> None:
        """One of the three WebSockets."""
        asked = conversation.asked
        if asked.path.startswith("/asr/"):
            if self._signed(asked, "asr.cloud.tencent.com", "", "signature"):
                await _Transcription(self, conversation).run()
            else:
                await _fail(conversation, 4002, "authentication failed")
        elif not self._signed(asked, "tts.cloud.tencent.com", "GET", "Signature"):
            await _fail(conversation, 10003, "authentication failed")
        elif not asked.query.get("VoiceType", "").isdigit():
            await _fail(conversation, 10001, "VoiceType")
        elif asked.path == "/stream_ws":
            await self._speak_one(conversation)
        else:
            await self._speak_stream(conversation)

    async def _speak_one(self, conversation: Conversation) -> None:
        await _tell(conversation, result={"subtitles": None})
        await _utter(conversation, conversation.asked.query["Text"], 0, 0.0)
        await _tell(conversation, final=1, result={"subtitles": None})
        while True:
            await conversation.receive()  # the client closes

    async def _speak_stream(self, conversation: Conversation) -> None:
        session = conversation.asked.query.get("SessionId")
        await _tell(conversation, ready=0, heartbeat=0, result={"subtitles": None})
        await trio.sleep(0.1)
        await _tell(conversation, ready=1, heartbeat=0, result={"subtitles": None})
        text, said, seconds = "", 0, 0.0
        while True:
            order = object_of(await conversation.receive())
            if order.get("session_id") != session or not order.get("message_id"):
                await _fail(conversation, 10001, "session_id")
                return
            text += str(order.get("data", ""))
            complete = order.get("action") == "ACTION_COMPLETE"
            ends = [at + 1 for at, c in enumerate(text) if c in "。；？！;?!\n"]  # noqa: RUF001 - what it splits at
            end = len(text) if complete else ends[-1] if ends else 0
            if end:
                seconds = await _utter(conversation, text[:end], said, seconds)
                said, text = said + end, text[end:]
            if complete:
                await _tell(conversation, final=1, result={"subtitles": None})
                while True:
                    await conversation.receive()


class _Transcription:
    """One stream: utterances begin (0), change (1) and settle (2)."""

    def __init__(self, service: EmulatedTencent, conversation: Conversation) -> None:
        self._service = service
        self._conversation = conversation
        self._rate = 8000 if conversation.asked.query.get("engine_model_type", "").startswith("8k") else 16000
        self._at = 0.0
        self._began = 0.0
        self._loud_until = 0.0
        self._words: list[str] = []
        self._spoken = 0
        self._index = 0

    async def run(self) -> None:
        """Until the client says that it is the end."""
        await _tell(self._conversation, voice_id=self._conversation.asked.query.get("voice_id"))
        while True:
            message: Message | None = None
            with trio.move_on_after(IDLE):
                message = await self._conversation.receive()
            if message is None:
                await _fail(self._conversation, 4008, "waiting for audio timed out")
                return
            if isinstance(message, bytes):
                await self._listen(np.frombuffer(message[: len(message) // 2 * 2], "<i2"))
            elif object_of(message).get("type") == "end":
                await self._settle()
                await _tell(self._conversation, final=1)
                await self._conversation.close(1000)
                return
            else:
                await _fail(self._conversation, 4010, "unknown text message")
                return

    async def _listen(self, pcm: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
        begin, self._at = self._at, self._at + len(pcm) / self._rate
        if len(pcm) and np.abs(pcm.astype(np.int32)).max() > LOUD:
            if not self._words:
                self._words = (self._service.script.popleft() if self._service.script else "words").split()
                self._began = begin
            self._loud_until = self._at
            if self._spoken < len(self._words):
                self._spoken += 1
                await self._tell(0 if self._spoken == 1 else 1)
        elif self._words and self._at - self._loud_until >= PAUSE:
            await self._settle()

    async def _settle(self) -> None:
        if self._words:
            self._spoken = len(self._words)
            await self._tell(2)
            self._words, self._spoken, self._index = [], 0, self._index + 1

    async def _tell(self, slice_type: int) -> None:
        result = {
            "slice_type": slice_type,
            "index": self._index,
            "start_time": round(1000 * self._began),
            "end_time": round(1000 * self._loud_until),
            "voice_text_str": " ".join(self._words[: self._spoken]),
            "word_size": 0,
            "word_list": [],
        }
        await _tell(self._conversation, message_id=f"m-{self._index}", result=result)


async def _utter(conversation: Conversation, text: str, index: int, seconds: float) -> float:
    """The audio of a text that begins at `index` of all, and at so many seconds; where it ends."""
    times = [round(1000 * (seconds + SPEECH * n)) for n in range(len(text) + 1)]
    subtitles = [
        {"Text": c, "BeginTime": times[n], "EndTime": times[n + 1], "BeginIndex": index + n, "EndIndex": index + n + 1}
        for n, c in enumerate(text)
        if c.strip()
    ]
    await _tell(conversation, result={"subtitles": subtitles})
    audio = _voice(text, int(conversation.asked.query.get("SampleRate", "16000")))
    for at in range(0, len(audio), CHUNK):
        await conversation.send(audio[at : at + CHUNK])
    return seconds + SPEECH * len(text)


def _voice(text: str, rate: int) -> bytes:
    return voice(SPEECH * len(text), rate)


async def _tell(conversation: Conversation, **fields: object) -> None:
    await conversation.send(json.dumps({"code": 0, "message": "success", **fields}))


async def _fail(conversation: Conversation, code: int, words: str) -> None:
    await conversation.send(json.dumps({"code": code, "message": words}))
    await conversation.close(1000)


def _failure(code: str, words: str) -> Answer:
    said = {"Response": {"Error": {"Code": code, "Message": words}, "RequestId": "r-1"}}
    return _json_answer(said)


def _json_answer(said: object) -> Answer:
    return Answer(200, json.dumps(said).encode(), (("content-type", "application/json"),))
