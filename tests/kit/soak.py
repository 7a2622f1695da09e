"""Calls at random, each from one seed: random misfortune, random agents, random phones, and what must hold after each.

python -m tests.kit.soak                        10,000 calls, and a server cancelled at every step of four others
python -m tests.kit.soak --calls 500 --first 7  500 calls, seeds 7 to 506
python -m tests.kit.soak --seed 4711            one call once more, bit for bit, with its log and its SIP messages
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import logging
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import trio

from rustpbx import logs
from rustpbx.errors import MediaError
from rustpbx.media.events import Codec, Direction
from rustpbx.settings import HandlerConfig, UaConfig
from rustpbx.sip import events as sip
from rustpbx.sip.extensions import Extensions
from rustpbx.testing.agent import OPTION, Agent
from rustpbx.testing.house import AGENT, PHONE, SERVER, House, Plan, server_config
from rustpbx.testing.ladder import ladder
from rustpbx.testing.phone import Phone, PhoneCall
from rustpbx.testing.registrar import Registrar
from rustpbx.testing.run import run_virtual
from rustpbx.testing.speech import ScriptedSpeech, ScriptedSynthesizer, Trouble, dies, refuses, stalls
from rustpbx.testing.voice import spoken
from rustpbx.testing.wire import Link
from tests.kit.doomed import doomed_call
from tests.kit.fork import EDGE, Fork, serve_fork
from tests.kit.logbook import kept_log
from tests.kit.soak_account import PBX, add_account, check_account
from tests.kit.sweeps import GONE, Side, check_house, check_order, connected, new_agent
from tests.kit.sweeps import Direction as Way
from tests.kit.wire_rules import check_wire

REAL_LIMIT = 300.0
"""Seconds of real time for one call, which takes a tenth of one."""

PAUSES = (0.0, 0.0, 0.001, 0.02, 0.05, 0.2, 0.5, 1.0, 3.0)
"""Virtual seconds between two acts of somebody."""

HOOK = f"http://{AGENT}:9000/hook"
CLOSED = f"http://{AGENT}:9999/hook"

LINKS = (
    Link(),
    Link(),
    Link(delay=0.05),
    Link(delay=0.02, jitter=0.05),
    Link(loss=0.05),
    Link(loss=0.25),
    Link(reorder=0.3, reorder_by=0.2, duplication=0.1),
    Link(delay=0.4, jitter=0.4, loss=0.1, duplication=0.2, reorder=0.2, reorder_by=0.6),
)
TROUBLES = (refuses(), refuses("no", 401), stalls(), stalls(0.2), dies(0.0), dies(0.3))
LATE = 33.0
"""Virtual seconds until the last copy of an INVITE has arrived, or never will (64*T1)."""

UNCLAIMED = 51.0
"""Virtual seconds that a forged call may wait for an agent."""

OTHER = "10.0.0.6"
"""Who is called beside the phone when a call is forked."""

MANGLED = 20
"""Datagrams at most that somebody forges in one call."""


def make_plan(seed: int, rng: random.Random) -> Plan:
    """The house of a call."""
    handler = HandlerConfig(type="webhook", urls=rng.choice([(HOOK,)] * 8 + [(CLOSED, HOOK), (CLOSED,)]), timeout=8.0)
    ua = UaConfig(
        addr=SERVER,
        udp_port=5060,
        accept_timeout=rng.choice([50.0, 50.0, 9.0, 1.0]),
        ring_timeout=rng.choice([60.0, 20.0, 2.0]),
        **attrs.asdict(_extensions(rng)),
        handler=attrs.evolve(handler, timeout=0.9) if rng.random() < 0.05 else handler,
    )
    synthesizer = ScriptedSynthesizer(delay=rng.choice([0.0, 0.0, 0.1, 2.0]), trouble=_trouble(rng))
    return Plan(
        config=server_config(ua=ua),
        seed=seed,
        link=rng.choice(LINKS),
        speech=ScriptedSpeech(synthesizer=synthesizer, listening=_trouble(rng)),
        signalling_only=rng.random() < 0.85,
        phone_extensions=_extensions(rng),
    )


def _extensions(rng: random.Random) -> Extensions:
    """What one side does of PRACK and session timers, and how long its sessions last."""
    return Extensions(
        prack=rng.choice(["supported", "supported", "supported", "required", "off"]),
        session_timers=rng.choice(["on", "on", "accept", "off"]),
        session_expires=rng.choice([90, 120, 1800]),
        min_se=rng.choice([90, 90, 110]),
    )


def _trouble(rng: random.Random) -> Trouble | None:
    return rng.choice(TROUBLES) if rng.random() < 0.15 else None


# -- people ---------------------------------------------------------------------------------------------------------


@attrs.define
class Scene:
    """One random call: its house, its chance, and who took part."""

    house: House
    rng: random.Random
    staff: trio.Nursery
    agents: list[Agent] = attrs.field(factory=list)
    vanished: list[Agent] = attrs.field(factory=list)
    calls: list[PhoneCall] = attrs.field(factory=list)
    registrar: Registrar | None = None
    forged: bool = False

    async def play(self) -> None:
        """A call of either direction, and everybody's acts in it; in the end both sides hang up."""
        rng = self.rng
        self.house.webhook.status = rng.choice([200] * 12 + [500])
        self.house.webhook.delay = rng.choice([0.0] * 6 + [0.5, 20.0])
        self.house.webhook.silent = rng.random() < 0.05
        comes_in = rng.random() < 0.6
        async with trio.open_nursery() as people:
            self.forged = rng.random() < 0.25
            if self.forged:
                self.staff.start_soon(self._forges)
            if comes_in:
                people.start_soon(self._is_called)
                if rng.random() < 0.1:
                    people.start_soon(self._is_called)
                await self._phone_acts(await self._phone_dials())
            else:
                self.staff.start_soon(self._rings, self.house.phone)
                await self._calls_out()
            await self._phone_is_done()
            if any(call.ending is None for call in self.calls) or self.house.leftovers()["transactions"]:
                await trio.sleep(LATE)  # an INVITE that was lost again and again may still ring the phone
            await self._phone_is_done()

    async def _phone_dials(self) -> PhoneCall:
        codecs = self.rng.choice([(Codec.PCMU, Codec.PCMA), (Codec.PCMA,), (Codec.PCMU,)])
        uri = self.house.uri
        if self.registrar is not None and self.rng.random() < 0.5:
            await trio.sleep(2.0)  # time to register, if that is possible at all
            uri = f"sip:1001@{PBX}:5060"
        call = await self.house.phone.dial(uri, codecs=codecs, delayed_offer=self.rng.random() < 0.15)
        self.calls.append(call)
        return call

    async def _rings(self, phone: Phone) -> None:
        """A phone takes what comes, in its way."""
        while True:
            call = await phone.ring()
            self.calls.append(call)
            self.staff.start_soon(self._is_rung, call)

    async def _is_rung(self, call: PhoneCall) -> None:
        rng = self.rng
        with suppress(*GONE, MediaError):
            for _ in range(rng.randrange(3)):
                call.ringing(rng.choice([180, 183]), early_media=rng.random() < 0.3)
                await self._pause()
            if rng.random() < 0.2:
                call.reject(rng.choice([486, 404, 480, 503, 603]))
            elif rng.random() < 0.9:
                call.answer()
        await self._phone_acts(call)

    async def _phone_acts(self, call: PhoneCall) -> None:
        """A few things that a phone does, at any time."""
        for _ in range(self.rng.randrange(6)):
            await self._pause()
            if call.ending is not None:
                return
            with suppress(*GONE, MediaError), trio.move_on_after(30):
                await self.rng.choice(PHONE_ACTS)(self, call)

    async def _phone_is_done(self) -> None:
        for call in self.calls:
            with trio.move_on_after(self._patience()):
                await call.ended()
            if call.ending is None:
                call.hang_up()

    async def _is_called(self) -> None:
        """An agent takes the call that the webhook announces, if there is one."""
        agent = self._new_agent()
        with suppress(*GONE):
            await agent.is_called(within=60)
            await self._agent_acts(agent, claim=self.rng.random() < 0.85)
        await self._agent_is_done(agent)

    async def _calls_out(self) -> None:
        agent = self._new_agent()
        rng = self.rng
        callee = rng.choice([self.house.phone.uri] * 9 + ["sip:x@nobody.test", f"sip:x@{PHONE}:9", "sip:", "tel:1"])
        if rng.random() < 0.2:
            callee = await self._is_forked()
        with suppress(*GONE):
            await agent.dials(callee, option=self._option())
            await self._agent_acts(agent, claim=False)
        await self._agent_is_done(agent)

    async def _is_forked(self) -> str:
        """A proxy that rings two phones at once; what to dial for it."""
        other = await self.house.new_phone("other", OTHER)
        self.staff.start_soon(self._rings, other.phone)
        await self.staff.start(serve_fork, self.house.wire, Fork([(PHONE, 5060), (OTHER, 5060)]))
        return f"sip:group@{EDGE[0]}:{EDGE[1]}"

    def _new_agent(self) -> Agent:
        agent = new_agent(self.house.wire, self.staff, self.house.webhook, self.house.phone)
        self.agents.append(agent)
        return agent

    async def _agent_acts(self, agent: Agent, *, claim: bool) -> None:
        """A few commands, sensible or not; an agent that claims its call accepts it at some time."""
        acts = [self.rng.choice(COMMANDS) for _ in range(self.rng.randrange(10))]
        if claim:
            acts.insert(self.rng.randrange(len(acts) + 1) if self.rng.random() < 0.3 else 0, "accept")
            if self.rng.random() < 0.3:
                acts.insert(0, "ringing")
        for name in acts:
            await self._pause()
            if self.rng.random() < 0.03:
                self.vanished.append(agent)
                await agent.drop()
                return
            await agent.send_text(self._command(name))

    async def _agent_is_done(self, agent: Agent) -> None:
        """Hang up after a while, and wait for the last event; a server that does not end the call is at fault."""
        if not connected(agent):
            return
        with trio.move_on_after(self._patience()):
            await agent.ended()
        with suppress(*GONE):
            await agent.send("hangup")
        with trio.move_on_after(100) as waiting:
            await agent.ended()
        assert not waiting.cancelled_caught, f"the call of an agent does not end: {self.house.calls()}"

    def _patience(self) -> float:
        """Seconds until somebody hangs up: several refreshes of the session, sometimes.

        Audio takes real time: there it is short, once a call is answered.
        """
        patience = self.rng.choice([0.5, 20.0, 80.0, 400.0])
        return patience if self.house.plan.signalling_only else patience / 20

    async def _pause(self) -> None:
        await trio.sleep(self.rng.choice(PAUSES))

    # -- what they say ------------------------------------------------------------------------------------------

    def _option(self) -> dict[str, Any]:
        rng = self.rng
        option: dict[str, Any] = {key: value for key, value in OPTION.items() if rng.random() < 0.8}
        if rng.random() < 0.1:
            option["tts"] = {"provider": "nobody"}
        if rng.random() < 0.1:
            option["asr"] = {"provider": "scripted", "startWhenAnswer": True}
        if rng.random() < 0.05:
            option["vad"] = {"type": "unknown"}
        if rng.random() < 0.15:
            option["sip"] = {"delayedOffer": True}
        return option

    def _command(self, name: str) -> str:
        """One command as JSON, its fields at random; now and then broken."""
        if self.rng.random() < 0.03:
            return self.rng.choice(
                ['{"command"', "[]", '{"command":"dance"}', '{"command":"tts","text":5}', "null", ""]
            )
        return json.dumps({"command": name, **self._fields(name)})

    def _fields(self, name: str) -> dict[str, Any]:
        rng = self.rng
        early: dict[str, Any] = {"earlyMedia": rng.random() < 0.4}
        if rng.random() < 0.1:
            early["ringtone"] = f"http://{AGENT}:9999/r.wav"
        fields: dict[str, dict[str, Any]] = {
            "invite": {"option": {"callee": self.house.phone.uri, **self._option()}},
            "accept": {"option": self._option()},
            "ringing": early,
            "reject": {"code": rng.choice([486, 603, 480]), "reason": "no"},
            "tts": self._text(),
            "play": {"url": f"http://{AGENT}:{rng.choice([9999, 9000])}/a.wav", **self._playback()},
            "interrupt": {"graceful": rng.random() < 0.5},
            "hangup": {"reason": rng.choice([None, "busy", "done"])},
            "history": {"speaker": "user", "text": "well"},
        }
        return fields.get(name, {})

    def _playback(self) -> dict[str, Any]:
        playback = {"playId": self.rng.choice([None, "a", "b"]), "autoHangup": self.rng.random() < 0.1}
        wait = {"waitInputTimeout": self.rng.choice([1, 300])} if self.rng.random() < 0.1 else {}
        return playback | wait

    def _text(self) -> dict[str, Any]:
        rng = self.rng
        text = rng.choice(["", "hi", "hello there", "x" * 60])
        flags = {key: rng.random() < 0.3 for key in ("streaming", "endOfStream")}
        if rng.random() < 0.1:
            text = base64.b64encode(spoken("pcm", rate=16000).tobytes()).decode()
            flags["base64"] = True
        return {"text": text, **self._playback(), **flags}

    # -- what phones do -----------------------------------------------------------------------------------------

    async def says(self, call: PhoneCall) -> None:
        """Speak."""
        await call.say(spoken(self.rng.choice(["yes", "no thank you"])))

    async def presses(self, call: PhoneCall) -> None:
        """Press a key."""
        await call.press(self.rng.choice("0159*#"))

    async def offers(self, call: PhoneCall) -> None:
        """Hold, resume, move to another port, or change the codec."""
        direction = self.rng.choice([Direction.SENDONLY, Direction.SENDRECV, Direction.INACTIVE])
        await call.re_invite(direction=direction, port=self.rng.choice([None, 0]))

    async def sends_a_key_by_info(self, call: PhoneCall) -> None:
        """DTMF by SIP."""
        self.house.phone.wish(sip.SendDigit(call.leg, self.rng.choice("0159*#")))

    async def hangs_up(self, call: PhoneCall) -> None:
        """BYE, CANCEL or a refusal, as it stands."""
        call.hang_up()

    # -- somebody who means no good -----------------------------------------------------------------------------

    async def _forges(self) -> None:
        """Datagrams that look as if they came from the phone: old ones again, cut, garbled, with another method."""
        for _ in range(MANGLED):
            await trio.sleep(self.rng.choice([0.05, 0.3, 1.5]))
            sent = [carried for carried in self.house.wire.transcript if carried.data[:1].isalpha()]
            if sent:
                data = self._mangled(self.rng.choice(sent).data)
                self.house.wire.send((PHONE, 5060), (SERVER, 5060), data)

    def _mangled(self, data: bytes) -> bytes:
        rng = self.rng
        match rng.randrange(6):
            case 0:
                return data
            case 1:
                return data[: rng.randrange(len(data))]
            case 2:
                at = rng.randrange(len(data))
                return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                methods = [b"BYE", b"ACK", b"CANCEL", b"INFO", b"UPDATE", b"OPTIONS", b"NOTIFY"]
                return data.replace(b"INVITE", rng.choice(methods))
            case 4:
                return data.replace(b"tag=", b"tag=x", rng.randrange(1, 3))
            case _:
                return rng.randbytes(rng.randrange(200))


