"""The page's files: who may have them, what they are sent as, and that nothing else can be asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rustpbx
from rustpbx.control.access import Access
from rustpbx.control.page import PLACE
from rustpbx.control.server import HttpConfig
from tests.control.harness import control

PAGE = Path(rustpbx.__file__).parent / "page"
NOBODY = Access(tokens=("0123456789",))
"""Rules under which a request without the token is refused."""


async def test_anybody_may_have_the_page_and_no_more() -> None:
    """Without a token there are the files; the calls behind them are refused as ever."""
    async with control(access=NOBODY) as server:
        reply = await server.fetch("/")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert reply.body == (PAGE / "index.html").read_bytes()
        assert (await server.fetch("/iceservers")).status == 401
        assert (await server.fetch("/call/lists")).status == 401
        assert (await server.fetch("/", "POST")).status == 401


@pytest.mark.parametrize("name", sorted(entry.name for entry in PAGE.iterdir() if entry.is_file()))
async def test_each_file_is_sent_as_what_it_is(name: str) -> None:
    """With the type that a browser insists on, and a policy that lets nothing of another host in."""
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    async with control() as server:
        reply = await server.fetch(f"{PLACE}{name}")
    assert reply.status == 200
    assert reply.headers["content-type"].partition(";")[0] == kinds[Path(name).suffix]
    assert reply.headers["x-content-type-options"] == "nosniff"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.body == (PAGE / name).read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        "/page/",
        "/page/../control/server.py",
        "/page/%2e%2e/config.py",
        "/page/..%2f..%2fpyproject.toml",
        "/page//etc/passwd",
        "/page/index.html/",
        "/page/INDEX.HTML",
        "/page/main.js%00.svg",
        "/page/__init__.py",
    ],
)
async def test_there_is_no_way_out_of_the_folder(target: str) -> None:
    """A name is looked up among those that were packed; it never becomes a path."""
    async with control() as server:
        assert (await server.fetch(target)).status in {400, 404}


async def test_a_server_may_be_without_a_page() -> None:
    """`page = false`: there is nothing at `/`, and who is not vouched for does not even learn that."""
    async with control(HttpConfig(page=False), access=NOBODY) as server:
        assert (await server.fetch("/")).status == 401
        assert (await server.fetch("/", authorization="Bearer 0123456789")).status == 404


def test_the_page_asks_for_nothing_that_is_not_there() -> None:
    """Each file that another names exists; nothing comes from another host."""
    named = set()
    for entry in PAGE.iterdir():
        text = entry.read_text()
        named |= set(re.findall(r'(?:href|src)="/page/([^"]+)"', text)) | set(re.findall(r'from "\./([^"]+)"', text))
        foreign = re.findall(r"https?://[^\s\"'`]+", text.replace("http://www.w3.org/2000/svg", ""))
        assert foreign == []
    assert named == {entry.name for entry in PAGE.iterdir()} - {"index.html"}
