"""The demo's parts: its story, its judgement, and what it says when something is in its way."""

import json
import socket
import wave
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import pytest
import trio
import trio.testing

from rustpbx import demo
from rustpbx.demo import show
from rustpbx.demo.agent import LISTENS, Conversation
from rustpbx.demo.handset import PhoneReport
from rustpbx.demo.phone import save_wav
from rustpbx.demo.provider import check, option
from rustpbx.demo.score import Outcome, Score, latencies, read_wav, write_json
from rustpbx.demo.server import HOST, Ports, ServerProcess, choose_ports, running_server, write_config
from rustpbx.demo.timeline import Timeline
from rustpbx.demo.trouble import DemoError, ServerDiedError
from rustpbx.demo.webhook import WebhookReceiver
from rustpbx.speech.local import READY
from rustpbx.testing.speech import tone


def test_story() -> None:
    """Each call's times count from its own start, printed at once, sorted for the report."""
    lines: list[str] = []
    timeline = Timeline(lines.append)
    timeline.add("call-1", "sip", "phone -> server  INVITE", 1000.0, "INVITE ...")
    timeline.add("call-1", "event", "answer", 1000.5)
    timeline.add("call-1", "sip", "phone <- server  200 OK", 1000.25)
    timeline.add("call-2", "note", "next", 2000.0)
    assert lines == [
        "   0.000  SIP      phone -> server  INVITE",
        "   0.500  agent <  answer",
        "   0.250  SIP      phone <- server  200 OK",
        "   0.000           next",
    ]
    assert timeline.of("call-1") == [
        {"at": 0.0, "who": "sip", "what": "phone -> server  INVITE", "detail": "INVITE ..."},
        {"at": 0.25, "who": "sip", "what": "phone <- server  200 OK"},
        {"at": 0.5, "who": "event", "what": "answer"},
    ]
    assert timeline.of("call-3") == []


def test_waterfall() -> None:
    """The steps from the phone's last sound to the first of the answer add up, in the order they happened."""
    agent = Conversation("hi", moments={"silence": 10.1, "asrFinal": 10.4, "tts:reply": 10.8, "trackStart:reply": 10.9})
    phone = PhoneReport(moments={"spoke": 10.0, "reply heard": 11.25, "greeting heard": 5.0})
    steps = latencies(phone, agent)
    assert [round(seconds, 3) for _, seconds in steps] == [0.1, 0.3, 0.4, 0.1, 0.35]
    assert [label.split(" (")[0] for label, _ in steps] == [
        "end of speech noticed",
        "words recognised",
        "agent waits for more and decides",
        "playback begins",
        "answer synthesised, sent and heard",
    ]


def test_verdict(tmp_path: Path) -> None:
    """Four words of five are enough, three are not, and a problem fails a call whose words came through."""
    good = Score("greeting", "one two three four five", "1 two, three four")
    bad = Score("greeting", "one two three four five", "one two three")
    assert (good.passed, bad.passed) == (True, False)
    outcomes = [
        Outcome("call-1", (good, good), (), (("playback", 0.25),), ("heard.wav",)),
        Outcome("call-2", (good, bad), (), (), ()),
        Outcome("call-3", (good,), ("no BYE",), (), ()),
    ]
    assert [outcome.passed for outcome in outcomes] == [True, False, False]
    write_json(tmp_path / "demo.json", outcomes[:1], Timeline(print), 12.34)
    assert json.loads((tmp_path / "demo.json").read_text()) == {
        "passed": True,
        "seconds": 12.3,
        "enough": 0.8,
        "calls": [
            {
                "call": "call-1",
                "passed": True,
                "problems": [],
                "transcripts": [
                    {
                        "what": "greeting",
                        "said": "one two three four five",
                        "understood": "1 two, three four",
                        "wer": 0.2,
                        "passed": True,
                    }
                ]
                * 2,
                "latencies_ms": [{"step": "playback", "ms": 250}],
                "recordings": ["heard.wav"],
                "timeline": [],
            }
        ],
    }


def test_recordings(tmp_path: Path) -> None:
    """A recording comes back as it was written, and any player knows its format."""
    save_wav(tmp_path / "x.wav", tone(0.5))
    assert np.array_equal(read_wav(tmp_path / "x.wav"), tone(0.5))
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 4000)


@pytest.mark.real_time
async def test_webhook_receiver() -> None:
    """A JSON post is taken and answered 200, anything else is 400."""
    receiver = WebhookReceiver()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(receiver.run)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(url, json={"dialogId": "x"})).status_code == 200
            assert (await client.post(url, content=b"what?")).status_code == 400
        assert await receiver.posts.receive() == {"dialogId": "x"}
        nursery.cancel_scope.cancel()


