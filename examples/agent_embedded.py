"""The same agent with the server inside: whoever calls is greeted, and hears repeated what he says.

python examples/agent_embedded.py 127.0.0.1 25060     # then call sip:agent@127.0.0.1:25060
"""

import sys

import trio

import rustpbx


async def talk(call: rustpbx.Call) -> None:
    """Serve one call: it ends when this returns, and the loop ends when the caller hangs up."""
    await call.accept(asr=rustpbx.TranscriptionOption(), tts=rustpbx.SynthesisOption())
    await call.tts("Hello, please say something.", end_of_stream=True)
    async for event in call:
        if isinstance(event, rustpbx.events.AsrFinal):
            await call.tts(f"You said: {event.text}", play_id=event.text, end_of_stream=True)


async def answer_calls(server: rustpbx.Server) -> None:
    """Talk with everybody who calls, each in a task of its own."""
    await server.each_call(talk)


async def main(address: str = "127.0.0.1", port: str = "25060") -> None:
    """Run the server and the agent in one program."""
    async with rustpbx.serve(addr=address, udp_port=int(port), http=False) as server:
        print("SIP on", *server.sip or (), flush=True)
        await answer_calls(server)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