PhoneAct = Callable[[Scene, PhoneCall], Awaitable[None]]
PHONE_ACTS: tuple[PhoneAct, ...] = (
    *(Scene.says, Scene.says, Scene.presses, Scene.offers, Scene.offers),
    *(Scene.sends_a_key_by_info, Scene.hangs_up),
)
BROKEN = ('{"command"', "[]", '{"command":"dance"}', '{"command":"tts","text":5}', "null", "")
COMMANDS = (
    *("tts", "tts", "tts", "tts", "play", "interrupt", "interrupt", "pause", "resume", "history", "ringing"),
    *("accept", "invite", "reject", "hangup", "mute", "unmute", "refer", "candidate"),
)

# -- one call -------------------------------------------------------------------------------------------------------


async def _soak(seed: int) -> House:
    rng = random.Random(f"soak {seed}")
    plan = make_plan(seed, rng)
    registrar = add_account(plan, random.Random(f"account {seed}"))
    with kept_log(logging.ERROR) as errors:
        async with House(plan).open() as house, trio.open_nursery() as street:
            STAGE.house = house
            if registrar is not None:
                await street.start(registrar.serve, house.wire.host(PBX), (PBX, 5060))
            async with trio.open_nursery() as staff:
                scene = Scene(house, rng, staff, registrar=registrar)
                await scene.play()
                staff.cancel_scope.cancel()
            for agent in scene.agents:
                if connected(agent):
                    check_order(agent.events, complete=agent not in scene.vanished)
            still_up = [call for call in scene.calls if call.ending is None]
            assert not still_up, still_up
            if scene.forged:
                await trio.sleep(UNCLAIMED)
            if registrar is not None:
                await check_account(house, registrar, forged=scene.forged)
                street.cancel_scope.cancel()
            await check_house(house)
            check_wire(house, forged=scene.forged)
    assert not errors.records, "\n".join(errors.lines())
    return house


