"""What may be dialled: rules over numbers and addresses, and caps against a program that runs wild.

Rules are looked at in this order, and the first that matches decides: `deny` of the configuration, the shipped rules
(premium rate, satellite) where they hold, `allow`. With an `allow` list, what is not on it is refused. Then come the
caps. Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from types import MappingProxyType
from urllib.parse import unquote

import attrs

from rustpbx.journal import Journal
from rustpbx.settings import Config, DialConfig, DialRule, is_loopback
from rustpbx.sip.uri import Uri

log = Journal(__name__)

MINUTE = 60.0
MOST_TOKENS = 10_000
"""Tokens whose calls are counted one by one; a configuration has a few."""

PREMIUM_RATE = DialRule(
    name="premium-rate",
    patterns=(
        "+979*",  # international premium rate service (ITU-T E.169.2)
        *("+1900*", "+1???976*"),  # North America
        *("+449*", "+4470*", "+44871*", "+44872*", "+44873*"),  # United Kingdom: 09, personal numbers, 0871 to 0873
        *("+49900*", "+49137*", "+49118*"),  # Germany
        *("+4390*", "+4393*"),  # Austria
        *("+41900*", "+41901*", "+41906*"),  # Switzerland
        "+3389*",  # France
        *("+34803*", "+34806*", "+34807*"),  # Spain
        "+3989*",  # Italy
        *("+31900*", "+31906*", "+31909*"),  # Netherlands
        "+3290*",  # Belgium
        *("+46900*", "+46939*", "+46944*"),  # Sweden
        *("+47820*", "+47829*"),  # Norway
        "+4590*",  # Denmark
        *("+358600*", "+358700*"),  # Finland
        "+4870*",  # Poland
        *("+420900*", "+420906*", "+420909*"),  # Czechia
        "+35315[2-8]0??????",  # Ireland; with fewer digits it is Dublin
        *("+35160*", "+35164*", "+35176*"),  # Portugal
        "+61190*",  # Australia
        "0900*",  # the usual national form, where no country code is configured
    ),
)
SATELLITE = DialRule(name="satellite", patterns=("+870*", "+881*", "+882*", "+883*"))
SHIPPED = (PREMIUM_RATE, SATELLITE)
"""Expensive by kind, and the aim of most telephone fraud. Examples: no list of the world's tariffs is complete."""

_SEPARATORS = re.compile(r"[-. ()]")
_NUMBER = re.compile(r"\+?[0-9*#]+")


@attrs.frozen
class Dialled:
    """What is to be dialled, as rules see it. `number` is None for an address that is no telephone number.

    `forms` are all ways to write it that a rule may match: the number, and `user@host`.
    """

    number: str | None
    forms: tuple[str, ...]


@attrs.frozen
class Verdict:
    """`rule` is what decided: "" if nothing spoke against it. `dialled` is what it was about."""

    allowed: bool
    rule: str
    dialled: Dialled

    @property
    def reason(self) -> str:
        """For the `reject` event, the log and people."""
        return f"dial policy: {self.rule}"


def normalise(uri: Uri, config: DialConfig) -> Dialled:
    """The number that a URI means, in international form as far as it can be told, and its other forms.

    Escapes are decoded and visual separators taken away first, so that no spelling passes where another does not.
    """
    user = unquote(uri.user or "").partition(";")[0]
    address = f"{user}@{uri.host.lower()}" if uri.scheme != "tel" else user
    plain = _SEPARATORS.sub("", user)
    if not _NUMBER.fullmatch(plain):
        return Dialled(None, (address,))
    context = _phone_context(uri)
    number = _international(f"{context}{plain}" if context and not plain.startswith("+") else plain, config)
    forms = [number, address]
    if number[0] in "123456789":
        forms.insert(1, f"+{number}")  # many trunks take an international number without its plus
    return Dialled(number, tuple(dict.fromkeys(forms)))


def _phone_context(uri: Uri) -> str:
    """The `phone-context` of a local number (RFC 3966 5.1.5) if it is a number's beginning."""
    inside = unquote(uri.user or "").partition(";")[2]
    found = re.search(r"(?:^|;)phone-context=(\+[0-9]+)", inside)
    given = uri.params.get("phone-context") or (found[1] if found else "")
    return _SEPARATORS.sub("", given) if given.startswith("+") else ""


def _international(number: str, config: DialConfig) -> str:
    for prefix in config.international_prefixes:
        if number.startswith(prefix):
            return f"+{number.removeprefix(prefix)}"
    if config.country_code and number.startswith("0"):
        return f"+{config.country_code}{number[1:]}"
    return number


def _matcher(pattern: str) -> Callable[[str], bool]:
    """`/.../` is a regular expression, anything else has `*`, `?` and `[...]`. Both mean the whole text."""
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "/":
        expression = re.compile(pattern[1:-1], re.IGNORECASE)
    else:
        bare = re.sub(r"^(?:sips?|tel):", "", pattern, flags=re.IGNORECASE)
        expression = re.compile(translate(bare if "@" in bare else _SEPARATORS_IN_PATTERN.sub("", bare)), re.IGNORECASE)
    return lambda text: expression.fullmatch(text) is not None


