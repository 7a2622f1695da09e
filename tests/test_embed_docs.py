"""The guide to embedding teaches what works: each of its code blocks is run."""

from __future__ import annotations

import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import rustpbx
from rustpbx.sip import events as sip
from rustpbx.testing.speech import ScriptedSpeech
from tests.kit.real import LOOPBACK, free_port
from tests.test_examples import real_handset

GUIDE = (Path(rustpbx.__file__).parent.parent / "docs" / "embedding.md").read_text()
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A folder with every file of the guide."""
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text)
    return tmp_path


def run(guide: Path, *command: str) -> str:
    """The output of a Python command in that folder, without warnings."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command], cwd=guide, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_every_block_has_a_name() -> None:
    """So that each is written to a file, and none is left out."""
    assert [name for name, _ in BLOCKS] == [
        *("answering.py", "own_tasks.py", "calling.py", "test_embedded.py", "two_servers.py"),
    ]
    assert len(BLOCKS) == GUIDE.count("```python")


def test_the_tests_of_the_guide_pass(guide: Path) -> None:
    """The agents of the guide, called and calling, as its test block has it."""
    output = run(guide, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_embedded.py")
    assert output.rstrip().splitlines()[-1].startswith("4 passed")


def test_the_two_servers_of_the_guide_call_each_other(guide: Path) -> None:
    """As a program."""
    assert run(guide, "two_servers.py") == "all said\n"


@pytest.mark.real_time
async def test_the_first_program_of_the_guide_answers_a_phone(guide: Path) -> None:
    """On loopback, from the ring to the goodbye."""
    port = free_port(socket.SOCK_DGRAM)
    main = runpy.run_path(str(guide / "answering.py"))["main"]
    with ScriptedSpeech().serving("local"):
        async with real_handset(f"sip:agent@{LOOPBACK}:{port}") as phone, trio.open_nursery() as program:
            program.start_soon(main, port)
            await phone.dials()
            await phone.hears("What is your name?")
            await phone.says("Ada")
            await phone.hears("Goodbye, Ada.")
            assert isinstance((await phone.is_hung_up()).cause, sip.ByeReceived)
            program.cancel_scope.cancel()
