"""Tencent Cloud's TextToVoice (cloud.tencent.com/document/product/1073/37995): a text, a request, the whole audio.

Credentials are the options `secretId`, `secretKey`, else `TENCENT_SECRET_ID`, `TENCENT_SECRET_KEY`; `extra` options are
fields of the request. Transcription under this name is `tencent`'s.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import attrs
import httpx
import trio

from rustpbx.errors import SpeechError
from rustpbx.speech.audio import PcmReader
from rustpbx.speech.base import SpeechChunk, Utterance
from rustpbx.speech.registry import SpeechServices, SynthesizerOptions
from rustpbx.speech.socket import refused, secret, service_errors
from rustpbx.speech.tencent import recognizer, tencent_speed, tencent_volume, voice_type
from rustpbx.speech.tencent_signing import Credentials, tc3_authorization
from rustpbx.speech.text import Sentence, Sentences

__all__ = ["TencentBasicSynthesizer", "recognizer", "synthesizer"]

NAME = "tencent_basic"
HOST = "tts.tencentcloudapi.com"
VERSION = "2019-08-23"
REGION = "ap-guangzhou"
JSON = "application/json"

VOICE = "501004"
"""The voice where no speaker is named."""
LONGEST = 150
"""Characters of one request: what fits if all of them are Chinese."""
PASSING = ("LimitExceeded", "RequestLimitExceeded", "InternalError", "ResourceUnavailable")
"""Beginnings of error codes that another try may not meet again."""


def pieces(text: str) -> list[Sentence]:
    """A text in sentences, those that are too long for a request cut."""
    sentences = Sentences()
    found = [*sentences.feed(text), *sentences.flush()]
    return [
        Sentence(sentence.text[at : at + LONGEST], sentence.start + at)
        for sentence in found
        for at in range(0, len(sentence.text), LONGEST)
    ]


@attrs.frozen
class TencentBasicSynthesizer:
    """A `Synthesizer`: a request for each sentence or so."""

    services: SpeechServices
    endpoint: str | None
    account: Credentials
    extra: Mapping[str, str]

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say one text; see `rustpbx.speech.base.Synthesizer`."""
        for piece in pieces(utterance.text):
            reader = PcmReader(utterance.rate, NAME)
            pcm = reader.feed(await self._ask(utterance, piece.text))
            if pcm.size:
                await audio.send(SpeechChunk(pcm, utterance.rate, piece.start))

    async def _ask(self, utterance: Utterance, text: str) -> bytes:
        """The audio of a piece of text."""
        url = httpx.URL((self.endpoint or f"https://{HOST}").rstrip("/") + "/")
        body = json.dumps(self._fields(utterance, text)).encode()
        now = self.services.timestamp()
        host = url.netloc.decode()
        headers = {
            "Content-Type": JSON,
            "Host": host,
            "X-TC-Action": "TextToVoice",
            "X-TC-Version": VERSION,
            "X-TC-Timestamp": str(now),
            "X-TC-Region": REGION,
            "Authorization": tc3_authorization(self.account, host=host, body=body, timestamp=now, content_type=JSON),
        }
        with service_errors(NAME):
            response = await self.services.reach(self.endpoint).client.post(url, content=body, headers=headers)
        if not response.is_success:
            raise refused(NAME, response.status_code, response.text[:1000])
        return _audio(response.content)

    def _fields(self, utterance: Utterance, text: str) -> dict[str, Any]:
        return {
            "Text": text,
            "SessionId": self.services.new_id(),
            "Volume": int(tencent_volume(utterance.volume)),
            "Speed": float(tencent_speed(utterance.speed)),
            "VoiceType": int(voice_type(utterance, VOICE)),
            "SampleRate": utterance.rate,
            "Codec": "pcm",
            **({"EmotionCategory": utterance.emotion} if utterance.emotion else {}),
            **self.extra,
        }


def _audio(content: bytes) -> bytes:
    """The audio of an answer. Raises `SpeechError` for an error, which comes with status 200 too, and for nonsense."""
    try:
        answer = json.loads(content)["Response"]
        error = answer.get("Error")
        if error is None:
            return base64.b64decode(answer["Audio"], validate=True)
        code, words = str(error.get("Code")), str(error.get("Message"))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise SpeechError(f"{NAME} answers something that is no audio: {content[:60]!r}", passing=True) from None
    raise SpeechError(f"{NAME}: {words[:200]} ({code})", passing=code.startswith(PASSING))


def synthesizer(options: SynthesizerOptions, services: SpeechServices) -> TencentBasicSynthesizer:
    """TextToVoice for one call. Raises `SpeechError` without credentials."""
    account = Credentials(
        options.app_id or "",
        secret(options.secret_id, "TENCENT_SECRET_ID", NAME),
        secret(options.secret_key, "TENCENT_SECRET_KEY", NAME),
    )
    return TencentBasicSynthesizer(services, options.endpoint, account, options.extra)
