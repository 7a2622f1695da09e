"""Alibaba Cloud's Model Studio (DashScope): Paraformer's live transcription, CosyVoice's speech, over one protocol.

A WebSocket carries a task: JSON orders (`run-task`, `continue-task`, `finish-task`) and events, audio in binary frames.
The key is the option `secretKey`, else `DASHSCOPE_API_KEY`; `endpoint` is the whole URL. `extra` options become
parameters of the task, except `model` and `workspace`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from rustpbx.errors import SpeechError
from rustpbx.journal import Journal
from rustpbx.media.events import AudioBlock
from rustpbx.speech.audio import AudioFeed, PcmReader
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance, Voice
from rustpbx.speech.registry import RecognizerOptions, SpeechServices, SynthesizerOptions
from rustpbx.speech.socket import ServiceSocket, next_text, open_socket, said_by, secret

NAME = "aliyun"
ENDPOINT = "wss://dashscope.aliyuncs.com/api-ws/v1/inference"
KEY = "DASHSCOPE_API_KEY"

log = Journal(__name__)

PIECE = 0.1
"""Seconds of audio in a frame."""
FAREWELL = 5.0
"""Seconds that the last words are waited for."""
STARTING = 10.0
"""Seconds that a task may take to start."""
PATIENCE = 15.0
"""Seconds without text after which a task is finished: after 23 it fails. More text begins another."""
LISTENER, SPEAKER, VOICE = "paraformer-realtime-v2", "cosyvoice-v2", "longyumi_v2"

PASSING = ("CLIENT_ERROR", "ResponseTimeout", "InternalError", "Throttling", "SystemError", "ServiceUnavailable")
"""Beginnings of error codes that another try may not meet again."""
NOTHING_HEARD = "NO_VALID_AUDIO_ERROR"
"""No speech before the end of the audio: no failure."""


def _value(text: str) -> object:
    """A parameter out of an option: `true`, `600`, `zh`."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return text


@attrs.frozen
class _Access:
    """Where the service is, and who asks."""

    services: SpeechServices
    endpoint: str | None
    key: str = attrs.field(repr=False)
    extra: Mapping[str, str]

    @asynccontextmanager
    async def task(self, **payload: object) -> AsyncIterator[_Task]:
        """A task that has started, on a connection of its own."""
        headers = [("Authorization", f"Bearer {self.key}")]
        if self.extra.get("workspace"):
            headers.append(("X-DashScope-WorkSpace", self.extra["workspace"]))
        reach = self.services.reach(self.endpoint)
        async with open_socket(reach, self.endpoint or ENDPOINT, NAME, headers) as socket:
            task = _Task(socket, self.services.new_id().replace("-", ""), payload)
            await task.start()
            yield task

    @property
    def parameters(self) -> dict[str, object]:
        """What `extra` sets."""
        return {name: _value(value) for name, value in self.extra.items() if name not in ("model", "workspace")}


@attrs.define
class _Task:
    """One task: orders out, events and audio in."""

    socket: ServiceSocket
    task_id: str
    payload: dict[str, object]

    async def start(self) -> None:
        """Begin it, and wait until the service is ready for audio or text."""
        await self._order("run-task", self.payload)
        try:
            with trio.fail_after(STARTING):
                while True:
                    event = await self.event()
                    if not isinstance(event, bytes) and event[0] == "task-started":
                        return
        except trio.TooSlowError:
            raise SpeechError(f"{NAME} does not start the task", passing=True) from None

    async def go_on(self, **inputs: object) -> None:
        """More text."""
        kind = {name: value for name, value in self.payload.items() if name != "parameters"}
        await self._order("continue-task", {**kind, "input": inputs})

    async def finish(self) -> None:
        """No more audio, or text."""
        await self._order("finish-task", {"input": {}})

    async def event(self) -> tuple[str, dict[str, Any]] | bytes:
        """The next event with its payload's output, or audio. Raises `SpeechError` when the task has failed."""
        while True:
            try:
                message = await self.socket.receive()
            except trio.EndOfChannel:
                raise SpeechError(f"{NAME} closed before the end of the task", passing=True) from None
            if isinstance(message, bytes):
                return message
            header, output = _understand(message)
            event = header.get("event")
            if event == "task-failed":
                raise _failure(header)
            if isinstance(event, str):
                return event, output

    async def _order(self, action: str, payload: dict[str, object]) -> None:
        header = {"action": action, "task_id": self.task_id, "streaming": "duplex"}
        await self.socket.send(json.dumps({"header": header, "payload": payload}))


