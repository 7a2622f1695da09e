"""The demo: a server, a phone and an agent, in processes of their own but for the agent; two calls; a verdict."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio_websocket

from rustpbx.demo import provider, score
from rustpbx.demo.agent import LISTENS, Agent, Conversation, Option
from rustpbx.demo.handset import Handset, PhoneReport, running_phone
from rustpbx.demo.server import HOST, Ports, ServerProcess, choose_ports, running_server, write_config
from rustpbx.demo.timeline import Timeline
from rustpbx.demo.trouble import DemoError, NotInstalledError
from rustpbx.demo.webhook import WebhookReceiver

PACKAGES = ("onnxruntime", "moonshine_cpp", "hibari")
CALL_LIMIT = 40.0  # seconds
WEBHOOK_LIMIT = 10.0

GREETINGS = (
    "Hello, this is the front desk of the Garden Hotel, how may I help you?",
    "Good morning, this is your wake up call, would you like some breakfast?",
)
SENTENCES = (
    "I would like to book a quiet room for two people.",
    "Yes please, two cups of coffee and fresh bread.",
)

_STATUS = """\
exit status:
  0  both calls were held, and at least 80 % of the words came through each way
  1  a call failed, or the words did not come through
  2  the command line is wrong
  3  the embedded speech is not installed
  4  a port that was asked for is taken
  5  the server did not start, or died
  6  the phone's process died
  7  the speech service is unknown, or its credentials are not in the environment
