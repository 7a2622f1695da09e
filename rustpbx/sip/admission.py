"""Who may ask us anything: judged before anything is kept of a request.

Networks that are refused or trusted, scanners, rates per source, digest for strangers, and silence for those who keep
failing. Each refusal has a name, under which it is counted and logged. What belongs to a call that is up is never
judged here.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from typing import TypeVar

import attrs

from rustpbx.machine import Machine
from rustpbx.sip.auth_server import DigestServer, Proof, Realm
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.tables import SOURCE, SourceAction, SourceState, SourceTrigger

K = TypeVar("K")
V = TypeVar("V")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

THIS_MACHINE: tuple[IpNetwork, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
RETRY_AFTER = "10"
"""Seconds after which a source that has too many calls may try again."""
OF_CALLS = frozenset({"CANCEL", "BYE", "INFO", "PRACK", "UPDATE"})
"""Methods that begin nothing: where there is no such call they get 481, without a challenge (RFC 3261 22.1, 15.1.2)."""
MOST_REFUSALS = 1000
"""Sources and reasons whose refusals are numbered for the log."""

SCANNERS = (
    "friendly-scanner",
    "sipvicious",
    "sundayddr",
    "sip-scan",
    "sipscan",
    "smap 0.",
    "sipcli",
    "pplsip",
    "vaxsipuseragent",
    "eyebeam release 3006o",
    "siparmyknife",
)
"""What the User-Agent of programs that look for open servers says, in lower case."""


@attrs.frozen(kw_only=True)
class AdmissionRules:
    """Who is let in. `realm` None: nobody is asked for a password, and all who are not denied may call.

    `unknown` is what happens to strangers where there is a realm: "challenge", "reject" (403) or "drop". Rates are per
    second and source (an IPv6 source is its /64), bursts as many seconds of them; 0: no limit. `unlimited` networks
    have none. After `failures` wrong proofs a source is quiet for `quiet` seconds. At most `sources` are remembered.
    """

    trusted: tuple[IpNetwork, ...] = ()
    denied: tuple[IpNetwork, ...] = ()
    unlimited: tuple[IpNetwork, ...] = THIS_MACHINE
    realm: Realm | None = None
    unknown: str = "challenge"
    scanners: tuple[str, ...] = SCANNERS
    requests: float = 200.0
    invites: float = 100.0
    burst: float = 5.0
    calls: int = 0
    failures: int = 10
    quiet: float = 300.0
    sources: int = 10_000


@attrs.frozen
class Admitted:
    """Serve it."""


@attrs.frozen
class Refused:
    """Answer with `status` and these header fields, and keep nothing; or with nothing at all, where it is None.

    It is the source's `number`-th refusal for this reason, as far as they are remembered.
    """

    reason: str
    status: int | None = None
    lines: Lines = ()
    number: int = 1

    @property
    def noteworthy(self) -> bool:
        """Whether the log should tell of it: the 1st, 8th, 16th, 32nd ... of its kind; no honest caller's challenge."""
        few = self.number == 1 or (self.number >= 8 and not self.number & (self.number - 1))
        return few and self.reason not in {"no_credentials", "stale_nonce"}


Verdict = Admitted | Refused
ADMITTED = Admitted()


