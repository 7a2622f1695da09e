"""The agents' side of the signalling measurement: a webhook, and a WebSocket for each call that it announces.

    python -m bench.agents

Prints one line of JSON with the webhook's URL, reads the server's HTTP port, and accepts every call until its input
closes.
"""

from __future__ import annotations

import json
import sys

import trio
import trio_websocket

from bench.ports import free_port
from rustpbx.shell.network import RealNetwork
from rustpbx.testing.webhook import Webhook

HOST = "127.0.0.1"


async def accept(port: int, dialog: str) -> None:
    """Take one call and stay until it is over."""
    try:
        async with trio_websocket.open_websocket(HOST, port, f"/call/sip?id={dialog}", use_ssl=False) as socket:
            await socket.send_message(json.dumps({"command": "accept", "option": {}}))
            while True:
                await socket.get_message()
    except trio_websocket.ConnectionClosed:
        return
    except trio_websocket.HandshakeError as problem:
        print(f"{dialog}: {problem!r}", file=sys.stderr)


async def main() -> None:
    """Serve until the pipe closes."""
    webhook, at = Webhook(), free_port()
    async with trio.open_nursery() as nursery:
        await nursery.start(webhook.serve, RealNetwork(), (HOST, at))
        print(json.dumps({"webhook": f"http://{HOST}:{at}/"}), flush=True)
        port = int(await trio.to_thread.run_sync(sys.stdin.readline))

        async def take_calls() -> None:
            async for notice in webhook.calls:
                nursery.start_soon(accept, port, notice["dialogId"])

        nursery.start_soon(take_calls)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
