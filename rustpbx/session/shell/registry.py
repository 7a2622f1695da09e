"""All calls of the server: who is on, who may claim what, and the nursery they live in."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import trio

from rustpbx import __version__
from rustpbx.dialplan import DialPlan
from rustpbx.errors import OverloadedError
from rustpbx.journal import Journal
from rustpbx.media.sdp.formats import CodecRules
from rustpbx.session import effects
from rustpbx.session.agreement import G711
from rustpbx.session.call import CallConfig, CallCore
from rustpbx.session.commands import Command
from rustpbx.session.options import CallType
from rustpbx.session.params import (
    AccountHealth,
    Asking,
    CallSummary,
    Health,
    NoSuchSessionError,
    SessionExistsError,
    SessionParams,
)
from rustpbx.session.peering import PEER_CODECS
from rustpbx.session.protection import NO_SRTP, SrtpRules
from rustpbx.session.referring import REFER_LEG
from rustpbx.session.shell.attachment import Attachment
from rustpbx.session.shell.call_task import CallTask
from rustpbx.session.shell.chronicle import MOST_READERS, Reader
from rustpbx.session.shell.services import Services
from rustpbx.sip.events import Fact, IncomingCall, Refuse
from rustpbx.sip.shell.accounts import Standing
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.trace import Trace
from rustpbx.sip.uri import Uri
from rustpbx.speech.registry import has_default_voice

log = Journal(__name__)


class Registry:
    """Owns every call. `run` is the calls' nursery; everything else is synchronous.

    `rng` makes session ids and SDP session ids; `address` is our own SIP address. `dial_plan` is asked for every call
    that an agent places, and told of its end.
    """

    def __init__(
        self,
        services: Services,
        *,
        rng: random.Random,
        address: str,
        accept_timeout: float = 60.0,
        ring_timeout: float = 120.0,
        max_calls: int = 500,
        dial_plan: DialPlan | None = None,
        srtp: SrtpRules = NO_SRTP,
        codecs: CodecRules = G711,
        peer_codecs: CodecRules = PEER_CODECS,
        sip_port: int = 0,
        dtmf_inband: bool = False,
        resume_grace: float = 0.0,
    ) -> None:
        self._services = services
        self._rng = rng
        self._address = address
        self._accept_timeout = accept_timeout
        self._ring_timeout = ring_timeout
        self._max_calls = max_calls
        self._srtp = srtp
        self._codecs = codecs
        self._peer_codecs = peer_codecs
        self._sip_port = sip_port
        self._dtmf_inband = dtmf_inband
        self._resume_grace = resume_grace
        self.dial_plan = dial_plan or DialPlan()
        self._calls: dict[str, CallTask] = {}
        self._nursery: trio.Nursery | None = None
        self._draining = False
        self._empty = trio.Event()
        self._empty.set()
        self._started_at = services.clock.wall(services.clock.now())
        self._total = 0
        self._failed = 0
        self._turned_away: Counter[str] = Counter()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the calls, and bring them what SIP reports, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            if self._services.stack is None:
                await trio.sleep_forever()
            else:
                await self._dispatch(self._services.stack)

    async def shutdown(self, patience: float) -> None:
        """Take no more calls, end the running ones, and wait at most `patience` seconds for their last events."""
        self._draining = True
        for call in list(self._calls.values()):
            call.deliver(effects.Killed("server shutdown"))
        with trio.move_on_after(patience):
            await self._empty.wait()

    @property
    def up(self) -> int:
        """How many calls are running."""
        return len(self._calls)

    @property
    def ended(self) -> int:
        """How many have ended since the start."""
        return self._total - len(self._calls)

    @property
    def calls(self) -> Mapping[str, CallTask]:
        """The running calls by session id, oldest first: to look at."""
        return MappingProxyType(self._calls)

    # -- for the control side ---------------------------------------------------------------------------------------

    def reserve(self, params: SessionParams) -> Attachment:
        """Attach an agent: to the pending incoming call of that id, else to a new session.

        Raises `SessionExistsError` if the id is taken, `OverloadedError` if the server takes no more.
        """
        session_id = params.session_id or f"s.{uuid.UUID(int=self._rng.getrandbits(128), version=4)}"
        call = self._calls.get(session_id)
        if call is None and self._owner(session_id) is not None:
            raise SessionExistsError(f"session {session_id} is a leg of another")
        if call is None:
            self._check_room()
            call = self._start(session_id, params)
        elif call.resumable(params):
            return call.resume(params.after)
        elif params.call_type is not CallType.SIP or not call.claimable:
            raise SessionExistsError(f"session {session_id} exists")
        else:
            call.params = params
            call.core.serve_as(params.server_side_track)
        return call.attach()

    def summaries(self) -> list[CallSummary]:
        """The running sessions, oldest first."""
        now = self._services.clock.wall(self._services.clock.now())
        return [_summary(call, now) for call in self._calls.values()]

    def kill(self, session_id: str) -> bool:
        """End one session as if its agent had gone; whether it was there."""
        call = self._calls.get(session_id)
        if call is not None:
            call.deliver(effects.Killed("killed"))
        return call is not None

    def command(self, session_id: str, command: Command, asking: Asking) -> None:
        """Hand a session a command from outside its socket. Raises `NoSuchSessionError`."""
        self._touched(session_id, asking).deliver(command)

    def read(self, session_id: str, asking: Asking, after: int = 0) -> Reader:
        """Read a session's events along. Raises `NoSuchSessionError`, `OverloadedError`."""
        chronicle = self._touched(session_id, asking).chronicle
        if chronicle.full:
            raise OverloadedError(f"session {session_id} has {MOST_READERS} readers already")
        return chronicle.read(after)

    def _touched(self, session_id: str, asking: Asking) -> CallTask:
        """A session that is the asking client's: opened with the same token, or anybody's for an admin."""
        call = self._calls.get(session_id)
        if call is None or not (asking.admin or asking.token == call.params.token):
            raise NoSuchSessionError(f"no session {session_id}")
        return call

    def trace(self, session_id: str) -> Trace | None:
        """The SIP messages of a call, running or over for not too long; None for an id that is not known."""
        stack = self._services.stack
        found = None if stack is None else stack.traced(session_id)
        if found is None and session_id in self._calls:  # a session that has placed no call
            return Trace(session_id, None, ())
        return found

    def health(self) -> Health:
        """The numbers of `/health`."""
        stack = self._services.stack
        counters = stack.counters if stack is not None else Counter[str]()
        return Health(
            status="draining" if self._draining else "running",
            started_at=self._started_at,
            version=__version__,
            total=self._total,
            failed=self._failed,
            runnings=len(self._calls),
            transactions_running=counters["transactions_running"],
            transactions_finished=counters["transactions_finished"],
            transactions_waiting_ack=counters["transactions_waiting_ack"],
            pending=sum(call.core.pending for call in self._calls.values()),
            dialogs=counters["dialogs"],
            accounts=() if stack is None else tuple(map(self._account_health, stack.accounts.standings)),
            refused=_refused(counters + self._turned_away),
        )

    def _account_health(self, standing: Standing) -> AccountHealth:
        return AccountHealth(
            name=standing.account.name,
            registrar=str(standing.account.registrar),
            state=standing.state,
            since=self._services.clock.wall(standing.since),
            expires=standing.expires,
            status=standing.status,
            reason=standing.reason,
        )

    # -- calls ------------------------------------------------------------------------------------------------------

    def _check_room(self) -> None:
        if self._draining:
            self._turned_away["refused_draining"] += 1
            raise OverloadedError("the server is shutting down")
        if len(self._calls) >= self._max_calls:
            self._turned_away["refused_max_calls"] += 1
            raise OverloadedError(f"{self._max_calls} calls are up, and no more are allowed")

    def _start(self, session_id: str, params: SessionParams) -> CallTask:
        assert self._nursery is not None  # noqa: S101 - the server starts `run` before anything can call
        clock = self._services.clock
        config = CallConfig(
            session_id=session_id,
            server_side_track=params.server_side_track,
            call_type=params.call_type,
            address=self._address,
            accept_timeout=self._accept_timeout,
            ring_timeout=self._ring_timeout,
            default_voice=has_default_voice(),
            admit=partial(self._admit, session_id),
            admit_transfer=partial(self.dial_plan.redirected, session_id),
            admit_leg=partial(self._admit_leg, session_id),
            release_leg=self.dial_plan.ended,
            srtp=self._srtp,
            codecs=self._codecs,
            peer_codecs=self._peer_codecs,
            sip_port=self._sip_port,
            dtmf_inband=self._dtmf_inband,
            resume_grace=self._resume_grace,
            recorder=None if self._services.recordings is None else self._services.recordings.unasked,
        )
        core = CallCore(config, clock.wall, self._rng.getrandbits(31), clock.now())
        call = CallTask(core, params, self._services)
        self._calls[session_id] = call
        self._total += 1
        self._empty = trio.Event()
        self._nursery.start_soon(self._hold, call)
        return call

    def _admit(self, session_id: str, callee: Uri) -> str:
        """Ask the dial policy for a call: "" if it may be placed, else why not."""
        return self._admit_leg(session_id, session_id, callee)

    def _admit_leg(self, session_id: str, leg: str, callee: Uri) -> str:
        """The same for a further leg of a call."""
        token = self._calls[session_id].params.token
        verdict = self.dial_plan.admit(leg, callee, token, self._services.clock.now())
        return "" if verdict.allowed else verdict.reason

    async def _hold(self, call: CallTask) -> None:
        try:
            await call.run()
        finally:
            self.dial_plan.ended(call.id)
            del self._calls[call.id]
            self._failed += call.broken or call.core.call_failed
            if not self._calls:
                self._empty.set()

    async def _dispatch(self, stack: Stack) -> None:
        async for fact in stack.facts:
            if isinstance(fact, IncomingCall):
                self._incoming(fact, stack)
            else:
                self._deliver(fact)

    def _deliver(self, fact: Fact) -> None:
        call = self._owner(fact.leg)
        if call is not None:
            call.deliver(fact)

    def _owner(self, leg: str) -> CallTask | None:
        """The call that a leg is of, its own or one of its transfers."""
        return self._calls.get(leg) or self._calls.get(leg.rpartition(REFER_LEG)[0])

    def _incoming(self, fact: IncomingCall, stack: Stack) -> None:
        try:
            self._check_room()
        except OverloadedError as problem:
            log.warning("incoming call from %s refused: %s", fact.source[0], problem)
            stack.wish(Refuse(fact.leg, 503, str(problem), (("Retry-After", "5"),)))
            return
        params = SessionParams(session_id=fact.leg, call_type=CallType.SIP)
        self._start(fact.leg, params).deliver(fact)


def _refused(counters: Counter[str]) -> dict[str, int]:
    """What was not served, by the reasons' names."""
    named = {name.removeprefix("refused_"): count for name, count in counters.items() if name.startswith("refused_")}
    others = {name: counters[name] for name in ("overloaded", "looped") if counters[name]}
    return dict(sorted((named | others).items()))


def _summary(call: CallTask, now: int) -> CallSummary:
    report = call.core.report
    return CallSummary(
        session_id=call.id,
        call_type=call.params.call_type,
        started_at=report.started_at,
        ringing_at=report.rang_at,
        answered_at=report.answered_at,
        duration=None if report.answered_at is None else max(0, now - report.answered_at) // 1000,
        option=call.core.talk.option,
    )
