"""The ears of a call: its tap on the plane, a recognizer, and the transcripts that come out."""

from __future__ import annotations

import trio

from rustpbx.errors import SpeechError
from rustpbx.session.effects import Heard, ListeningFailed
from rustpbx.session.options import TranscriptionOption
from rustpbx.session.shell.services import Services
from rustpbx.session.shell.track import Report
from rustpbx.speech.base import Transcript
from rustpbx.speech.registry import RecognizerOptions, make_recognizer

PENDING_TRANSCRIPTS = 100
"""Transcripts between a recognizer and its call; a recognizer that is further ahead waits."""


async def listen(option: TranscriptionOption, leg: str, services: Services, report: Report) -> None:
    """Transcribe `leg` until cancelled; a service that breaks is reported once and the call goes on without it."""
    await trio.lowlevel.checkpoint()  # the call ended before this began: its leg may be gone
    sender = f"asr.{option.provider or 'local'}"
    try:
        recognizer = make_recognizer(_recognizer_options(option), services.speech)
    except SpeechError as problem:
        report(ListeningFailed(sender, str(problem), problem.code))
        return
    with services.plane.tap(leg) as tap:
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[Transcript](PENDING_TRANSCRIPTS)
            nursery.start_soon(_forward, receive, report)
            with send:
                try:
                    await recognizer.recognize(tap.blocks, send)
                except SpeechError as problem:
                    report(ListeningFailed(sender, str(problem), problem.code))


async def _forward(transcripts: trio.MemoryReceiveChannel[Transcript], report: Report) -> None:
    async for transcript in transcripts:
        report(Heard(transcript))


def _recognizer_options(option: TranscriptionOption) -> RecognizerOptions:
    return RecognizerOptions(
        provider=option.provider,
        language=option.language,
        rate=option.samplerate,
        model=option.model_type,
        app_id=option.app_id,
        secret_id=option.secret_id,
        secret_key=option.secret_key,
        endpoint=option.endpoint,
        extra=dict(option.extra or {}),
    )