@attrs.define
class _Bucket:
    """A token bucket: what a source may still ask, and when that was looked at."""

    left: float
    at: float

    def take(self, rate: float, burst: float, now: float) -> bool:
        most = max(1.0, rate * burst)
        self.left = min(most, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@attrs.define
class _Pace:
    """How much a source may still ask."""

    requests: _Bucket
    invites: _Bucket


class _Standing:
    """What is known against a source: how often it failed."""

    def __init__(self, rules: AdmissionRules) -> None:
        self.failures = 0
        self._most = rules.failures
        self._machine = Machine[SourceState, SourceTrigger, SourceAction](SOURCE, lambda _: rules.quiet)

    def state(self, now: float) -> SourceState:
        """Where it stands, when so much time has passed."""
        for trigger in list(self._machine.fired(now)):
            self.step(trigger, now)
        return self._machine.state

    def step(self, trigger: SourceTrigger, now: float) -> None:
        """Take one trigger."""
        for action in self._machine.step(trigger, now):
            self.failures = self.failures + 1 if action is SourceAction.COUNT else 0
        if trigger is SourceTrigger.FAILED and self._most and self.failures >= self._most:
            self._machine.step(SourceTrigger.TOO_MANY, now)


class Admission:
    """The judge of one endpoint; `key` seals the nonces of its challenges.

    Against whom something is known stays known through any flood: only who answers a challenge can fail, and no
    spoofed source can.
    """

    def __init__(self, rules: AdmissionRules, key: bytes) -> None:
        self.counters: Counter[str] = Counter()
        self._rules = rules
        self._digest = DigestServer(rules.realm, key) if rules.realm is not None else None
        self._paces: OrderedDict[str, _Pace] = OrderedDict()
        self._standings: OrderedDict[str, _Standing] = OrderedDict()
        self._refusals: OrderedDict[tuple[str, str], int] = OrderedDict()

    @property
    def sources(self) -> int:
        """How many sources are remembered for their rates."""
        return len(self._paces)

    @property
    def failing(self) -> int:
        """How many sources something is known against."""
        return len(self._standings)

    def judge(self, request: Request, host: str, calls: int, now: float) -> Verdict:
        """Whether a request that belongs to no call may begin something; its source `host` has so many calls up."""
        address = parse_address(host)
        if is_within(address, self._rules.trusted):
            return ADMITTED
        source = source_of(host)
        refused = self._unheard(address, source, now) or self._hasty(request, address, source, now)
        return self._noted(source, refused or self._proven(request, host, source, calls, now))

    def hears(self, host: str, now: float) -> Verdict:
        """Whether what a source says may have an answer though it cannot be read."""
        address = parse_address(host)
        if is_within(address, self._rules.trusted):
            return ADMITTED
        source = source_of(host)
        return self._noted(source, self._unheard(address, source, now) or ADMITTED)

    def _noted(self, source: str, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Admitted):
            return verdict
        self.counters[f"refused_{verdict.reason}"] += 1
        number = self._refusals[source, verdict.reason] = self._refusals.get((source, verdict.reason), 0) + 1
        _keep_newest(self._refusals, (source, verdict.reason), MOST_REFUSALS)
        return attrs.evolve(verdict, number=number)

    def _unheard(self, address: IpAddress | None, source: str, now: float) -> Refused | None:
        """Networks that are refused, those who failed too often, and what comes too fast.

        That is dropped: an answer would only serve who sends in another's name.
        """
        rules = self._rules
        if is_within(address, rules.denied):
            return self._unwelcome("denied")
        if self._standing(source, now) is SourceState.QUIET:
            return Refused("quiet")
        if not rules.requests or is_within(address, rules.unlimited):
            return None
        return None if self._pace(source, now).requests.take(rules.requests, rules.burst, now) else Refused("rate")

    def _hasty(self, request: Request, address: IpAddress | None, source: str, now: float) -> Refused | None:
        rules = self._rules
        agent = (request.header("User-Agent") or "").lower()
        if any(scanner in agent for scanner in rules.scanners):
            return Refused("scanner")
        if request.method != "INVITE" or not rules.invites or is_within(address, rules.unlimited):
            return None
        taken = self._pace(source, now).invites.take(rules.invites, rules.burst, now)
        return None if taken else Refused("invite_rate")

    def _proven(self, request: Request, host: str, source: str, calls: int, now: float) -> Verdict:
        if self._digest is not None and not (request.method in OF_CALLS and self._rules.unknown == "challenge"):
            claim = self._digest.check(request, host, now)
            if claim.proof is not Proof.VALID or claim.user is None:
                return self._stranger(claim.proof, host, source, now)
            if source in self._standings:
                self._standings.pop(source).step(SourceTrigger.PROVEN, now)
            if not claim.user.may_call_as(request.from_):
                return Refused("caller", 403)
        if request.method == "INVITE" and self._rules.calls and calls >= self._rules.calls:
            return Refused("calls_of_source", 503, (("Retry-After", RETRY_AFTER),))
        return ADMITTED

    def _stranger(self, proof: Proof, host: str, source: str, now: float) -> Refused:
        if proof is Proof.WRONG:
            self._failed(source, now)
        if self._rules.unknown != "challenge" or self._digest is None:
            return self._unwelcome("wrong_credentials" if proof is Proof.WRONG else "unknown")
        reason = {Proof.MISSING: "no_credentials", Proof.STALE: "stale_nonce"}.get(proof, "wrong_credentials")
        return Refused(reason, 401, self._digest.challenge(host, now, stale=proof is Proof.STALE))

    def _unwelcome(self, reason: str) -> Refused:
        return Refused(reason, 403 if self._rules.unknown == "reject" else None)

    # -- what is remembered -------------------------------------------------------------------------------------------

    def _standing(self, source: str, now: float) -> SourceState:
        standing = self._standings.get(source)
        if standing is None:
            return SourceState.NORMAL
        state = standing.state(now)
        if state is SourceState.NORMAL:
            del self._standings[source]
        return state

    def _failed(self, source: str, now: float) -> None:
        standing = self._standings.setdefault(source, _Standing(self._rules))
        standing.step(SourceTrigger.FAILED, now)
        gone = _keep_newest(self._standings, source, self._rules.sources)
        if gone is not None:
            gone.step(SourceTrigger.CROWDED_OUT, now)

    def _pace(self, source: str, now: float) -> _Pace:
        rules = self._rules
        pace = self._paces.get(source)
        if pace is None:
            full = (_Bucket(max(1.0, rate * rules.burst), now) for rate in (rules.requests, rules.invites))
            pace = self._paces[source] = _Pace(*full)
        _keep_newest(self._paces, source, rules.sources)
        return pace


def _keep_newest(known: OrderedDict[K, V], key: K, most: int) -> V | None:
    """Note that `key` was seen; what was not for the longest time makes room, and is returned."""
    known.move_to_end(key)
    return known.popitem(last=False)[1] if len(known) > most else None


def parse_address(host: str) -> IpAddress | None:
    """An IP literal; None for what is none."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_within(address: IpAddress | None, networks: tuple[IpNetwork, ...]) -> bool:
    """Whether an address is in one of these."""
    return address is not None and any(address in network for network in networks)


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, the /64 that one holder of IPv6 has at least."""
    address = parse_address(host) if ":" in host else None
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
