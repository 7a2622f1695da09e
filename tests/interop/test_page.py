"""The page in real browsers: a call by keyboard, a microphone that speaks, and words for what is missing."""

from __future__ import annotations

import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import rustpbx
from rustpbx.app import Server, real_outside
from rustpbx.settings import Config, UaConfig
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.workers import Workers
from rustpbx.speech import local, local_tts
from rustpbx.testing.phone import open_phone
from rustpbx.testing.wer import word_error_rate
from tests.kit.browser import Browser, open_browser, until
from tests.kit.real import LOOPBACK

pytestmark = pytest.mark.real_time

AXE = Path(__file__).parents[1] / ".peers" / "axe.min.js"
"""The newest one, as tests/install-peers.sh fetches it; else an older one from a package is asked."""
TOKEN = "a-token-for-the-page"
RATE = 48000
QUIET, AFTER = 5.0, 8.0
"""Seconds of silence around what the microphone hears: it breaks into the greeting."""
SAID = "Can you hear me now?"

TEXT = "document.getElementById('{}').textContent"
STATE, NOTICE, FIGURES = (TEXT.format(name) for name in ("state", "notice", "figures"))
EVENTS = "[...document.querySelectorAll('#events .name')].map((line) => line.textContent)"
LINES = "[...document.querySelectorAll('#transcript p')].map((line) => [line.className, line.textContent])"
RAW = (
    "(ask => (navigator.mediaDevices.getUserMedia = () => ask.call(navigator.mediaDevices, {audio: "
    "{echoCancellation: false, noiseSuppression: false, autoGainControl: false}}), 1))"
    "(navigator.mediaDevices.getUserMedia)"
)
"""This microphone hears no loudspeaker: what is to cancel one eats its words while the greeting plays."""
PUSH = "(document.activeElement.click(), 1)"
"""Firefox without a screen never has the focus, and its buttons hear no Enter then."""
FOCUS = "document.activeElement.id || document.activeElement.textContent"


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV of somebody who says something."""
    voice = np.concatenate([local_tts.speak(sentence, RATE) for sentence in local_tts.split(SAID)])
    pcm = np.concatenate([np.zeros(round(QUIET * RATE), np.int16), voice, np.zeros(round(AFTER * RATE), np.int16)])
    path = tmp_path_factory.mktemp("microphone") / "said.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


@asynccontextmanager
async def serving(*, speaks: bool = False, **keys: Any) -> AsyncIterator[tuple[Server, str]]:
    """A server and the address of its page; one that `speaks` has its models loaded before anybody calls."""
    ua = UaConfig(addr=LOOPBACK, udp_port=0)
    config = Config(
        http_addr=(LOOPBACK, 0), ua=ua, rtp_start_port=30000, rtp_end_port=31999, media_cache_path="", **keys
    )
    async with real_outside() as world:
        if speaks and isinstance(world.offload, Workers):
            await local.warm_up(world.offload)
        async with rustpbx.serve(config, outside=world) as server:
            yield server, f"http://{LOOPBACK}:{server.http[1]}/"


async def tab_to(browser: Browser, wanted: str) -> None:
    """Go on by Tab until this control has the focus."""
    for _ in range(60):
        if await browser.evaluate(FOCUS) == wanted:
            return
        await browser.press("Tab")
    raise AssertionError(f"{wanted} cannot be reached by Tab")


@pytest.mark.interop("chromium")
@pytest.mark.local_speech
async def test_a_conversation_in_chromium_by_keyboard_alone(tmp_path: Path, microphone: Path) -> None:
    """Call, be greeted, break in, be understood and answered, press a key, interrupt, and end it in the other view."""
    async with (
        serving(speaks=True) as (server, address),
        open_browser("chromium", tmp_path, microphone) as browser,
    ):
        await browser.open(address)
        await browser.evaluate(RAW)
        await tab_to(browser, "call")
        await browser.press("Enter")
        await until(browser, f"{STATE} === 'in a call'")
        (line,) = await until(browser, f"({LINES}).length && {LINES}")
        assert line[0] == "agent"
        await until(browser, f"({EVENTS}).includes('interruption')")
        await until(browser, f"({LINES}).length >= 3", 40)
        (_, greeting), (who, understood), (_, answer) = (await browser.evaluate(LINES))[:3]
        assert greeting.startswith("AgentHello.")
        assert who == "you"
        assert word_error_rate(SAID, understood.removeprefix("You")) <= 0.4  # two words of five, on a busy machine
        assert answer == f"AgentYou said: {understood.removeprefix('You')}"
        await until(browser, "document.querySelectorAll('#turns tbody tr').length === 2")
        words, agent, voice, packet, whole = await browser.evaluate(
            "[...document.querySelector('#turns tbody tr').cells].slice(1).map((cell) => Number(cell.textContent))"
        )
        assert words + agent + voice + packet == whole > 0
        figures = await browser.evaluate(FIGURES)
        assert "ICEconnectedDTLSconnectedSRTPSRTP_AEAD_AES_128_GCM" in figures
        assert "opus 48 kHz" in figures
        await tab_to(browser, "1")
        await browser.press("Enter")
        await until(browser, f"({EVENTS}).includes('dtmf')")
        await until(browser, f"({LINES}).at(-1)[1] === 'AgentYou pressed 1.'")
        await until(browser, f"({EVENTS}).filter((name) => name === 'trackStart').length >= 4")
        await tab_to(browser, "interrupt")
        await browser.press("Space")
        await until(browser, f"({EVENTS}).filter((name) => name === 'interruption').length >= 2")
        await tab_to(browser, "to-calls")
        await browser.press("Enter")
        (session_id,) = server.registry.calls
        assert await until(browser, "document.querySelector('#calls-table tbody code')?.textContent") == session_id
        await tab_to(browser, "End")
        await browser.press("Enter")
        await until(browser, "document.querySelectorAll('#calls-table tbody tr').length === 0")
        await until(browser, f"{STATE}.startsWith('ended')")
        assert not server.registry.calls
        assert server.plane.legs == 0


@pytest.mark.interop("firefox-esr")
@pytest.mark.local_speech
async def test_a_call_in_firefox(tmp_path: Path) -> None:
    """Its microphone is a tone: the greeting is heard, a key is pressed, and hanging up ends it on both sides."""
    async with serving(speaks=True) as (server, address), open_browser("firefox", tmp_path) as browser:
        await browser.open(address)
        await tab_to(browser, "call")
        await browser.evaluate(PUSH)
        await until(browser, f"{STATE} === 'in a call'")
        await until(browser, f"({LINES}).length && ({LINES})[0][1].startsWith('AgentHello.')")
        await until(browser, f"/DTLSconnected.*opus 48 kHz.*Received[1-9]/.test({FIGURES})")
        await tab_to(browser, "5")
        await browser.evaluate(PUSH)
        await until(browser, f"({LINES}).at(-1)[1] === 'AgentYou pressed 5.'")
        await tab_to(browser, "hangup")
        await browser.evaluate(PUSH)
        await until(browser, f"{STATE} === 'ended'")
        await until(browser, "fetch('/call/lists').then((told) => told.json()).then(({total}) => total === 0)")
        assert not server.registry.calls


@pytest.mark.interop("chromium")
@pytest.mark.parametrize("busy", [False, True])
async def test_a_number_is_called_through_the_server(tmp_path: Path, busy: bool) -> None:
    """The page's microphone is heard by a phone, whose end of the call ends it; a busy one is said to be."""
    async with (
        serving() as (server, address),
        open_phone(RealNetwork(), LOOPBACK) as phone,
        open_browser("chromium", tmp_path) as browser,
    ):
        await browser.open(address)
        await browser.evaluate("(document.querySelector('input[value=number]').click(), 1)")
        await browser.evaluate(f"(document.getElementById('number').value = {json.dumps(phone.uri)}, 1)")
        await browser.evaluate("(document.getElementById('call').click(), 1)")
        call = await phone.ring()
        call.ringing()
        await until(browser, f"{STATE} === 'it rings'")
        if busy:
            call.reject(486)
            await until(browser, f"{NOTICE} === 'Not reached: Busy Here'")
            await until(browser, f"{STATE} === 'ended'")
        else:
            call.answer()
            await until(browser, f"{STATE} === 'connected'")
            with trio.fail_after(20):
                await call.line.sound()
            call.hang_up()
            await until(browser, f"{STATE} === 'ended: the other side hung up'")
        await until(browser, "fetch('/call/lists').then((told) => told.json()).then(({total}) => total === 0)")
        assert not server.registry.calls


