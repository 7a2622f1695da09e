"""The measured side: a server whose calls are browsers'. Speaks JSON lines with `bench.webrtc`.

Each call is a session with its agent, whose commands come from within; it says one sentence after the other, and a
listener takes what it hears.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import trio

from bench.codecs import voice
from rustpbx.app import open_server, real_outside
from rustpbx.media.events import VadParams
from rustpbx.media.plane.plane import Plane
from rustpbx.session.commands import Invite
from rustpbx.session.events import Answered
from rustpbx.session.options import CallOption, CallType
from rustpbx.session.params import SessionParams
from rustpbx.session.shell.attachment import Attachment
from rustpbx.session.shell.registry import Registry
from rustpbx.settings import Config, UaConfig

CONFIG = Config(
    http_addr=("127.0.0.1", 0),
    ua=UaConfig(addr="127.0.0.1", udp_port=0),
    rtp_start_port=30000,
    rtp_end_port=39999,
    media_cache_path="",
)


class Calls:
    """The calls, what they play, and who listens to them."""

    def __init__(self, registry: Registry, plane: Plane, nursery: trio.Nursery) -> None:
        self._registry = registry
        self._plane = plane
        self._nursery = nursery
        self._before = (0, 0)
        self._sentence = voice()

    async def answer(self, question: dict[str, Any]) -> dict[str, object]:
        """Do what `bench.webrtc` asks for: answer an offer, or tell what happened since it was asked before."""
        if "offer" in question:
            return {"answer": await self._call(question["offer"])}
        plane = self._plane
        due, sent = plane.frames_due - self._before[0], plane.frames_sent - self._before[1]
        self._before = (plane.frames_due, plane.frames_sent)
        told: dict[str, object] = {"due": due, "sent": sent, "late_p99": plane.lateness.p99}
        plane.lateness.reset()
        return told

    async def _call(self, offer: str) -> str:
        params = SessionParams(session_id=None, call_type=CallType.WEBRTC, ping_interval=0)
        attachment = self._registry.reserve(params)
        attachment.upgraded()
        attachment.command(Invite(option=CallOption(offer=offer)))
        async for event in attachment.events:
            if isinstance(event, Answered):
                for work in (self._hold, self._hear, self._play):
                    self._nursery.start_soon(work, attachment)
                return event.sdp
        raise RuntimeError("the call was not answered")

    async def _hold(self, attachment: Attachment) -> None:
        """An agent who reads what it is told."""
        async for _ in attachment.events:
            pass

    async def _hear(self, attachment: Attachment) -> None:
        """A recogniser that takes the blocks and makes nothing of them."""
        self._plane.watch_speech(attachment.session_id, VadParams())
        with self._plane.tap(attachment.session_id) as tap:
            async for _ in tap.blocks:
                pass

    async def _play(self, attachment: Attachment) -> None:
        for generation in range(sys.maxsize):
            async with self._plane.source(attachment.session_id, generation) as source:
                await source.write(self._sentence)
                source.finish()
                await source.ended()


async def main() -> None:
    """Serve questions until the pipe closes."""
    async with real_outside() as outside, open_server(CONFIG, outside) as server, trio.open_nursery() as nursery:
        calls = Calls(server.registry, server.plane, nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await calls.answer(json.loads(line))), flush=True)
            gc.freeze()  # as the server's own start does: a full collection is a hole in the audio
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
