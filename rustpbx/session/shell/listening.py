"""The ears of a call: its tap on the plane, a recognizer, and the transcripts that come out."""

from __future__ import annotations

import attrs
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.plane.tap import AudioBlocks
from rustpbx.session.effects import Heard, Listen, ListeningFailed
from rustpbx.session.options import TranscriptionOption
from rustpbx.session.shell.services import Services
from rustpbx.session.shell.track import Report
from rustpbx.speech.base import Transcript
from rustpbx.speech.registry import RecognizerOptions, make_recognizer
from rustpbx.speech.socket import first_error

PENDING_TRANSCRIPTS = 100
"""Transcripts between a recognizer and its call; a recognizer that is further ahead waits."""
KEPT_BLOCKS = 100
"""Blocks of 100 ms that wait while a service cannot be reached: the latest ten seconds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a service is tried again; doubled each time that it did not help."""


async def listen(wanted: Listen, session: str, services: Services, report: Report) -> None:
    """Transcribe a leg until cancelled. A service that fails is reported once, and tried again while that may help.

    What is said meanwhile waits in the tap, up to its bound.
    """
    await trio.lowlevel.checkpoint()
    leg = wanted.leg or session
    if services.plane.leg(leg) is None:
        return  # the call ended before this began
    ears = _Ears(wanted, services, report)
    with services.plane.tap(leg, capacity=KEPT_BLOCKS) as tap:
        await ears.listen(tap.blocks)


class _Ears:
    """One recognizer after the other; their utterances count on."""

    def __init__(self, wanted: Listen, services: Services, report: Report) -> None:
        option = wanted.option
        self._leg = wanted.leg
        self._options = _recognizer_options(option)
        self._sender = f"asr.{option.provider or 'local'}"
        self._services = services
        self._report = report
        self._first = 0  # index of the running recognizer's first utterance
        self._next = 0
        self._told = False

    async def listen(self, blocks: AudioBlocks) -> None:
        """Until the audio ends, or nothing more is to be hoped for."""
        pause = FIRST_PAUSE
        while True:
            heard = self._next
            try:
                await self._recognize(blocks)
            except SpeechError as problem:
                if not self._told:
                    self._report(ListeningFailed(self._sender, str(problem), problem.code, self._leg))
                if not problem.passing:
                    return
            else:
                return  # the audio has ended
            if self._next > heard:
                pause = FIRST_PAUSE
            # It failed again without a word in between: that is the same failure.
            self._told = self._next == heard
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _recognize(self, blocks: AudioBlocks) -> None:
        recognizer = make_recognizer(self._options, self._services.speech)
        self._first = self._next
        send, receive = trio.open_memory_channel[Transcript](PENDING_TRANSCRIPTS)
        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forward, receive)
                with send:
                    await recognizer.recognize(blocks, send)

    async def _forward(self, transcripts: trio.MemoryReceiveChannel[Transcript]) -> None:
        async for transcript in transcripts:
            index = self._first + transcript.index
            self._next = index + 1
            self._told = False
            self._report(Heard(attrs.evolve(transcript, index=index), self._leg))


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
