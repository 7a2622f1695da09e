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
    from rustpbx.embed.door import Calls as Calls
    from rustpbx.errors import RustpbxError as RustpbxError
    from rustpbx.session import events as events
    from rustpbx.session.options import AmdOption as AmdOption
    from rustpbx.session.options import CallOption as CallOption
    from rustpbx.session.options import DtmfOption as DtmfOption
    from rustpbx.session.options import EouOption as EouOption
    from rustpbx.session.options import MediaPassOption as MediaPassOption
    from rustpbx.session.options import RecorderOption as RecorderOption
    from rustpbx.session.options import ReferOption as ReferOption
    from rustpbx.session.options import SipOption as SipOption
    from rustpbx.session.options import SynthesisOption as SynthesisOption
    from rustpbx.session.options import TranscriptionOption as TranscriptionOption
    from rustpbx.session.options import VadOption as VadOption
    from rustpbx.settings import Config as Config

__version__ = "0.1.0"

_HOMES = {
    "app": ("Outside", "Server", "serve"),
    "embed.call": ("Call", "CallEndedError"),
    "embed.door": ("Calls",),
    "errors": ("RustpbxError",),
    "session.events": ("events",),
    "session.options": (
        *("AmdOption", "CallOption", "DtmfOption", "EouOption", "MediaPassOption", "RecorderOption", "ReferOption"),
        *("SipOption", "SynthesisOption", "TranscriptionOption", "VadOption"),
    ),
    "settings": ("Config",),
}
"""Where the public names live; `events` is a module itself."""

_HOME_OF = {name: f"rustpbx.{home}" for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - strings, but the linter cannot know


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_HOME_OF[name])
    value = globals()[name] = module if module.__name__.endswith(f".{name}") else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