class _Stage:
    """The house of the call that is played, for those who look at what went wrong."""

    house: House | None = None


STAGE = _Stage()


class SoakError(AssertionError):
    """A random call went wrong; the message says how to see it again."""


def soak_call(seed: int) -> None:
    """One random call. Raises `SoakError` that names its seed."""
    try:
        run_virtual(_soak, seed, seed=seed, limit=7200.0, real_limit=REAL_LIMIT)
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        raise SoakError(f"seed {seed}: replay it with `make soak ARGS='--seed {seed}'`") from problem


# -- all of them ----------------------------------------------------------------------------------------------------

DOOMED: tuple[tuple[Way, Side, bool], ...] = (
    ("in", "agent", False),
    ("out", "phone", False),
    ("in", "phone", True),
    ("out", "agent", True),
)
"""Direction, who hangs up, with audio or without: the calls whose server is cancelled."""


def cancel_sweep(way: Way, hangs_up: Side, audio: bool, first: int = 1, stride: int = 1) -> int:
    """Cancel the server of one call at step `first`, `first + stride` ... up to its end; how many there are."""
    for number in itertools.count(first, stride):
        try:
            steps = run_virtual(doomed_call, number, way, hangs_up, audio, seed=number, real_limit=REAL_LIMIT)
        except Exception as problem:
            raise SoakError(f"the server of {way, hangs_up, audio} is cancelled at step {number}") from problem
        if steps < number:
            return steps
    raise AssertionError("a call without an end")


