"""Did the words come through? Recognition of the phone's recording, error rates, latencies, and `demo.json`."""

from __future__ import annotations

import itertools
import json
import wave
from pathlib import Path

import attrs
import numpy as np
import trio

from rustpbx.demo.agent import Conversation
from rustpbx.demo.handset import PhoneReport
from rustpbx.demo.timeline import Timeline
from rustpbx.media.codec.resample import resample
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.shell.offload import InlineOffload
from rustpbx.speech.base import Transcript
from rustpbx.speech.registry import RecognizerOptions, SpeechServices, make_recognizer
from rustpbx.testing.wer import word_error_rate

ENOUGH = 0.8  # of the words
PHONE_RATE, ASR_RATE = 8000, 16000
BLOCK = ASR_RATE // 10


@attrs.frozen
class Score:
    """One sentence: what was said, what was understood, and how well."""

    who: str
    said: str
    understood: str

    @property
    def wer(self) -> float:
        """Word errors per word said."""
        return word_error_rate(self.said, self.understood)

    @property
    def passed(self) -> bool:
        """Whether enough of the words came through."""
        return 1 - self.wer >= ENOUGH


@attrs.frozen
class Outcome:
    """One call, judged. `problems` are reasons to fail besides the scores; `latencies` are (step, seconds)."""

    call: str
    scores: tuple[Score, ...]
    problems: tuple[str, ...]
    latencies: tuple[tuple[str, float], ...]
    files: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the call was as it should be."""
        return not self.problems and all(score.passed for score in self.scores)


def read_wav(path: Path) -> Pcm:
    """The samples of a mono 16-bit WAV."""
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


async def recognise(pcm: Pcm) -> str:
    """The words in 8 kHz samples, by the embedded recognizer. Blocks this thread's loop while it computes."""
    recognizer = make_recognizer(RecognizerOptions(), SpeechServices(offload=InlineOffload()))
    samples = resample(np.concatenate([pcm, np.zeros(PHONE_RATE, np.int16)]), PHONE_RATE, ASR_RATE)
    blocks, audio = trio.open_memory_channel[AudioBlock](0)
    send, transcripts = trio.open_memory_channel[Transcript](0)

    async def feed() -> None:
        async with blocks:
            for start in range(0, len(samples), BLOCK):
                await blocks.send(AudioBlock(samples[start : start + BLOCK], ASR_RATE, start / ASR_RATE))

    async def listen() -> None:
        async with send:
            await recognizer.recognize(audio, send)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        nursery.start_soon(listen)
        finals = [transcript.text async for transcript in transcripts if transcript.final]
    return " ".join(finals)


async def judge(call: str, sentence: str, phone: PhoneReport, agent: Conversation, folder: Path) -> Outcome:
    """Compare what was said with what was understood, at both ends of one call."""
    greeting = read_wav(folder / phone.heard_file)[: phone.greeting_samples]
    scores = (
        Score("the phone's sentence, as the server heard it", sentence, agent.transcript),
        Score("the greeting, as the phone heard it", agent.greeting, await recognise(greeting)),
    )
    problems = [f"error event: {error}" for error in agent.errors]
    if phone.ended_by_us is not False:
        problems.append("the call did not end by the server's BYE")
    if agent.hangup is None:
        problems.append("the agent saw no hangup event")
    if agent.close_code != 1000:
        problems.append(f"the agent's socket closed with {agent.close_code}, not 1000")
    if "reply heard" not in phone.moments:
        problems.append("the phone did not hear the answer")
    files = (phone.heard_file, phone.said_file)
    return Outcome(call, scores, tuple(problems), tuple(latencies(phone, agent)), files)


def latencies(phone: PhoneReport, agent: Conversation) -> list[tuple[str, float]]:
    """The waterfall from the phone's last sound to the first sound of the answer: (step, seconds it took)."""
    moments = {**agent.moments, **phone.moments}
    steps = (
        ("spoke", ""),
        ("silence", "end of speech noticed (silence event)"),
        ("asrFinal", "words recognised (asrFinal)"),
        ("tts:reply", "agent waits for more and decides (tts)"),
        ("trackStart:reply", "playback begins (trackStart)"),
        ("reply heard", "answer synthesised, sent and heard"),
    )
    times = sorted((moments[name], label) for name, label in steps if name in moments)
    return [(label, at - before) for (before, _), (at, label) in itertools.pairwise(times)]


def show(outcome: Outcome, timeline: Timeline) -> None:
    """Print transcripts, scores and the waterfall of a call."""
    timeline.heading(f"{outcome.call}: {'passed' if outcome.passed else 'FAILED'}")
    for score in outcome.scores:
        mark = "ok " if score.passed else "BAD"
        print(f"  {mark} {score.who}: {100 * (1 - score.wer):.0f} % of the words (WER {score.wer:.2f})")
        print(f"        said        {score.said}")
        print(f"        understood  {score.understood or '(nothing)'}")
    for problem in outcome.problems:
        print(f"  BAD {problem}")
    total = sum(seconds for _, seconds in outcome.latencies)
    print(f"  from the last sound of the phone to the first of the answer: {1000 * total:.0f} ms")
    before = 0.0
    for label, seconds in outcome.latencies:
        bar = " " * round(30 * before / max(total, 1e-9)) + "#" * max(1, round(30 * seconds / max(total, 1e-9)))
        print(f"    {1000 * seconds:6.0f} ms  |{bar:<31}| {label}")
        before += seconds


def write_json(path: Path, outcomes: list[Outcome], timeline: Timeline, seconds: float) -> None:
    """Everything the demo found out, for programs."""
    report = {
        "passed": all(outcome.passed for outcome in outcomes) and bool(outcomes),
        "seconds": round(seconds, 1),
        "enough": ENOUGH,
        "calls": [
            {
                "call": outcome.call,
                "passed": outcome.passed,
                "problems": outcome.problems,
                "transcripts": [
                    {
                        "what": score.who,
                        "said": score.said,
                        "understood": score.understood,
                        "wer": round(score.wer, 4),
                        "passed": score.passed,
                    }
                    for score in outcome.scores
                ],
                "latencies_ms": [{"step": label, "ms": round(1000 * took)} for label, took in outcome.latencies],
                "recordings": outcome.files,
                "timeline": timeline.of(outcome.call),
            }
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
