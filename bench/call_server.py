"""The measured side of signalling: a whole server. Its agents are within it, or behind a webhook in another process.

    python -m bench.call_server [WEBHOOK_URL]

Prints one line of JSON with its ports, and serves until its input closes.
"""

from __future__ import annotations

import json
import socket
import sys

import trio
import trio.testing

import rustpbx
from bench.ports import free_port
from rustpbx.settings import Config, HandlerConfig, UaConfig
from rustpbx.shell import garbage

MOST_CALLS = 5000


def _config(webhook: str | None) -> Config:
    handler = HandlerConfig(type="webhook", urls=(webhook,)) if webhook is not None else None
    return Config(
        http_addr=("127.0.0.1", 0),
        ua=UaConfig(addr="127.0.0.1", udp_port=free_port(socket.SOCK_DGRAM), handler=handler),
        rtp_start_port=20000,
        rtp_end_port=60000,
        max_calls=MOST_CALLS,
        media_cache_path="",
    )


async def _answer(call: rustpbx.Call) -> None:
    await call.accept()
    await call.wait_ended()


async def main() -> None:
    """Serve until the pipe closes."""
    webhook = sys.argv[1] if len(sys.argv) > 1 else None
    async with rustpbx.serve(_config(webhook)) as server, trio.open_nursery() as nursery:
        if webhook is None:
            nursery.start_soon(server.each_call, _answer)
        await trio.testing.wait_all_tasks_blocked()
        print(json.dumps({"sip": server.sip and server.sip[1], "http": server.http[1]}), flush=True)
        garbage.prepare()
        nursery.start_soon(garbage.collect_between_calls, server.registry)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
