"""Alibaba Cloud's DashScope as its documentation says it behaves: tasks, their order, their time limits."""

from __future__ import annotations

import json
import re
from collections import deque

import attrs
import numpy as np
import trio

from rustpbx.testing.services.service import Answer, Asked, Conversation, EmulatedService, Message, texts_of, voice

KEY = "sk-aliyun"
PATH = "/api-ws/v1/inference"
LOUD = 500
PAUSE = 0.8
IDLE = 23.0
"""Seconds without audio or text after which a task fails."""
SPEECH = 0.06
"""Seconds of audio for each character."""
CHUNK = 1001
MODELS = frozenset({"paraformer-realtime-v2", "paraformer-realtime-8k-v2", "cosyvoice-v1", "cosyvoice-v2"})


class _TaskFailedError(Exception):
    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


@attrs.define(eq=False)
class EmulatedAliyun(EmulatedService):
    """`script` is what is recognised, a text for each sentence; a voice is a tone.

    `start` is how long a task takes to start; what comes before that fails it.
    """

    script: deque[str] = attrs.field(factory=deque, converter=texts_of)
    key: str = KEY
    start: float = 0.2

    def admit(self, asked: Asked) -> Answer | None:
        """A bad key is refused with 401."""
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return Answer(401, b'{"code": "InvalidApiKey", "message": "Invalid API-key provided."}')
        return None if asked.path == PATH else Answer(404)

    async def converse(self, conversation: Conversation) -> None:
        """Tasks, one after the other."""
        task_id = ""
        try:
            while True:
                header, payload = _order(await conversation.receive())
                task_id = str(header.get("task_id"))
                _check(header, payload)
                await trio.sleep(self.start)
                await _tell(conversation, task_id, "task-started", {})
                task = _Transcription if payload.get("task") == "asr" else _Speech
                await task(self, conversation, task_id, _fields(payload.get("parameters"))).run()
                await _tell(conversation, task_id, "task-finished", {"output": {}, "usage": None})
        except _TaskFailedError as failed:
            failure = {"error_code": failed.code, "error_message": str(failed)}
            await _tell(conversation, task_id, "task-failed", {}, **failure)
            await conversation.close(1000)


def _check(header: dict[str, object], payload: dict[str, object]) -> None:
    """Refuse what does not begin a task."""
    if header.get("action") != "run-task" or not re.fullmatch(r"[0-9a-f-]{32,36}", str(header.get("task_id"))):
        raise _TaskFailedError("InvalidParameter", "run-task with a task_id is expected")
    if payload.get("model") not in MODELS or payload.get("input") != {}:
        raise _TaskFailedError("ModelNotFound", "Model not exist.")


class _Task:
    """What both kinds of tasks do."""

    def __init__(
        self, service: EmulatedAliyun, conversation: Conversation, task_id: str, parameters: dict[str, object]
    ) -> None:
        self.service = service
        self.conversation = conversation
        self.task_id = task_id
        self.parameters = parameters
        self.rate = int(str(parameters.get("sample_rate", 16000)))

    async def receive(self) -> Message:
        """What comes, in time."""
        with trio.move_on_after(IDLE):
            return await self.conversation.receive()
        raise _TaskFailedError("CLIENT_ERROR", "request timeout after 23 seconds.")

    async def result(self, output: dict[str, object], usage: object = None) -> None:
        """A `result-generated`."""
        await _tell(self.conversation, self.task_id, "result-generated", {"output": output, "usage": usage})