@pytest.mark.interop("chromium")
async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No microphone, one that is not allowed, no secure page; a token; a server that has gone."""
    refuse = "(navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{}')), 1)"
    press = "(document.getElementById('call').click(), 1)"
    async with open_browser("chromium", tmp_path) as browser:
        async with serving(tokens=(TOKEN,), trusted_proxies=(ip_network("127.0.0.1/32"),)) as (_, address):
            await browser.open(address)
            await browser.evaluate(press)
            assert "token" in await until(browser, NOTICE)
            await browser.open(f"{address}?token={TOKEN}")
            assert await browser.evaluate("location.search") == ""
            for name, words in {"NotFoundError": "No microphone", "NotAllowedError": "not allowed"}.items():
                await browser.evaluate(refuse.format(name))
                await browser.evaluate(press)
                await until(browser, f"{NOTICE}.includes({json.dumps(words)})")
            await browser.evaluate("(Object.defineProperty(navigator, 'mediaDevices', {value: undefined}), 1)")
            await browser.evaluate(press)
            await until(browser, f"{NOTICE}.includes('https')")
        await browser.evaluate(press)
        await until(browser, f"{NOTICE} === 'The server does not answer. Is it running?'")
        assert await browser.evaluate("document.getElementById('call').disabled") is False


@pytest.mark.interop("chromium")
@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("view", ["talk", "calls"])
async def test_axe_finds_nothing_to_object_to(tmp_path: Path, view: str, look: str) -> None:
    """In each view and each colour scheme, at rest and with an error on the screen."""
    axe = AXE.read_text() if AXE.exists() else files("axe_core_python").joinpath("axe.min.js").read_text()
    async with serving() as (_, address), open_browser("chromium", tmp_path) as browser:
        await browser.prefer(look)
        await browser.open(f"{address}#{view}")
        await browser.evaluate(f"(() => {{ {axe}; return 1 }})()")
        for shown in ("", "Something is missing."):
            state = json.dumps({"textContent": shown, "hidden": not shown})
            await browser.evaluate(f"(Object.assign(document.getElementById('notice'), {state}), 1)")
            found = await browser.evaluate(
                "axe.run().then(({violations}) => violations.map(({id, nodes}) => [id, nodes.map(({html}) => html)]))"
            )
            assert found == []
