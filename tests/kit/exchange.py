"""Kamailio as somebody's PBX: registrar and proxy of one domain, which knows its users by their passwords."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.kit.program import Program, running
from tests.kit.real import LOOPBACK

DOMAIN = "pbx.example.com"
READY = "the exchange is ready"

CONFIG = """\
debug=2
log_stderror=yes
children=1
tcp_children=1
auto_aliases=no
alias={domain}
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "xlog.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("registrar", "max_expires", {grant})
modparam("auth", "algorithm", "{algorithm}")

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
    remove_hf("Route");
    $var(secret) = "";
{secrets}
    if (method == "REGISTER") {{
        if ($var(secret) == "" || !pv_www_authenticate("{domain}", "$var(secret)", "0")) {{
            www_challenge("{domain}", "1");
            exit;
        }}
        save("location");
        xlog("L_ALERT", "kept $au@$td for $hdr(Expires)\\n");
        exit;
    }}
    if ($var(secret) != "") {{
        if (!pv_proxy_authenticate("{domain}", "$var(secret)", "0")) {{
            proxy_challenge("{domain}", "1");
            exit;
        }}
        consume_credentials();
    }}
    record_route();
{routes}
    if (lookup("location")) {{ t_relay(); exit; }}
    sl_send_reply("480", "Not registered");
}}

event_route[core:worker-one-init] {{ log(1, "{ready}\\n"); }}
"""


@asynccontextmanager
async def open_exchange(
    tmp_path: Path,
    port: int,
    users: Mapping[str, str],
    routes: Mapping[str, str],
    *,
    algorithm: str = "MD5",
    grant: int = 3600,
) -> AsyncIterator[Program]:
    """The PBX of `DOMAIN` on `port`; its process ends with the block.

    `users` and their passwords may register, and must prove who they are when they call; anybody may call them, and
    users of `routes` are at these URIs. Registrations last `grant` seconds at most.
    """
    folder = tmp_path / "exchange"
    folder.mkdir()
    config = folder / "kamailio.cfg"
    config.write_text(
        CONFIG.format(
            domain=DOMAIN,
            host=LOOPBACK,
            port=port,
            algorithm=algorithm,
            grant=grant,
            ready=READY,
            secrets="\n".join(
                f'    if ($fU == "{user}") {{ $var(secret) = "{word}"; }}' for user, word in users.items()
            ),
            routes="\n".join(
                f'    if ($rU == "{user}") {{ $ru = "{uri}"; t_relay(); exit; }}' for user, uri in routes.items()
            ),
        )
    )
    kamailio = shutil.which("kamailio") or "kamailio"
    limits = ["-m", "16", "-M", "4"]
    command = [kamailio, "-DD", "-E", "-f", str(config), "-w", str(folder), "-Y", str(folder), *limits]
    async with running(command, ready=READY, log=folder / "log") as program:
        yield program
