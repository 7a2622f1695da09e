"""The page at `/`: static files of this package, read once.

They hold nothing secret, so anybody may have them. What the page does with the server goes through the same doors,
under the same rules, as every other client.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import PurePath

from rustpbx.control.http import HttpError, Response

INDEX = "index.html"
PLACE = "/page/"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob: mediastream:; "
    "connect-src 'self' ws: wss:; "  # not every browser takes a WebSocket to this host for 'self'
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("content-security-policy", _POLICY),
    ("permissions-policy", "microphone=(self), camera=(), geolocation=()"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
)


def is_page(method: str, path: str) -> bool:
    """Whether a request is for the page, which needs no token."""
    return method == "GET" and (path == "/" or path.startswith(PLACE))


def page_file(path: str) -> Response:
    """What is at a path of the page. Raises `HttpError` (404): only what was packed has a name here."""
    name = INDEX if path == "/" else path.removeprefix(PLACE)
    body = _files().get(name)
    if body is None:
        raise HttpError(404, "no such path")
    return Response(status=200, body=body, content_type=_TYPES[PurePath(name).suffix], headers=_HEADERS)


@cache
def _files() -> dict[str, bytes]:
    found = files("rustpbx").joinpath("page").iterdir()
    return {entry.name: entry.read_bytes() for entry in found if PurePath(entry.name).suffix in _TYPES}