class _Transcription(_Task):
    at = 0.0
    began = 0.0
    loud_until = 0.0
    spoken = 0
    number = 1
    audio = False
    words: tuple[str, ...] = ()

    async def run(self) -> None:
        """Sentences, until there is no more audio."""
        while True:
            message = await self.receive()
            if isinstance(message, bytes):
                await self._listen(np.frombuffer(message[: len(message) // 2 * 2], "<i2"))
                continue
            header, _ = _order(message)
            if header.get("action") != "finish-task" or header.get("task_id") != self.task_id:
                raise _TaskFailedError("InvalidParameter", "finish-task is expected")
            await self._settle()
            if self.number == 1:
                raise _TaskFailedError("NO_VALID_AUDIO_ERROR", "no valid audio")
            return

    async def _listen(self, pcm: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
        begin, self.at = self.at, self.at + len(pcm) / self.rate
        if not self.audio:
            self.audio = True
            await self.result({"sentence": {"text": "", "heartbeat": True}})
        if len(pcm) and np.abs(pcm.astype(np.int32)).max() > LOUD:
            if not self.words:
                script = self.service.script
                self.words = tuple((script.popleft() if script else "words").split())
                self.began = begin
            self.loud_until = self.at
            self.spoken = min(self.spoken + 1, len(self.words))
            await self._tell(final=False)
        elif self.words and self.at - self.loud_until >= PAUSE:
            await self._settle()

    async def _settle(self) -> None:
        if self.words:
            self.spoken = len(self.words)
            await self._tell(final=True)
            self.words, self.spoken, self.number = (), 0, self.number + 1

    async def _tell(self, *, final: bool) -> None:
        begin, end = round(1000 * self.began), round(1000 * self.loud_until)
        text = " ".join(self.words[: self.spoken])
        sentence = {
            "sentence_id": self.number,
            "begin_time": begin,
            "end_time": end if final else None,
            "text": text,
            "words": [{"begin_time": begin, "end_time": end, "text": text, "punctuation": ""}],
            "heartbeat": False,
            "sentence_end": final,
        }
        await self.result({"sentence": sentence}, {"duration": 1} if final else None)


class _Speech(_Task):
    async def run(self) -> None:
        """Sentences as they are whole; the rest when there is no more text."""
        text, index = "", 0
        while True:
            header, payload = _order(await self.receive())
            if header.get("task_id") != self.task_id:
                raise _TaskFailedError("InvalidParameter", "another task_id")
            inputs = _fields(payload.get("input"))
            if inputs.get("directive") == "cancel":
                return
            text += str(inputs.get("text", ""))
            finished = header.get("action") == "finish-task"
            whole = text if finished else text[: 1 + max(text.rfind(mark) for mark in ".!?。！？")]  # noqa: RUF001 - its marks
            for sentence in re.findall(r"[^.!?。！？]+[.!?。！？]*", whole):  # noqa: RUF001 - its marks
                await self._say(sentence, index)
                index += 1
            text = text[len(whole) :]
            if finished:
                return

    async def _say(self, sentence: str, index: int) -> None:
        if not sentence.strip():
            return
        place = {"index": index, "words": []}
        await self.result({"sentence": place, "type": "sentence-begin", "original_text": sentence})
        seconds = SPEECH * len(sentence.strip()) / float(str(self.parameters.get("rate", 1.0)))
        audio = voice(seconds, self.rate)
        for at in range(0, len(audio), CHUNK):
            await self.result({"sentence": place, "type": "sentence-synthesis"})
            await self.conversation.send(audio[at : at + CHUNK])
        await self.result({"sentence": place, "type": "sentence-end", "original_text": sentence}, {"characters": 1})


def _fields(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _order(message: Message) -> tuple[dict[str, object], dict[str, object]]:
    """An order's header and payload. Audio out of place, and what is no order, fails the task."""
    if isinstance(message, bytes):
        raise _TaskFailedError("InvalidParameter", "audio before the task has started")
    try:
        said = json.loads(message)
    except ValueError:
        raise _TaskFailedError("InvalidParameter", "no JSON") from None
    return _fields(said.get("header")), _fields(said.get("payload"))


async def _tell(conversation: Conversation, task_id: str, event: str, payload: object, **more: str) -> None:
    header = {"task_id": task_id, "event": event, "attributes": {}, **more}
    await conversation.send(json.dumps({"header": header, "payload": payload}))
