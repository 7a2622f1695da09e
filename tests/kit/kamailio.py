"""Kamailio as a proxy on loopback: it stays in the path of each dialog (Record-Route) and routes by user name."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from rustpbx.core import Address
from tests.kit.program import running
from tests.kit.real import LOOPBACK, free_port

READY = "the proxy is ready"

CONFIG = """\
debug=2
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
listen=udp:{host}:{port}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"

request_route {{
    if (!mf_process_maxfwd_header("70")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (method == "CANCEL") {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (method == "ACK") {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "No route in the dialog");
        exit;
    }}
    t_check_trans();
    record_route();
{routes}
    sl_send_reply("404", "Nobody of that name");
}}

event_route[core:worker-one-init] {{ log(1, "{ready}\\n"); }}
"""


@asynccontextmanager
async def open_kamailio(tmp_path: Path, name: str, port: int, routes: Mapping[str, Address]) -> AsyncIterator[None]:
    """A proxy on `port` that sends calls for each user to an address; its process ends with the block.

    A request inside a dialog that does not name the proxy in its route set gets 404, or is lost if it is an ACK.
    """
    folder = tmp_path / name
    config = _set_up(folder, port, routes)
    kamailio = shutil.which("kamailio") or "kamailio"
    limits = ["-m", "16", "-M", "4"]
    command = [kamailio, "-DD", "-E", "-f", str(config), "-w", str(folder), "-Y", str(folder), *limits]
    async with running(command, ready=READY, log=folder / "log"):
        yield


def proxy_port() -> int:
    """A free port for a proxy, so that two can know of each other before they start."""
    return free_port(socket.SOCK_DGRAM)


def _set_up(folder: Path, port: int, routes: Mapping[str, Address]) -> Path:
    folder.mkdir()
    lines = [
        f'    if ($rU == "{user}") {{ $du = "sip:{host}:{port}"; t_relay(); exit; }}'
        for user, (host, port) in routes.items()
    ]
    config = folder / "kamailio.cfg"
    config.write_text(CONFIG.format(host=LOOPBACK, port=port, routes="\n".join(lines), ready=READY))
    return config
