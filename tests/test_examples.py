"""The examples do what they say: in virtual time as a user would test them, and for real on loopback."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio

import rustpbx
from rustpbx.shell.network import RealNetwork
from rustpbx.sip import events as sip
from rustpbx.testing.handset import Handset
from rustpbx.testing.phone import open_phone
from rustpbx.testing.speech import ScriptedSpeech
from tests.kit.real import LOOPBACK, free_port

ROOT = Path(rustpbx.__file__).parent.parent
EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def real_handset(uri: str = "") -> AsyncIterator[Handset]:
    """A phone on loopback that is talked to in words, and dials `uri`."""
    async with open_phone(RealNetwork(), LOOPBACK) as phone:
        yield Handset(lambda: phone, lambda: uri, lambda _: None)


async def talk(phone: Handset) -> None:
    """What both agents are asked."""
    await phone.hears("Hello, please say something.")
    await phone.says("good morning")
    await phone.hears("You said: good morning")


def test_the_examples_pass_as_a_user_would_run_them(tmp_path: Path) -> None:
    """`pytest examples`, away from this project's configuration: both agents, over the wire and embedded."""
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.rstrip().splitlines()[-1].startswith("2 passed"), done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.real_time
async def test_the_agent_over_the_websocket_on_loopback() -> None:
    """The script as a program of its own calls a phone through a running server, and ends when the phone hangs up."""
    with ScriptedSpeech().serving("local"):
        async with (
            rustpbx.serve(addr=LOOPBACK, udp_port=0, http_addr=f"{LOOPBACK}:0") as server,
            real_handset() as phone,
        ):
            url = "ws://{}:{}/call/sip".format(*server.http)
            command = [sys.executable, str(EXAMPLES / "agent_websocket.py"), phone.phone.uri, url]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(be_called, phone)
                done = await trio.run_process(command, capture_stdout=True)
        assert done.stdout.startswith(b"{'event': 'hangup'")
        assert b"'reason': 'callee'" in done.stdout


async def be_called(phone: Handset) -> None:
    """Answer, talk, hang up."""
    await phone.answers()
    await talk(phone)
    phone.hangs_up()


@pytest.mark.real_time
async def test_the_embedded_agent_on_loopback() -> None:
    """A phone calls the program; when that is cancelled, the phone gets its BYE."""
    port = free_port(socket.SOCK_DGRAM)
    example = load("agent_embedded")
    with ScriptedSpeech().serving("local"):
        async with real_handset(f"sip:agent@{LOOPBACK}:{port}") as phone:
            async with trio.open_nursery() as program:
                program.start_soon(example.main, LOOPBACK, str(port))
                call = await phone.dials()
                await talk(phone)
                program.cancel_scope.cancel()
            assert isinstance((await call.ended()).cause, sip.ByeReceived)
