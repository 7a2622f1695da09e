"""VoiceApi as its server code behaves: framing, order, and what it does to a client that breaks its rules."""

from __future__ import annotations

import json
from collections import deque

import attrs
import numpy as np
import trio

from rustpbx.testing.services.service import Answer, Asked, Conversation, EmulatedService, texts_of, voice

MODEL_RATE = 24000
LOUD = 500
ENDPOINTING = 1.2


def _number(asked: Asked, name: str, default: str) -> float:
    return float(asked.query.get(name, default))


@attrs.define(eq=False)
class EmulatedVoiceApi(EmulatedService):
    """`script` is what is recognised, one text for each utterance; a voice is a tone, 60 ms for each character.

    An utterance is what is loud until 1.2 s of silence follow. What it is taken for is sent when it changes.
    """

    script: deque[str] = attrs.field(factory=deque, converter=texts_of)

    def admit(self, asked: Asked) -> Answer | None:
        """403 for a bad query value, as FastAPI refuses an upgrade."""
        try:
            for name, default in (("samplerate", "16000"), ("sid", "0"), ("chunk_size", "1024"), ("speed", "1.0")):
                _number(asked, name, default)
        except ValueError:
            return Answer(403)
        return None if asked.path in {"/asr", "/tts"} else Answer(403)

    async def converse(self, conversation: Conversation) -> None:
        """One of the two WebSockets."""
        if conversation.asked.path == "/asr":
            await self._listen(conversation)
        else:
            await self._speak(conversation)

    # -- ASR

    async def _listen(self, conversation: Conversation) -> None:
        rate = _number(conversation.asked, "samplerate", "16000")
        index, silent, words, told = 0, 0.0, 0, ""
        while True:
            message = await conversation.receive()
            if isinstance(message, str) or len(message) % 2:
                await conversation.drop()
                return
            if not message:
                await trio.sleep_forever()  # it stops reading, and says nothing
            pcm = np.frombuffer(message, "<i2")
            if np.abs(pcm.astype(np.int32)).max() > LOUD:
                silent, words = 0.0, words + 1
                if self._heard(words) != told:
                    told = self._heard(words)
                    await self._tell(conversation, told, False, index)
                continue
            silent += len(pcm) / rate
            if words and silent >= ENDPOINTING:
                await self._tell(conversation, self.script.popleft() if self.script else "words", True, index)
                index, words, told = index + 1, 0, ""

    def _heard(self, words: int) -> str:
        return " ".join((self.script[0] if self.script else "words").split()[:words])

    async def _tell(self, conversation: Conversation, text: str, finished: bool, index: int) -> None:
        await conversation.send(json.dumps({"text": text, "finished": finished, "idx": index}))

    # -- TTS

    async def _speak(self, conversation: Conversation) -> None:
        query, answered = conversation.asked.query, False
        while True:
            text = await conversation.receive()
            if not isinstance(text, str):
                await conversation.drop()
                return
            if not text or (answered and query.get("interrupt", "true") == "true"):
                continue  # no answer at all
            answered = True
            await self._say(conversation, text)

    async def _say(self, conversation: Conversation, text: str) -> None:
        asked = conversation.asked
        rate, size = int(_number(asked, "samplerate", "16000")), int(_number(asked, "chunk_size", "1024"))
        seconds = 0.06 * len(text.strip()) / _number(asked, "speed", "1.0")
        data = voice(seconds, rate)
        for at in range(0, len(data), size):
            await conversation.send(data[at : at + size])
        duration = f"{seconds:.2f}s"
        await conversation.send(json.dumps({"progress": 1.0, "elapsed": "3ms", "duration": duration, "size": 0}))
