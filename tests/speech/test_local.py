"""The provider `local` around its models: what is decoded when, what is said how, with scripted workers."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trio

from rustpbx.errors import OverloadedError, SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.shell.workers import WorkerDiedError
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.local import Gate, LocalRecognizer, LocalSynthesizer
from rustpbx.speech.local_files import checked
from rustpbx.speech.local_onnx import name_branches
from rustpbx.speech.local_segments import RATE
from rustpbx.speech.local_tts import LONGEST, cut
from tests.kit.speech import ScriptedOffload
from tests.speech.test_segments import HELLO, chatter, silence


async def recognize(offload: ScriptedOffload, *parts: Pcm, gate: Gate | None = None) -> list[Transcript]:
    """What is heard in these parts, given in blocks of 100 ms at the pace of a call, from time 0."""
    heard: list[Transcript] = []
    pcm = np.concatenate(parts)
    start = trio.current_time()
    blocks_in, blocks = trio.open_memory_channel[AudioBlock](50)
    texts, texts_out = trio.open_memory_channel[Transcript](0)

    async def phone() -> None:
        with blocks_in:
            for at in range(0, len(pcm), 1600):
                await trio.sleep_until(start + (at + 1600) / RATE)
                blocks_in.send_nowait(AudioBlock(pcm[at : at + 1600], RATE, at / RATE))

    async def service() -> None:
        with texts:
            await LocalRecognizer(offload, gate=gate).recognize(blocks, texts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(phone)
        nursery.start_soon(service)
        async for transcript in texts_out:
            heard.append(transcript)  # noqa: PERF401 - what came before an error is wanted too
    return heard


def told(transcripts: list[Transcript]) -> list[tuple[int, str, bool]]:
    """Index, text, final."""
    return [(transcript.index, transcript.text, transcript.final) for transcript in transcripts]


@pytest.mark.local_speech
async def test_a_look_in_the_last_pause_is_the_final() -> None:
    """The open utterance is looked at each second and at a pause; the final costs no decoding of its own."""
    offload = ScriptedOffload("Hello", "Hello, thank you for calling.")
    heard = await recognize(offload, silence(1), HELLO, silence(1))
    assert told(heard) == [
        (0, "Hello", False),
        (0, "Hello, thank you for calling.", False),
        (0, "Hello, thank you for calling.", True),
    ]
    assert [(round(t.started_at, 1), round(t.ended_at, 1)) for t in heard[1:]] == [(1.3, 2.7), (1.3, 2.7)]
    assert [(pool, job) for pool, job, _ in offload.asked] == [("asr", "transcribe")] * 2


@pytest.mark.local_speech
async def test_utterances_are_counted() -> None:
    """Finals carry 0, 1, 2 ...; an utterance without words is not told and not counted."""
    parts = [silence(1), HELLO, silence(1), HELLO, silence(1), HELLO, silence(1)]
    busy = Gate(busy=1)
    heard = await recognize(ScriptedOffload("one", "", "two"), *parts, gate=busy)
    assert told(heard) == [(0, "one", True), (1, "two", True)]


@pytest.mark.local_speech
async def test_a_busy_worker_is_left_alone() -> None:
    """While other calls keep the workers busy only finals are decoded; afterwards the gate is as it was."""
    offload, gate = ScriptedOffload("Hello, thank you for calling."), Gate(busy=1)
    heard = await recognize(offload, silence(1), HELLO, silence(1), gate=gate)
    assert told(heard) == [(0, "Hello, thank you for calling.", True)]
    assert gate.busy == 1


@pytest.mark.local_speech
async def test_looks_never_queue_behind_each_other() -> None:
    """When decoding takes longer than speaking, there is one look at a time, and every final comes in order."""
    offload = ScriptedOffload(*[f"text {number}" for number in range(9)], seconds=3.0)
    heard = await recognize(offload, silence(1), HELLO, silence(1), HELLO, silence(1))
    assert told(heard) == [(0, "text 0", False), (0, "text 1", True), (1, "text 2", True)]


@pytest.mark.local_speech
async def test_the_last_words_are_flushed() -> None:
    """A caller who hangs up in the middle of a sentence is heard to the end."""
    heard = await recognize(ScriptedOffload("all of it"), chatter(0.9), gate=Gate(busy=1))
    assert told(heard) == [(0, "all of it", True)]


@pytest.mark.local_speech
@pytest.mark.parametrize("error", [WorkerDiedError("the worker died"), OverloadedError("full"), SpeechError("no file")])
async def test_trouble_is_a_speech_error(error: Exception) -> None:
    """Whatever a worker fails with reaches the call as one `SpeechError`, not in a group."""
    offload, gate = ScriptedOffload(error), Gate()
    blocks_in, blocks = trio.open_memory_channel[AudioBlock](50)
    texts, _texts_out = trio.open_memory_channel[Transcript](10)
    blocks_in.send_nowait(AudioBlock(np.concatenate((HELLO, silence(1))), RATE, 0.0))
    with pytest.raises(SpeechError, match=str(error)):
        await LocalRecognizer(offload, gate=gate).recognize(blocks, texts)
    assert gate.busy == 0


@pytest.mark.local_speech
async def test_wrong_audio_and_languages_are_refused() -> None:
    """Another rate ends the recognition; another language is refused before it begins."""
    blocks_in, blocks = trio.open_memory_channel[AudioBlock](50)
    texts, _texts_out = trio.open_memory_channel[Transcript](10)
    blocks_in.send_nowait(AudioBlock(silence(1), 8000, 0.0))
    with pytest.raises(SpeechError, match="wants audio at 16000 Hz, not 8000"):
        await LocalRecognizer(ScriptedOffload()).recognize(blocks, texts)
    LocalRecognizer(ScriptedOffload(), language="en-GB")
    with pytest.raises(SpeechError, match="knows English only, not 'zh'"):
        LocalRecognizer(ScriptedOffload(), language="zh")


async def say(offload: ScriptedOffload, utterance: Utterance) -> list[SpeechChunk]:
    """The chunks of one utterance."""
    send, receive = trio.open_memory_channel[SpeechChunk](10)
    with send:
        await LocalSynthesizer(offload).synthesize(utterance, send)
    return [chunk async for chunk in receive]


@pytest.mark.local_speech
async def test_sentences_are_chunks() -> None:
    """Each sentence is one job and one chunk, marked with its place in the text."""
    one, two = np.ones(8, np.int16), np.ones(4, np.int16)
    offload = ScriptedOffload(["Hi.", "\u4f60\u597d.", "Hi."], one, np.zeros(0, np.int16), two)
    text = "Hi. \u4f60\u597d.\nHi."
    chunks = await say(offload, Utterance(text=text, rate=8000, speed=1.5, volume=7))
    assert chunks == [SpeechChunk(one, 8000, 0), SpeechChunk(two, 8000, 8)]
    assert [np.array_equal(chunk.pcm, pcm) for chunk, pcm in zip(chunks, (one, two), strict=True)] == [True, True]
    assert offload.asked[1:3] == [
        ("tts", "speak", ("Hi.", 8000, 1.5, 7)),
        ("tts", "speak", ("\u4f60\u597d.", 8000, 1.5, 7)),
    ]


@pytest.mark.local_speech
@pytest.mark.parametrize(
    ("answers", "utterance", "problem"),
    [
        (
            (["\u4f60\u597d"], np.zeros(0, np.int16)),
            Utterance(text="\u4f60\u597d", rate=8000),
            "cannot say '\u4f60\u597d'",
        ),
        ((), Utterance(text="Hi", rate=8000, speaker="601003"), "one voice, 'heart', not '601003'"),
        ((), Utterance(text="Hi", rate=1000), "1000 Hz is not between 8000 and 48000"),
        ((WorkerDiedError("the worker died"),), Utterance(text="Hi", rate=8000), "synthesis: the worker died"),
    ],
)
async def test_what_cannot_be_said_is_an_error(answers: tuple[object, ...], utterance: Utterance, problem: str) -> None:
    """Text without English, another voice, an odd rate, a dead worker: a `SpeechError` that says so."""
    with pytest.raises(SpeechError, match=problem):
        await say(ScriptedOffload(*answers), utterance)


@pytest.mark.parametrize("text", ["word " * 5000, "a" * 1000, f"{'a' * 400} b", "", "short"])
def test_a_long_sentence_is_said_in_pieces(text: str) -> None:
    """No piece is longer than the model may get, none breaks a word that fits, and together they are the text."""
    pieces = cut(text.strip())
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert {word for piece in pieces for word in piece.split() if len(word) < LONGEST} <= {
        "word",
        "a" * 100,
        "b",
        "short",
    }


@pytest.mark.local_speech
@pytest.mark.parametrize("text", ["", " ", "...", "\U0001f44b"])
async def test_nothing_to_say_is_no_error(text: str) -> None:
    """An empty text, punctuation or an emoji gives no audio and no complaint."""
    empty = np.zeros(0, np.int16)
    assert await say(ScriptedOffload([text], empty), Utterance(text=text, rate=8000)) == []


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the packages are absent both services name the line that installs them."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "hibari" else real(name))
    for service in (LocalRecognizer, LocalSynthesizer):
        with pytest.raises(SpeechError) as caught:
            service(ScriptedOffload())
        assert str(caught.value) == "local speech is not installed: pip install 'rustpbx[local]' (missing: hibari)"


def test_the_server_does_not_load_the_models() -> None:
    """Importing the speech layer pulls in neither the models' runtime nor the decoder: they belong into workers."""
    program = (
        "import sys, rustpbx.speech.registry, rustpbx.media.fetch\n"
        "print(sorted({'av', 'onnxruntime', 'hibari', 'moonshine_cpp'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_another_model_file_is_refused(tmp_path: Path) -> None:
    """A model is only loaded when it is the one that was tested."""
    (tmp_path / "model").write_bytes(b"good")
    good = hashlib.sha256(b"good").hexdigest()
    assert checked(tmp_path, ("model", good)) == b"good"
    (tmp_path / "model").write_bytes(b"bad")
    with pytest.raises(SpeechError, match="model is not the file that was tested"):
        checked(tmp_path, ("model", good))
    with pytest.raises(SpeechError, match="none cannot be read: No such file"):
        checked(tmp_path, ("none", good))


def test_branches_get_names() -> None:
    """Only the messages at the path grow; lengths around them are right, other fields are as they were."""
    branch = b"\x08\x96\x01"  # field 1, a varint
    long = bytes([0x52, 0x80, 0x01]) + bytes(128)  # field 10, 128 bytes: a length of two bytes
    message = b"\x0a\x03" + branch + b"\x15abcd" + b"\x19abcdefgh" + long
    named = branch + b"\x12\x06branch"
    assert name_branches(memoryview(message), (1,)) == b"\x0a\x0b" + named + message[5:]
    outer = b"\x3a\x96\x01" + message
    assert name_branches(memoryview(outer), (7, 1)) == b"\x3a\x9e\x01\x0a\x0b" + named + message[5:]
    with pytest.raises(ValueError, match="wire type 7"):
        name_branches(memoryview(b"\x0f"), (1,))