_SEPARATORS_IN_PATTERN = re.compile(r"[. ()]|-(?![^\[]*\])")  # the hyphen of a range such as [2-8] stays


class _Rule:
    """A rule, ready to be asked."""

    def __init__(self, rule: DialRule) -> None:
        self.name = rule.name
        self._matchers = [_matcher(pattern) for pattern in rule.patterns]

    def matches(self, dialled: Dialled) -> bool:
        return any(matches(form) for matches in self._matchers for form in dialled.forms)


@attrs.define
class _Usage:
    """The calls of one token: when those of the last minute began, and which are up."""

    began: deque[float] = attrs.field(factory=deque)
    calls: set[str] = attrs.field(factory=set)


class DialPlan:
    """The policy of one server, and what its calls have used of it. `counters` are the refusals by rule."""

    def __init__(self, config: DialConfig | None = None, *, shipped: bool = False) -> None:
        config = config or DialConfig()
        self.counters: Counter[str] = Counter()
        self._config = config
        self._deny = [_Rule(rule) for rule in (*config.deny, *(SHIPPED if shipped else ()))]
        self._allow = [_Rule(rule) for rule in config.allow]
        self._began: deque[float] = deque()
        self._usage: dict[str, _Usage] = {}
        self._tokens: dict[str, str] = {}

    @classmethod
    def of(cls, config: Config) -> DialPlan:
        """The policy of a whole configuration."""
        return cls(config.dial, shipped=holds_shipped(config))

    @property
    def usage(self) -> Mapping[str, int]:
        """Calls that are up, by token; "" is everybody without one."""
        return MappingProxyType({token: len(usage.calls) for token, usage in self._usage.items()})

    def judge(self, uri: Uri) -> Verdict:
        """What the rules say, the caps aside."""
        dialled = normalise(uri, self._config)
        denied = _first(self._deny, dialled)
        if denied is not None:
            return Verdict(False, denied, dialled)
        if not self._allow:
            return Verdict(True, "", dialled)
        allowed = _first(self._allow, dialled)
        return Verdict(allowed is not None, allowed or "not-allowed", dialled)

    def admit(self, call: str, uri: Uri, token: str, now: float) -> Verdict:
        """Judge a call that is to be placed; one that is allowed counts from now until `ended`."""
        verdict = self.judge(uri)
        cap = self._cap(token, now) if verdict.allowed else ""
        if cap:
            verdict = attrs.evolve(verdict, allowed=False, rule=cap)
        if verdict.allowed:
            self._began.append(now)
            usage = self._usage.setdefault(token, _Usage())
            usage.began.append(now)
            usage.calls.add(call)
            self._tokens[call] = token
        else:
            self._refused(verdict, call)
        return verdict

    def redirected(self, call: str, uri: Uri) -> str:
        """Why a call may not be sent there instead (3xx, transfer), or "": by the rules alone, for it counts once."""
        verdict = self.judge(uri)
        if verdict.allowed:
            return ""
        self._refused(verdict, call)
        return verdict.reason

    def ended(self, call: str) -> None:
        """A call is over; one that was never admitted is ignored."""
        token = self._tokens.pop(call, None)
        if token is None:
            return
        usage = self._usage[token]
        usage.calls.discard(call)
        if not usage.calls and len(self._usage) > MOST_TOKENS:
            del self._usage[token]

    def _cap(self, token: str, now: float) -> str:
        """The cap that one more call of this token would break; "" if there is none."""
        config = self._config
        usage = self._usage.get(token, _Usage())
        for began in (self._began, usage.began):
            while began and began[0] <= now - MINUTE:
                began.popleft()
        if config.max_per_minute is not None and len(self._began) >= config.max_per_minute:
            return "max_per_minute"
        if config.max_per_minute_per_token is not None and len(usage.began) >= config.max_per_minute_per_token:
            return "max_per_minute_per_token"
        if config.max_calls_per_token is not None and len(usage.calls) >= config.max_calls_per_token:
            return "max_calls_per_token"
        return ""

    def _refused(self, verdict: Verdict, call: str) -> None:
        self.counters[verdict.rule] += 1
        log.warning("%s refuses %s", verdict.reason, verdict.dialled.forms[0][:80], call=call)


def _first(rules: Iterable[_Rule], dialled: Dialled) -> str | None:
    return next((rule.name for rule in rules if rule.matches(dialled)), None)


def holds_shipped(config: Config) -> bool:
    """Whether the shipped rules hold: as `dial.shipped_rules` says, else as soon as calls can leave this machine.

    They can if the SIP side is not bound to loopback, or an account of another server is configured.
    """
    if config.dial.shipped_rules is not None:
        return config.dial.shipped_rules
    ua = config.ua
    return ua is not None and (not is_loopback(ua.addr) or any(not user.disabled for user in ua.register_users))