def test_free_ports_are_found() -> None:
    """Ports left open are free ones; asked for and free, they are taken as asked."""
    ports = choose_ports()
    assert ports.rtp % 2 == 0
    assert choose_ports(http=ports.http, sip=ports.sip).http == ports.http


@pytest.mark.local_speech
@pytest.mark.parametrize(("kind", "option"), [(socket.SOCK_STREAM, "--http-port"), (socket.SOCK_DGRAM, "--sip-port")])
def test_a_taken_port(kind: socket.SocketKind, option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A port in use ends the demo with status 4 and names the port and the way out."""
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind((HOST, 0))
        if kind is socket.SOCK_STREAM:
            holder.listen()
        port = str(holder.getsockname()[1])
        assert demo.main(["--folder", str(tmp_path), option, port]) == 4
    said = capsys.readouterr().err
    assert f"port {port} on {HOST} is taken" in said
    assert option in said


def test_speech_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without the embedded speech the demo ends with status 3 and says what to install."""
    monkeypatch.setattr(show, "PACKAGES", ("json", "surely_not_installed"))
    assert demo.main(["--folder", str(tmp_path)]) == 3
    assert "surely_not_installed is not installed" in capsys.readouterr().err


@pytest.mark.local_speech
@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("tencent", "set TENCENT_APPID"),
        ("aliyun", "set DASHSCOPE_API_KEY"),
        ("deepgram", "set DEEPGRAM_API_KEY"),
        ("nobody", "available: aliyun, deepgram, local, tencent, tencent_basic, voiceapi"),
    ],
)
def test_a_service_without_credentials(
    provider: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It is named with the variable that is missing, before anything is started."""
    for name in ("TENCENT_APPID", "DASHSCOPE_API_KEY", "DEEPGRAM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert demo.main(["--folder", str(tmp_path / "out"), "--provider", provider]) == 7
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


async def test_a_service_becomes_the_calls_option() -> None:
    """The agents name it for both directions, and ask for English where that is not its own idea."""
    assert option(None) == LISTENS
    assert option("voiceapi") == {**LISTENS, "asr": {"provider": "voiceapi"}, "tts": {"provider": "voiceapi"}}
    assert option("aliyun") == {
        **LISTENS,
        "asr": {"provider": "aliyun", "language": "en"},
        "tts": {"provider": "aliyun"},
    }
    await check("voiceapi")


@pytest.mark.real_time
async def test_the_first_call_waits_for_warm_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own log line says that its speech is loaded; without it the demo goes on after a while."""
    monkeypatch.setattr("rustpbx.demo.server.WARM_LIMIT", 0.01)
    for said, warm in ((f"12:00:00.000 info  app: {READY}\n", True), ("no embedded speech\n", False)):
        output, seen = trio.testing.memory_stream_one_way_pair()
        server = ServerProcess(cast("trio.Process", None), seen, Ports(1, 1, 2), tmp_path / "server.log")
        await output.send_all(said.encode())
        await output.aclose()
        await server.read_log()
        assert await server.warm() is warm


@pytest.mark.real_time
async def test_a_server_that_dies(tmp_path: Path) -> None:
    """A server that does not start is reported with its status and its last lines."""
    ports = Ports(http=1, sip=1, rtp=20_000)
    config = write_config(tmp_path, ports, "http://127.0.0.1:9/calls")
    config.write_text(config.read_text().replace("udp_port", "udp_prot"))
    with pytest.RaisesGroup(ServerDiedError) as caught:
        async with running_server(config, ports, tmp_path / "server.log"):
            pass
    [error] = caught.value.exceptions
    assert "ended with status 2" in str(error)
    assert "ua.udp_prot" in str(error)
    assert "ua.udp_prot" in (tmp_path / "server.log").read_text()


def test_nested_troubles_become_one_status(capsys: pytest.CaptureFixture[str]) -> None:
    """Of several troubles at once the root one decides; what is no trouble of the demo's is raised."""
    died, failed = ServerDiedError("the server died", ["boom"]), DemoError("call-1 failed")
    assert show._explain(ExceptionGroup("", [ExceptionGroup("", [failed]), died])) == 5
    assert "  | boom" in capsys.readouterr().err
    with pytest.raises(ExceptionGroup):
        show._explain(ExceptionGroup("", [died, ValueError("a bug")]))