def _attempt(work: Callable[[], object]) -> str | None:
    try:
        work()
    except Exception:  # noqa: BLE001 - reported in full
        return traceback.format_exc()
    return None


def _try(job: tuple[str, int]) -> tuple[str, int, str | None]:
    kind, number = job
    work = partial(soak_call, number) if kind == "call" else partial(cancel_sweep, *DOOMED[number])
    return kind, number, _attempt(work)


def _jobs(first: int, calls: int, *, sweep: bool) -> Iterator[tuple[str, int]]:
    if sweep:
        yield from (("sweep", number) for number in range(len(DOOMED)))
    yield from (("call", seed) for seed in range(first, first + calls))


def soak(first: int, calls: int, processes: int, *, sweep: bool) -> list[tuple[str, int, str]]:
    """Play all of it; what failed, with the tracebacks."""
    began, done, failed = time.monotonic(), 0, []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for kind, number, problem in pool.imap_unordered(_try, _jobs(first, calls, sweep=sweep), chunksize=1):
            done += 1
            if problem is not None:
                failed.append((kind, number, problem))
                sys.stdout.write(f"\n{kind} {number} failed:\n{problem}\n")
            if done % 100 == 0:
                sys.stdout.write(f"\r{done} done, {len(failed)} failed, {time.monotonic() - began:.0f} s")
                sys.stdout.flush()
    sys.stdout.write(f"\r{done} done, {len(failed)} failed, {time.monotonic() - began:.0f} s\n")
    return failed


def replay(seed: int) -> int:
    """One call with everything that can be seen of it; the exit status."""
    with kept_log(logging.DEBUG) as book:
        problem = _attempt(partial(soak_call, seed))
    house = STAGE.house
    shown = [line for line in book.lines() if f" {logs.SIP_TRACE.removeprefix('rustpbx.')} " not in line]
    sys.stdout.write("\n".join(shown) + "\n\n")
    if house is not None:
        sys.stdout.write(ladder(house.wire.transcript, house.names) + "\n")
    sys.stdout.write(problem or f"seed {seed}: all is well\n")
    return int(problem is not None)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000, help="how many (10,000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (as many as there are cores)")
    parser.add_argument("--seed", type=int, help="replay this one call, and show it")
    parser.add_argument("--no-sweep", action="store_true", help="leave out the cancellations")
    asked = parser.parse_args()
    if asked.seed is not None:
        return replay(asked.seed)
    failed = soak(asked.first, asked.calls, asked.jobs, sweep=not asked.no_sweep)
    for kind, number, _ in failed:
        again = f"make soak ARGS='--seed {number}'" if kind == "call" else "make soak ARGS='--calls 0'"
        sys.stdout.write(f"{kind} {number} failed: {again}\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