"""


@attrs.frozen
class Held:
    """A call that was held, not judged yet: the sentence, and what both ends tell of it."""

    call: str
    sentence: str
    phone: PhoneReport
    agent: Conversation


@attrs.frozen
class Stage:
    """Everything that is up while the calls are made."""

    server: ServerProcess
    phone: Handset
    webhook: WebhookReceiver
    ports: Ports
    folder: Path
    timeline: Timeline
    option: Option

    async def incoming(self) -> Held:
        """The phone calls; the webhook tells the agent, which accepts."""
        call, sentence = "call-1", SENTENCES[0]
        self.timeline.heading("Call 1: the phone calls, the webhook finds the agent")
        agent = Agent(self.server.http, self.timeline, call, GREETINGS[0], auto_hangup=True, option=self.option)

        async def talk() -> None:
            with trio.move_on_after(WEBHOOK_LIMIT) as limit:
                post = await self.webhook.posts.receive()
            if limit.cancelled_caught:
                raise DemoError(f"{call}: the webhook was not called within {WEBHOOK_LIMIT:.0f} s")
            about = {name: post[name] for name in ("event", "caller", "callee", "dialogId") if name in post}
            self.timeline.add(call, "webhook", " ".join(f"{k}={v}" for k, v in about.items()), detail=post)
            await agent.accept(post["dialogId"])

        await self.phone.order("dial", call, uri=f"sip:agent@{HOST}:{self.ports.sip}", sentence=sentence)
        return await self._hold(call, sentence, agent.conversation, talk)

    async def outgoing(self) -> Held:
        """The agent calls; the phone rings and answers."""
        call, sentence = "call-2", SENTENCES[1]
        self.timeline.heading("Call 2: the agent calls the phone")
        agent = Agent(self.server.http, self.timeline, call, GREETINGS[1], auto_hangup=False, option=self.option)
        caller = f"sip:agent@{HOST}:{self.ports.sip}"
        await self.phone.order("expect", call, sentence=sentence)
        return await self._hold(
            call, sentence, agent.conversation, lambda: agent.invite("demo-call-2", caller, self.phone.uri)
        )

    async def _hold(
        self, call: str, sentence: str, conversation: Conversation, talk: Callable[[], Awaitable[object]]
    ) -> Held:
        """Run both ends of a call to its end. Raises `DemoError`."""
        reports: list[PhoneReport] = []

        async def listen() -> None:
            reports.append(await self.phone.report(call))

        async def agent() -> None:
            try:
                await talk()
            except (trio_websocket.HandshakeError, OSError) as error:
                raise DemoError(f"{call}: the agent could not connect to the server: {error!r}") from error

        with trio.move_on_after(CALL_LIMIT) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                nursery.start_soon(agent)
        if limit.cancelled_caught:
            saw = "; ".join(conversation.errors) or f"it heard {conversation.transcript!r}"
            raise DemoError(f"{call} was not over after {CALL_LIMIT:.0f} s (the agent: {saw})")
        return Held(call, sentence, reports[0], conversation)


@asynccontextmanager
async def _stage(folder: Path, ports: Ports, timeline: Timeline, option: Option) -> AsyncIterator[Stage]:
    webhook = WebhookReceiver()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(webhook.run)
        config = write_config(folder, ports, url)
        async with running_server(config, ports, folder / "server.log") as server:
            timeline.heading(f"server up: http://{server.http}, SIP on udp {HOST}:{ports.sip}, webhook {url}")
            async with running_phone(folder, timeline) as phone:
                timeline.heading(f"phone up: {phone.uri}")
                if not await server.warm():
                    timeline.heading("the server's speech models are still being loaded: the first call waits for them")
                yield Stage(server, phone, webhook, ports, folder, timeline, option)
        nursery.cancel_scope.cancel()


async def perform(folder: Path, ports: Ports, option: Option = LISTENS) -> bool:
    """Both calls and the verdict; the folder gets the recordings and `demo.json`. Raises `DemoError` in groups."""
    began = time.monotonic()
    timeline = Timeline(lambda line: print(line, flush=True))
    async with _stage(folder, ports, timeline, option) as stage:
        calls = [await stage.incoming(), await stage.outgoing()]
    outcomes = [await score.judge(held.call, held.sentence, held.phone, held.agent, folder) for held in calls]
    for outcome in outcomes:
        score.show(outcome, timeline)
    seconds = time.monotonic() - began
    score.write_json(folder / "demo.json", outcomes, timeline, seconds)
    timeline.heading(f"{seconds:.0f} s; in {folder}/: demo.json, server.log, config.toml, and of each call")
    print("  call-N-phone-heard.wav  what the phone heard (sent by the server)")
    print("  call-N-phone-said.wav   what the phone sent (which is what the server heard)")
    return all(outcome.passed for outcome in outcomes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    asked = _parser().parse_args(argv)
    try:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise NotInstalledError(missing)
        if asked.provider is not None:
            trio.run(provider.check, asked.provider)
        ports = choose_ports(asked.http_port, asked.sip_port)
        asked.folder.mkdir(parents=True, exist_ok=True)
        for stale in ("call-*.wav", "cache/*.pcm", "demo.json", "server.log"):
            _remove(asked.folder.glob(stale))
        passed = trio.run(perform, asked.folder, ports, provider.option(asked.provider))
    except KeyboardInterrupt:
        return 130
    except (DemoError, BaseExceptionGroup) as error:
        return _explain(error)
    return 0 if passed else 1


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _explain(error: BaseException) -> int:
    """Print what stopped the demo and return the exit status; what is a bug of the demo is raised."""
    found = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in found):
        return 130
    known = [leaf for leaf in found if isinstance(leaf, DemoError)]
    if len(known) < len(found):
        raise error
    print(f"\ndemo: {max(known, key=lambda leaf: leaf.status)}", file=sys.stderr)
    return max(leaf.status for leaf in known)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rustpbx demo",
        description=(
            "Start a server, a phone and a small agent on this machine and hold two real calls over SIP and RTP:\n"
            "the phone calls the agent, then the agent calls the phone. Needs no account and no network,\n"
            "unless --provider has the server hear and speak with a service in the cloud."
        ),
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path("demo-out"), help="where the results go (demo-out)")
    parser.add_argument(
        "--provider",
        metavar="NAME",
        help="aliyun, deepgram, tencent, tencent_basic, voiceapi (default: embedded speech)",
    )
    parser.add_argument("--http-port", type=int, default=0, metavar="PORT", help="control port (default: a free one)")
    parser.add_argument("--sip-port", type=int, default=0, metavar="PORT", help="SIP port (default: a free one)")
    return parser
