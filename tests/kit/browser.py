"""A real browser without a screen: Chromium by the DevTools protocol, Firefox by WebDriver BiDi.

    async with open_browser("chromium", tmp_path, microphone=wav) as browser:
        await browser.open("http://127.0.0.1:8080/")
        assert await browser.evaluate("document.title") == "rustpbx"

Both speak JSON over a WebSocket: a command with a number, an answer with the same.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import attrs
import trio
import trio_websocket

STARTING = 60.0
"""Seconds until a browser has said where it listens."""
ANSWERING = 60.0
"""Seconds for any answer."""
LISTENS = re.compile(rb"(?:DevTools|WebDriver BiDi) listening on (ws://\S+)")
WIDTH, HEIGHT = 1360, 900
PROGRAMS = {"chromium": "chromium", "firefox": "firefox-esr"}


class BrowserError(Exception):
    """The browser refuses, or the script in it failed."""


class Browser(Protocol):
    """A page in a browser."""

    async def open(self, url: str) -> None:
        """Load a page, and wait until it has."""
        ...

    async def evaluate(self, expression: str) -> Any:
        """The value of JavaScript in the page, awaited if it is a promise; through JSON."""
        ...

    async def press(self, key: str) -> None:
        """Press a key: `Tab`, `Enter`, `Space` or a character."""
        ...

    async def screenshot(self) -> bytes:
        """The page as PNG."""
        ...

    async def prefer(self, look: str) -> None:
        """Be a browser whose user likes pages `light` or `dark`."""
        ...


async def until(browser: Browser, expression: str, seconds: float = 20.0) -> Any:
    """Wait until an expression is truthy, and return it. Raises `BrowserError` that names it if it never is."""
    with trio.move_on_after(seconds):
        while not (found := await browser.evaluate(expression)):  # noqa: ASYNC110 - another process cannot set an event
            await trio.sleep(0.1)
        return found
    raise BrowserError(f"not within {seconds:g} s: {expression}")


@attrs.define(eq=False)
class _Wire:
    """Commands and their answers; events are left unread."""

    socket: trio_websocket.WebSocketConnection
    extra: dict[str, Any] = attrs.field(factory=dict)
    number: int = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one, wait for its answer. Raises `BrowserError` with what the browser says against it."""
        self.number += 1
        await self.socket.send_message(
            json.dumps({"id": self.number, "method": method, "params": params, **self.extra})
        )
        with trio.fail_after(ANSWERING):
            while (answer := json.loads(await self.socket.get_message())).get("id") != self.number:
                pass
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']} {answer.get('message', '')}")
        result: dict[str, Any] = answer["result"]
        return result


def _as_json(expression: str) -> str:
    return f"(async () => JSON.stringify((await ({expression})) ?? null))()"


