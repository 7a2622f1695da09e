"""An agent over the WebSocket: it calls a phone, greets, and repeats what it hears. `make run` is the server.

python examples/agent_websocket.py sip:phone@127.0.0.1:5070
"""

import json
import sys
from contextlib import suppress

import trio
import trio_websocket

SERVER = "ws://127.0.0.1:8080/call/sip"


async def talk(socket, command="accept", **parties):
    """Serve one call: `accept` one that came in, or `invite` a callee; until the server closes the socket."""

    async def send(command, **fields):
        await socket.send_message(json.dumps({"command": command, **fields}))

    await send(command, option={"asr": {}, "tts": {}, **parties})
    with suppress(trio_websocket.ConnectionClosed):
        while True:
            match json.loads(await socket.get_message()):
                case {"event": "answer"}:
                    await send("tts", text="Hello, please say something.", endOfStream=True)
                case {"event": "asrFinal", "text": text}:
                    await send("tts", text=f"You said: {text}", playId=text, endOfStream=True)
                case {"event": "reject" | "error" | "hangup"} as event:
                    print(event)


async def main(callee="sip:phone@127.0.0.1:5070", server=SERVER):
    """Place one call."""
    async with trio_websocket.open_websocket_url(server) as socket:
        await talk(socket, "invite", callee=callee)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
