"""Who may ask us anything: judged before anything is kept of a request.

Networks that are refused or trusted, scanners, rates per source, digest for strangers, and silence for those who keep
failing. Each refusal has a name, under which it is counted and logged. What belongs to a call that is up is never
judged here.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict

import attrs

from rustpbx.machine import Machine
from rustpbx.sip.auth_server import DigestServer, Proof, Realm
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.tables import SOURCE, SourceAction, SourceState, SourceTrigger

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

SCANNERS = (
    "friendly-scanner",
    "sipvicious",
    "sundayddr",
    "sip-scan",
    "sipscan",
    "smap",
    "sipcli",
    "pplsip",
    "vaxsipuseragent",
    "eyebeam release 3006o",
    "iwar",
    "siparmyknife",
)
"""What the User-Agent of programs that look for open servers says, in lower case."""


@attrs.frozen(kw_only=True)
class AdmissionRules:
    """Who is let in. `realm` None: nobody is asked for a password, and all who are not denied may call.

    `unknown` is what happens to strangers where there is a realm: "challenge", "reject" (403) or "drop". Rates are per
    second and source (an IPv6 source is its /64; this machine has none), bursts as many seconds of them; 0: no limit.
    After `failures` wrong proofs a source is quiet for `quiet` seconds. At most `sources` are remembered.
    """

    trusted: tuple[IpNetwork, ...] = ()
    denied: tuple[IpNetwork, ...] = ()
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
    """Answer with `status` and these header fields, and keep nothing; or with nothing at all, where it is None."""

    reason: str
    status: int | None = None
    lines: Lines = ()


Verdict = Admitted | Refused
ADMITTED = Admitted()


@attrs.define
class _Bucket:
    """A token bucket: what a source may still ask, and when that was looked at."""

    left: float
    at: float

    def take(self, rate: float, burst: float, now: float) -> bool:
        self.left = min(rate * burst, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class _Source:
    """What is known of one source."""

    def __init__(self, rules: AdmissionRules, now: float, *, local: bool) -> None:
        self.failures = 0
        self.local = local  # this very machine: no rate is too high
        self.requests = _Bucket(rules.requests * rules.burst, now)
        self.invites = _Bucket(rules.invites * rules.burst, now)
        self._rules = rules
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
        if trigger is SourceTrigger.FAILED and self.failures >= self._rules.failures:
            self._machine.step(SourceTrigger.TOO_MANY, now)


class Admission:
    """The judge of one endpoint; `key` seals the nonces of its challenges."""

    def __init__(self, rules: AdmissionRules, key: bytes) -> None:
        self.counters: Counter[str] = Counter()
        self._rules = rules
        self._digest = DigestServer(rules.realm, key) if rules.realm is not None else None
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    @property
    def sources(self) -> int:
        """How many sources are remembered."""
        return len(self._sources)

    def judge(self, request: Request, host: str, calls: int, now: float) -> Verdict:
        """Whether a request that belongs to no call may begin something; its source `host` has so many calls up."""
        verdict = self._judge(request, host, calls, now)
        if isinstance(verdict, Refused):
            self.counters[f"refused_{verdict.reason}"] += 1
        return verdict

    def _judge(self, request: Request, host: str, calls: int, now: float) -> Verdict:
        address = _address(host)
        if _within(address, self._rules.trusted):
            return ADMITTED
        if _within(address, self._rules.denied):
            return self._unwelcome("denied")
        source = self._source(_group(address, host), now)
        if source.state(now) is SourceState.QUIET:
            return Refused("quiet")
        agent = (request.header("User-Agent") or "").lower()
        if any(scanner in agent for scanner in self._rules.scanners):
            return Refused("scanner")
        return self._paced(request, source, now) or self._proven(request, host, source, calls, now)

    def _paced(self, request: Request, source: _Source, now: float) -> Refused | None:
        """Drop what comes too fast: an answer would only serve who sends in another's name."""
        rules = self._rules
        if source.local:
            return None
        if rules.requests and not source.requests.take(rules.requests, rules.burst, now):
            return Refused("rate")
        invite = request.method == "INVITE"
        if invite and rules.invites and not source.invites.take(rules.invites, rules.burst, now):
            return Refused("invite_rate")
        return None

    def _proven(self, request: Request, host: str, source: _Source, calls: int, now: float) -> Verdict:
        if self._digest is not None:
            proof = self._digest.check(request, host, now)
            if proof is Proof.WRONG:
                source.step(SourceTrigger.FAILED, now)
            if proof is not Proof.VALID:
                return self._stranger(proof, host, now)
            source.step(SourceTrigger.PROVEN, now)
        if request.method == "INVITE" and self._rules.calls and calls >= self._rules.calls:
            return Refused("calls_of_source", 503, (("Retry-After", "10"),))
        return ADMITTED

    def _stranger(self, proof: Proof, host: str, now: float) -> Refused:
        reason = {Proof.MISSING: "no_credentials", Proof.STALE: "stale_nonce"}.get(proof, "wrong_credentials")
        if self._rules.unknown == "challenge" and self._digest is not None:
            return Refused(reason, 401, self._digest.challenge(host, now, stale=proof is Proof.STALE))
        return self._unwelcome("unknown")

    def _unwelcome(self, reason: str) -> Refused:
        return Refused(reason, 403 if self._rules.unknown == "reject" else None)

    def _source(self, key: str, now: float) -> _Source:
        found = self._sources.get(key)
        if found is None:
            found = self._sources[key] = _Source(self._rules, now, local=_is_loopback(key))
            if len(self._sources) > self._rules.sources:
                self._sources.popitem(last=False)[1].step(SourceTrigger.CROWDED_OUT, now)
        self._sources.move_to_end(key)
        return found


IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(key: str) -> bool:
    address = _address(key.partition("/")[0])
    return address is not None and address.is_loopback


def _within(address: IpAddress | None, networks: tuple[IpNetwork, ...]) -> bool:
    return address is not None and any(address in network for network in networks)


def _group(address: IpAddress | None, host: str) -> str:
    """What counts as one source: an IPv4 address, the /64 that one holder of IPv6 has at least."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