def _understand(message: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and output of a message; empty for what is none."""
    said = said_by(NAME, message)
    header, payload = said.get("header"), said.get("payload")
    output = payload.get("output") if isinstance(payload, dict) else None
    return header if isinstance(header, dict) else {}, output if isinstance(output, dict) else {}


def _failure(header: Mapping[str, object]) -> SpeechError:
    code, words = str(header.get("error_code") or "task failed"), str(header.get("error_message") or "no reason given")
    busy = "rate limit" in words.lower()
    return SpeechError(f"{NAME}: {words[:200]} ({code[:60]})", passing=busy or code.startswith(PASSING))


# -- speech to text --------------------------------------------------------------------------------------------------


@attrs.frozen
class AliyunRecognizer:
    """A `Recognizer`: one task for the call."""

    access: _Access
    model: str
    parameters: Mapping[str, object]
    rate: int

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Send audio, hear texts; see `rustpbx.speech.base.Recognizer`."""
        feed = AudioFeed(audio, self.rate, PIECE)
        first = await feed.next()  # a task without audio fails
        if first is None:
            return
        payload = {"model": self.model, "parameters": dict(self.parameters), "input": {}}
        kind = {"task": "asr", "task_group": "audio", "function": "recognition"}
        async with self.access.task(**payload, **kind) as task, trio.open_nursery() as nursery:
            listening = _Listening(task, feed, transcripts)
            nursery.start_soon(listening.run)
            piece: bytes | None = first
            while piece is not None:
                await task.socket.send(piece)
                piece = await feed.next()
            listening.finishing = True
            await task.finish()
            with trio.move_on_after(FAREWELL):
                await listening.over.wait()
            nursery.cancel_scope.cancel()


class _Listening:
    """The sentences of one task."""

    def __init__(self, task: _Task, feed: AudioFeed, transcripts: trio.MemorySendChannel[Transcript]) -> None:
        self.over = trio.Event()
        self.finishing = False
        self._task = task
        self._feed = feed
        self._transcripts = transcripts
        self._index = 0

    async def run(self) -> None:
        """Hear until the task has finished."""
        try:
            while True:
                event = await self._task.event()
                if isinstance(event, bytes):
                    continue
                name, output = event
                if name == "task-finished":
                    break
                await self._hear(output.get("sentence"))
        except SpeechError as problem:
            if not (self.finishing and NOTHING_HEARD in str(problem)):
                raise
        self.over.set()

    async def _hear(self, sentence: object) -> None:
        if not isinstance(sentence, dict) or sentence.get("heartbeat") is True:
            return
        text = sentence.get("text")
        final = sentence.get("sentence_end", sentence.get("end_time") is not None) is True
        if not isinstance(text, str) or not text.strip():
            return
        begin, end = _seconds(sentence.get("begin_time")), _seconds(_end_of(sentence))
        started = self._feed.at(begin)
        times = started, max(started, self._feed.at(max(begin, end)))
        await self._transcripts.send(Transcript(self._index, text, final, *times))
        self._index += final


def _end_of(sentence: Mapping[str, Any]) -> object:
    """When a sentence ends, or its last word so far."""
    if sentence.get("end_time") is not None:
        return sentence["end_time"]
    words = sentence.get("words")
    last = words[-1] if isinstance(words, list) and words else None
    return last.get("end_time") if isinstance(last, dict) else None


def _seconds(milliseconds: object) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) else 0.0


# -- text to speech --------------------------------------------------------------------------------------------------


def aliyun_volume(volume: int) -> int:
    """Our 0..10 (5 normal) as CosyVoice's 0..100 (50 normal)."""
    return 10 * min(max(volume, 0), 10)


