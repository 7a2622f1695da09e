"""What each module may import, read from the source: cores stay pure, layers look downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rustpbx

PACKAGE = Path(rustpbx.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

IMPURE = {
    *("trio", "trio_websocket", "asyncio", "anyio", "httpx", "httpcore"),
    *("socket", "ssl", "select", "selectors", "time", "signal", "threading", "queue", "multiprocessing"),
    *(
        "subprocess",
        "os",
        "sys",
        "io",
        "pathlib",
        "shutil",
        "tempfile",
        "secrets",
        "uuid",
        "concurrent",
        "urllib.request",
    ),
}
"""Modules that reach for the world: a core has none of them. `random` and `datetime` are judged by their use."""

SHELLS = (
    *("shell/", "sip/shell/", "session/shell/", "records/", "control/", "speech/", "embed/", "testing/", "demo/"),
    *("media/fetch.py", "media/ice/shell/", "media/webrtc/shell/", "media/recording/shell/"),
    *("media/plane/clock.py", "media/plane/port.py"),
    *("media/plane/ring_ports.py", "media/plane/uring.py"),
    *("app.py", "__main__.py", "cli.py", "dial_check.py", "journal.py", "logs.py", "outbound.py", "worker.py"),
)
"""Where the world is reached."""

PURE_AMONG_SHELLS = ("records/record.py", "control/access.py", "control/wire.py", "control/routes.py")
READS_FILES = {
    "config.py": {"pathlib"},
    "media/codec/libopus.py": {"pathlib"},
    "media/decode.py": {"io"},
    "media/denoise/rnnoise.py": {"pathlib"},
    "media/vad/silero.py": {"pathlib"},
    "media/vad/ten.py": {"pathlib"},
}
HANDOVERS = (
    *("media/plane/deliberation.py", "media/plane/denoising.py", "media/plane/foresight.py"),
    *("media/plane/leg.py", "media/plane/plane.py"),
    *("media/plane/source.py", "media/plane/tap.py"),
)
"""Where the plane hands facts and audio to tasks: with Trio's channels, events and nurseries, no clock or sockets."""

HANDOVER_NAMES = {
    *("MemorySendChannel", "MemoryReceiveChannel", "open_memory_channel", "Event"),
    *("open_nursery", "Nursery", "CancelScope", "TaskStatus", "TASK_STATUS_IGNORED"),
    *("WouldBlock", "BrokenResourceError", "ClosedResourceError", "BusyResourceError", "EndOfChannel"),
    *("lowlevel", "abc"),
}

LAYERS = {
    "errors.py": (),
    "core.py": (),
    "journal.py": (),
    "masking.py": (),
    "machine.py": ("core", "errors", "journal"),
    "values.py": ("core", "errors"),
    "settings.py": ("core", "values"),
    "config.py": ("errors", "settings", "values"),
    "accounts.py": ("errors", "settings", "sip"),
    "dialplan.py": ("journal", "settings", "sip"),
    "signalling.py": ("settings", "shell", "sip"),
    "metrics.py": ("media", "session", "sip", "speech"),
    "shell/": ("core", "errors", "journal", "shell", "worker"),
    "worker.py": ("errors",),
    "outbound.py": ("core", "errors", "shell"),
    "sip/": ("core", "errors", "journal", "machine", "masking", "shell", "sip"),
    "media/": ("core", "errors", "journal", "machine", "shell", "media", "outbound"),
    "speech/": ("core", "errors", "journal", "machine", "shell", "media", "speech", "outbound"),
    "session/": (
        *("core", "dialplan", "errors", "journal", "machine", "masking", "shell"),
        *("sip", "media", "speech", "session"),
    ),
    "embed/": ("errors", "journal", "sip", "session", "embed"),
    "records/": ("errors", "journal", "shell", "media", "session", "control", "records", "values"),
    "control/": (
        *("core", "errors", "journal", "masking", "shell", "sip", "session", "control", "config"),
        *("values", "outbound"),
    ),
}
"""Who may import whom. Not listed: the top (app, cli, demo, testing), which may import everything."""


def tree(module: str) -> ast.Module:
    """The parsed source."""
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Full names of all imported modules, those inside functions included."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def attributes(module: str, of: str) -> set[str]:
    """The names that a module uses of an imported one (`random.Random` -> `Random`)."""
    return {
        node.attr
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of
    }


def is_core(module: str) -> bool:
    """True for modules that must be pure."""
    return module in PURE_AMONG_SHELLS or not module.startswith(SHELLS)


@pytest.mark.parametrize("module", [module for module in MODULES if is_core(module)])
def test_cores_are_pure(module: str) -> None:
    """No clock, socket, thread, file or randomness of its own in a core: they come in as arguments."""
    names = imports(module)
    allowed = READS_FILES.get(module, set()) | ({"trio"} if module in HANDOVERS else set())
    assert {name for name in IMPURE - allowed if name in names or any(n.startswith(f"{name}.") for n in names)} == set()
    assert attributes(module, "random") <= {"Random"}
    assert not attributes(module, "datetime") & {"now", "today", "utcnow"}
    if module in HANDOVERS:
        assert attributes(module, "trio") <= HANDOVER_NAMES


@pytest.mark.parametrize("module", MODULES)
def test_layers_look_downwards(module: str) -> None:
    """A layer imports itself and what is below it; SIP and media never meet."""
    found = [layer for layer in LAYERS if module.startswith(layer)]
    if not found:
        assert module.startswith(("app.py", "cli.py", "dial_check.py", "logs.py", "demo/", "testing/", "__"))
        return
    ours = {name.split(".")[1] for name in imports(module) if name.startswith("rustpbx.")} - {"__version__"}
    assert ours <= set(LAYERS[found[0]])


def test_nobody_imports_the_top() -> None:
    """Only the command line starts the application; nothing of the server needs the demo or the tests' tools."""
    below = [module for module in MODULES if module.startswith(tuple(LAYERS))]
    tops = {"rustpbx.app", "rustpbx.cli", "rustpbx.demo", "rustpbx.testing", "rustpbx.__main__", "rustpbx.logs"}
    assert {module: imports(module) & tops for module in below if imports(module) & tops} == {}


def test_private_names_stay_private() -> None:
    """No module imports an underscore from another."""
    private = {
        (module, name)
        for module in MODULES
        for name in imports(module)
        if name.startswith("rustpbx.") and name.rpartition(".")[2].startswith("_") and not name.endswith("__")
    }
    assert private == set()
