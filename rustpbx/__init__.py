"""A voice-agent call server on Trio, also inside your own program: `async with rustpbx.serve() as server`.

The names below are loaded when they are first used. Importing the package changes nothing in the process: no signal
handler, no setting of the garbage collector, no environment, no logging.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rustpbx.app import Outside as Outside
    from rustpbx.app import Server as Server
    from rustpbx.app import serve as serve
    from rustpbx.embed.call import Call as Call
    from rustpbx.embed.call import CallEndedError as CallEndedError
    from rustpbx.errors import RustpbxError as RustpbxError
    from rustpbx.session import events as events
    from rustpbx.session import options as options
    from rustpbx.session.options import CallOption as CallOption
    from rustpbx.settings import Config as Config

__version__ = "0.1.0"

_HOMES = {
    "Call": "rustpbx.embed.call",
    "CallEndedError": "rustpbx.embed.call",
    "CallOption": "rustpbx.session.options",
    "Config": "rustpbx.settings",
    "Outside": "rustpbx.app",
    "RustpbxError": "rustpbx.errors",
    "Server": "rustpbx.app",
    "events": "rustpbx.session",
    "options": "rustpbx.session",
    "serve": "rustpbx.app",
}

__all__ = [  # noqa: PLE0604 - names that load lazily
    *sorted(_HOMES),
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("events", "options"):
        value: Any = import_module(f"rustpbx.session.{name}")
    else:
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