@attrs.frozen
class AliyunSynthesizer:
    """A `Synthesizer` and `StreamingSynthesizer`: a task for each text."""

    access: _Access
    model: str

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say one text; see `rustpbx.speech.base.Synthesizer`."""
        send, texts = trio.open_memory_channel[str](1)
        with send:
            send.send_nowait(utterance.text)
        await self.stream(texts, utterance, audio)

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Say a text as it is written; see `rustpbx.speech.base.StreamingSynthesizer`."""
        start = 0
        while (first := await next_text(texts)) is not None:
            kind: dict[str, object] = {"model": self.model, "task_group": "audio"}
            kind |= {"task": "tts", "function": "SpeechSynthesizer"}
            kind["parameters"] = {**self._parameters(voice), **self.access.parameters}
            async with self.access.task(**kind, input={}) as task, trio.open_nursery() as nursery:
                speaking = _Speaking(task, voice.rate, audio, start)
                nursery.start_soon(speaking.run)
                text: str | None = first
                while text is not None:
                    await speaking.say(text)
                    text = None
                    with trio.move_on_after(PATIENCE):
                        text = await next_text(texts)
                await task.finish()
            start = speaking.end

    def _parameters(self, voice: Voice) -> dict[str, object]:
        return {
            "voice": voice.speaker or VOICE,
            "volume": aliyun_volume(voice.volume),
            "text_type": "PlainText",
            "sample_rate": voice.rate,
            "rate": min(max(voice.speed, 0.5), 2.0),
            "format": "pcm",
            **({"instruction": voice.emotion} if voice.emotion else {}),
        }


class _Speaking:
    """The audio of one task. Each sentence is announced with its words: that is where in the text its audio begins."""

    def __init__(self, task: _Task, rate: int, audio: trio.MemorySendChannel[SpeechChunk], start: int) -> None:
        self._task = task
        self._rate = rate
        self._audio = audio
        self._reader = PcmReader(rate, NAME)
        self._start = start
        self._text = ""
        self._found = 0
        self._mark: int | None = None

    @property
    def end(self) -> int:
        """The index behind all text of this task."""
        return self._start + len(self._text)

    async def say(self, text: str) -> None:
        """More text."""
        self._text += text
        if text:
            await self._task.go_on(text=text)

    async def run(self) -> None:
        """Until the task has finished."""
        while True:
            event = await self._task.event()
            if isinstance(event, bytes):
                await self._send(event)
                continue
            name, output = event
            if name == "task-finished":
                break
            if output.get("type") == "sentence-begin":
                self._place(output.get("original_text"))

    async def _send(self, data: bytes) -> None:
        pcm = self._reader.feed(data)
        if pcm.size:
            mark, self._mark = self._mark, None
            await self._audio.send(SpeechChunk(pcm, self._rate, mark))

    def _place(self, words: object) -> None:
        if not isinstance(words, str) or not words.strip():
            return
        at = self._text.find(words.strip(), self._found)
        if at >= 0:
            self._mark, self._found = self._start + at, at + len(words.strip())


# -- the options of a call -------------------------------------------------------------------------------------------


def recognizer(options: RecognizerOptions, services: SpeechServices) -> AliyunRecognizer:
    """Paraformer for one call. Raises `SpeechError` without credentials."""
    access = _Access(services, options.endpoint, secret(options.secret_key, KEY, NAME), options.extra)
    parameters: dict[str, object] = {"sample_rate": options.rate, "format": "pcm", "heartbeat": True}
    if options.language:
        parameters["language_hints"] = [options.language]
    model = options.model or options.extra.get("model") or LISTENER
    return AliyunRecognizer(access, model, {**parameters, **access.parameters}, options.rate)


def synthesizer(options: SynthesizerOptions, services: SpeechServices) -> AliyunSynthesizer:
    """CosyVoice for one call. Raises `SpeechError` without credentials."""
    access = _Access(services, options.endpoint, secret(options.secret_key, KEY, NAME), options.extra)
    return AliyunSynthesizer(access, options.extra.get("model") or SPEAKER)