class Chromium:
    """By the DevTools protocol."""

    KEYS: ClassVar = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Space": (" ", 32, " ")}

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    async def begin(self) -> None:
        """Make a page, and talk to it from now on."""
        target = await self._wire.ask("Target.createTarget", url="about:blank")
        session = await self._wire.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._wire.extra = {"sessionId": session["sessionId"]}
        await self._wire.ask("Page.enable")
        view = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        await self._wire.ask("Emulation.setDeviceMetricsOverride", **view)

    async def open(self, url: str) -> None:
        """See `Browser`."""
        await self.evaluate("window.before = true")
        await self._wire.ask("Page.navigate", url=url)
        await until(self, "!window.before && document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """See `Browser`."""
        told = await self._wire.ask(
            "Runtime.evaluate", expression=_as_json(expression), awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in told:
            raise BrowserError(f"{expression}: {told['exceptionDetails']}")
        return json.loads(told["result"]["value"])

    async def press(self, key: str) -> None:
        """See `Browser`."""
        name, code, text = self.KEYS.get(key, (key, ord(key.upper()) if len(key) == 1 else 0, key))
        what = {"key": name, "code": key, "windowsVirtualKeyCode": code}
        await self._wire.ask("Input.dispatchKeyEvent", type="keyDown", **what, **({"text": text} if text else {}))
        await self._wire.ask("Input.dispatchKeyEvent", type="keyUp", **what)

    async def screenshot(self) -> bytes:
        """See `Browser`."""
        return base64.b64decode((await self._wire.ask("Page.captureScreenshot", format="png"))["data"])

    async def prefer(self, look: str) -> None:
        """See `Browser`."""
        features = [{"name": "prefers-color-scheme", "value": look}]
        await self._wire.ask("Emulation.setEmulatedMedia", features=features)


class Firefox:
    """By WebDriver BiDi."""

    KEYS: ClassVar = {"Tab": "\ue004", "Enter": "\ue007", "Space": " "}

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._context = ""

    async def begin(self) -> None:
        """Take the page that is there."""
        await self._wire.ask("session.new", capabilities={})
        self._context = (await self._wire.ask("browsingContext.getTree"))["contexts"][0]["context"]
        viewport = {"width": WIDTH, "height": HEIGHT}
        await self._wire.ask("browsingContext.setViewport", context=self._context, viewport=viewport)

    async def open(self, url: str) -> None:
        """See `Browser`."""
        await self._wire.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        """See `Browser`."""
        target = {"context": self._context}
        told = await self._wire.ask(
            "script.evaluate", expression=_as_json(expression), target=target, awaitPromise=True, userActivation=True
        )
        if told["type"] == "exception":
            raise BrowserError(f"{expression}: {told['exceptionDetails']['text']}")
        return json.loads(told["result"]["value"])

    async def press(self, key: str) -> None:
        """See `Browser`."""
        value = self.KEYS.get(key, key)
        strokes = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        await self._wire.ask("input.performActions", context=self._context, actions=actions)

    async def screenshot(self) -> bytes:
        """See `Browser`."""
        return base64.b64decode(
            (await self._wire.ask("browsingContext.captureScreenshot", context=self._context))["data"]
        )

    async def prefer(self, look: str) -> None:
        """See `Browser`."""
        await self._wire.ask("emulation.setForcedColorsModeThemeOverride", contexts=[self._context], theme=look)


def _chromium_command(folder: Path, microphone: Path | None) -> list[str]:
    sound = [f"--use-file-for-fake-audio-capture={microphone}%noloop"] if microphone else []
    return [
        PROGRAMS["chromium"],
        "--headless=new",
        "--no-sandbox",  # tests run as root in containers
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-features=WebRtcHideLocalIpsWithMdns",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        *sound,
        f"--window-size={WIDTH},{HEIGHT}",
        f"--user-data-dir={folder}",
        "--remote-debugging-port=0",
        "about:blank",
    ]


FIREFOX_PREFERENCES = {
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,  # a tone instead of a microphone
    "media.autoplay.default": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.peerconnection.ice.loopback": True,
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "app.update.enabled": False,
}


def _firefox_command(folder: Path, microphone: Path | None) -> list[str]:
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in FIREFOX_PREFERENCES.items()]
    (folder / "user.js").write_text("\n".join(lines))
    return [PROGRAMS["firefox"], "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port=0"]


@asynccontextmanager
async def open_browser(kind: str, folder: Path, microphone: Path | None = None) -> AsyncIterator[Browser]:
    """A browser for the length of a block, with a profile of its own in `folder`.

    Chromium's microphone plays the WAV `microphone` once; Firefox's is a tone.
    """
    profile = folder / f"{kind}-profile"
    profile.mkdir()
    command = (_chromium_command if kind == "chromium" else _firefox_command)(profile, microphone)
    environment = {**os.environ, "HOME": str(folder), "MOZ_DISABLE_CONTENT_SANDBOX": "1"}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run, command, environment)
        try:
            with trio.fail_after(STARTING):
                url = await _where(process.stderr)
            nursery.start_soon(_drain, process.stderr)
            path = "/session" if kind == "firefox" else ""
            async with trio_websocket.open_websocket_url(url + path, max_message_size=64 * 1024 * 1024) as socket:
                browser = (Chromium if kind == "chromium" else Firefox)(_Wire(socket))
                await browser.begin()
                yield browser
        finally:
            nursery.cancel_scope.cancel()


async def _run(command: list[str], environment: dict[str, str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        task_status=task_status,
    )


async def _where(stderr: trio.abc.ReceiveStream) -> str:
    said = b""
    async for piece in stderr:
        said += piece
        if found := LISTENS.search(said):
            return found[1].decode()
    raise BrowserError(f"the browser did not start: {said[-1000:].decode(errors='replace')}")


async def _drain(stderr: trio.abc.ReceiveStream) -> None:
    async for _ in stderr:
        pass
