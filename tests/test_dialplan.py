"""What may be dialled: numbers in every spelling, the order of the rules, the shipped ones, the caps."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.config import parse_config
from rustpbx.dialplan import MINUTE, PREMIUM_RATE, SATELLITE, Dialled, DialPlan, holds_shipped, normalise
from rustpbx.settings import DialConfig, DialRule
from rustpbx.sip.uri import parse_aor

GERMAN = DialConfig(country_code="49", international_prefixes=("00", "011"))


def rule(name: str, *patterns: str) -> DialRule:
    """A rule."""
    return DialRule(name=name, patterns=patterns)


def plan(*, shipped: bool = False, **config: object) -> DialPlan:
    """A policy of these keys."""
    return DialPlan(DialConfig(**config), shipped=shipped)  # type: ignore[arg-type]  # keys by name, as in a file


def decision(policy: DialPlan, uri: str) -> str:
    """`ok`, or the rule that refuses."""
    verdict = policy.judge(parse_aor(uri))
    return "ok" if verdict.allowed else verdict.rule


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        ("sip:+493012345@trunk.test", "+493012345"),
        ("sip:+49-30.12(345)@trunk.test;user=phone", "+493012345"),
        ("sip:+49%2030%2012345@trunk.test", "+493012345"),
        ("sip:%2B4930%31%32345@trunk.test", "+493012345"),
        ("sip:00493012345@trunk.test", "+493012345"),
        ("sip:011493012345@trunk.test", "+493012345"),
        ("sip:03012345@trunk.test", "+493012345"),
        ("sip:+493012345;npdi@trunk.test;user=phone", "+493012345"),
        ("tel:+49-30-12345", "+493012345"),
        ("tel:12345;phone-context=+49-30", "+493012345"),
        ("sip:12345;phone-context=+4930@trunk.test;user=phone", "+493012345"),
        ("tel:7042;phone-context=example.com", "7042"),
        ("sip:493012345@trunk.test", "493012345"),
        ("sip:*21#@trunk.test", "*21#"),
        ("sip:bob@trunk.test", None),
        ("sip:trunk.test", None),
    ],
)
def test_a_number_is_one_number_however_it_is_written(uri: str, number: str | None) -> None:
    """Separators, escapes, prefixes, contexts and parameters change nothing; names are no numbers."""
    assert normalise(parse_aor(uri), GERMAN).number == number


def test_the_forms_that_rules_see() -> None:
    """The number, the same with a plus where a trunk might add it, and the address as user@host."""
    assert normalise(parse_aor("sip:1900-5551234@Trunk.Test:5080;x=1"), DialConfig()) == Dialled(
        "19005551234", ("19005551234", "+19005551234", "1900-5551234@trunk.test")
    )
    assert normalise(parse_aor("sip:bob@Trunk.Test"), DialConfig()) == Dialled(None, ("bob@trunk.test",))


@pytest.mark.parametrize(
    ("pattern", "uri", "matches"),
    [
        ("+1900*", "sip:+19005551234@t", True),
        ("+1-900*", "sip:+1.900.555.1234@t", True),
        ("+1900*", "sip:0019005551234@t", True),
        ("+1900*", "sip:19005551234@t", True),
        ("+1900*", "sip:+18005551234@t", False),
        ("+1900*", "tel:+1-900-555-1234", True),
        ("112", "sip:112@t", True),
        ("112", "sip:1120@t", False),
        ("7???", "sip:7042@t", True),
        ("[2-8]*", "sip:9042@t", False),
        ("[2-8]*", "sip:2042@t", True),
        ("*@evil.test", "sip:bob@EVIL.test", True),
        ("sip:*@evil.test", "sip:bob@evil.test:5080;transport=tcp", True),
        ("*@evil.test", "sip:bob@evil.test.example", False),
        ("BOB@*", "sip:bob@t", True),
        ("/[+]49(15|16|17).*/", "sip:+4917012345@t", True),
        ("/[+]49(15|16|17).*/", "sip:+493012345@t", False),
        ("/49/", "sip:+493012345@t", False),
    ],
)
def test_patterns(pattern: str, uri: str, *, matches: bool) -> None:
    """Globs and regular expressions, for the whole number or address, whatever their case."""
    assert decision(plan(deny=(rule("r", pattern),)), uri) == ("r" if matches else "ok")


def test_the_order_of_the_rules() -> None:
    """deny, then the shipped ones, then allow; what an allow list does not name is refused."""
    policy = plan(shipped=True, deny=(rule("no-boss", "+49301"),), allow=(rule("germany", "+49*"),))
    assert [decision(policy, f"sip:{number}@t") for number in ("+49302", "+49301", "+499001", "+331")] == [
        "ok",
        "no-boss",
        "premium-rate",
        "not-allowed",
    ]
    assert decision(plan(), "sip:+19005551234@t") == "ok"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("+19005551234", "premium-rate"),
        ("+12129761234", "premium-rate"),
        ("+12125551234", "ok"),
        ("+449061234567", "premium-rate"),
        ("+447012345678", "premium-rate"),
        ("+447912345678", "ok"),
        ("+448711234567", "premium-rate"),
        ("+442071234567", "ok"),
        ("+499001234567", "premium-rate"),
        ("+491377123456", "premium-rate"),
        ("+493012345678", "ok"),
        ("+41901123456", "premium-rate"),
        ("+33891234567", "premium-rate"),
        ("+33612345678", "ok"),
        ("+34806123456", "premium-rate"),
        ("+3290212345", "premium-rate"),
        ("+3292123456", "ok"),
        ("+353152012345678"[:14], "premium-rate"),
        ("+35315201234", "ok"),
        ("+979112345678", "premium-rate"),
        ("0900123456", "premium-rate"),
        ("+881612345678", "satellite"),
        ("+870773111632", "satellite"),
        ("+88213212345", "satellite"),
        ("+883510012345", "satellite"),
        ("112", "ok"),
    ],
)
def test_the_shipped_rules(number: str, name: str) -> None:
    """Premium rate and satellites, and their neighbours that are neither."""
    assert decision(plan(shipped=True), f"sip:{number}@trunk.test") == name


def test_national_numbers_are_recognised_with_a_country_code() -> None:
    """UK 09 and 070 as people dial them there."""
    policy = plan(shipped=True, country_code="44")
    assert [decision(policy, f"sip:{n}@t") for n in ("09061234567", "07012345678", "07912345678")] == [
        "premium-rate",
        "premium-rate",
        "ok",
    ]


spelled = st.lists(
    st.tuples(st.sampled_from("0123456789"), st.booleans(), st.sampled_from(["", "-", ".", "(", ")", "%20"])),
    min_size=6,
    max_size=8,
).map(lambda marked: "".join(f"{f'%{ord(digit):02x}' if escape else digit}{mark}" for digit, escape, mark in marked))


@given(
    st.sampled_from([pattern[1:-1] for pattern in PREMIUM_RATE.patterns if pattern.startswith("+4")]),
    spelled,
    st.sampled_from(["+", "00", "", "%2B", "%30%30", "+(", "0-0"]),
    st.sampled_from(["tel:{}", "sip:{}@trunk.test", "sip:{};isub=1@trunk.test;user=phone"]),
)
def test_no_spelling_gets_around_a_rule(country: str, rest: str, plus: str, uri: str) -> None:
    """Separators anywhere, digits escaped, any form of the plus, sip: or tel:; the refusal is the same."""
    assert decision(plan(shipped=True), uri.format(f"{plus}{country}{rest}")) == "premium-rate"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('[ua]\naddr = "127.0.0.1"', False),
        ('[ua]\naddr = "::1"', False),
        ('[ua]\naddr = "0.0.0.0"', True),
        ('[ua]\naddr = ""', True),
        ('[ua]\naddr = "127.0.0.1"\n[[ua.register_users]]\nserver = "s"\nusername = "u"', True),
        ('[ua]\naddr = "127.0.0.1"\n[[ua.register_users]]\nserver = "s"\nusername = "u"\ndisabled = true', False),
        ('[ua]\naddr = "0.0.0.0"\n[dial]\nshipped_rules = false', False),
        ('[ua]\naddr = "127.0.0.1"\n[dial]\nshipped_rules = true', True),
        ("", False),
    ],
)
def test_the_shipped_rules_hold_once_calls_can_leave_this_machine(text: str, *, holds: bool) -> None:
    """A SIP address that others reach, or an account elsewhere; the key decides if it is set."""
    assert holds_shipped(parse_config(text)) is holds


def admitted(policy: DialPlan, call: str, token: str, now: float) -> str:
    """`ok` or the rule, for a call that nothing else speaks against."""
    verdict = policy.admit(call, parse_aor("sip:100@t"), token, now)
    return "ok" if verdict.allowed else verdict.rule


def test_calls_within_a_minute_over_all() -> None:
    """The cap holds for any 60 s; a refused call does not count."""
    policy = plan(max_per_minute=2)
    times = [(0.0, "a"), (10.0, "b"), (20.0, "a"), (59.9, "c"), (MINUTE, "a"), (65.0, "a"), (70.0, "b")]
    assert [admitted(policy, f"c{at}", token, at) for at, token in times] == [
        *("ok", "ok", "max_per_minute", "max_per_minute", "ok", "max_per_minute", "ok")
    ]
    assert policy.counters == Counter(max_per_minute=3)


def test_calls_within_a_minute_by_token() -> None:
    """One token's calls are no other's matter."""
    policy = plan(max_per_minute_per_token=1)
    assert [admitted(policy, f"{token}{at}", token, at) for at, token in ((0, "a"), (1, "a"), (1, "b"), (61, "a"))] == [
        *("ok", "max_per_minute_per_token", "ok", "ok")
    ]


def test_calls_at_one_time_by_token() -> None:
    """A call that ends gives its place back, once."""
    policy = plan(max_calls_per_token=1)
    assert admitted(policy, "one", "a", 0) == "ok"
    assert admitted(policy, "two", "a", 500) == "max_calls_per_token"
    assert admitted(policy, "three", "b", 500) == "ok"
    for call in ("one", "one", "two", "unknown"):
        policy.ended(call)
    assert (policy.usage, admitted(policy, "four", "a", 500)) == ({"a": 0, "b": 1}, "ok")


def test_a_redirection_is_judged_and_counts_no_call() -> None:
    """Where a 3xx points goes by the rules alone."""
    policy = plan(shipped=True, max_per_minute=1)
    assert admitted(policy, "one", "", 0) == "ok"
    refusals = [policy.redirected("one", parse_aor(uri)) for uri in ("sip:200@t", "sip:+19005551234@t")]
    assert refusals == ["", "dial policy: premium-rate"]
    assert policy.counters == Counter({"premium-rate": 1})


@given(st.text(max_size=30))
def test_whatever_stands_in_a_user_part_is_judged(user: str) -> None:
    """No text makes a rule fail: it matches or it does not."""
    uri = attrs.evolve(parse_aor("sip:x@t.test"), user=user)
    policy = plan(shipped=True, allow=(rule("names", "[a-z]*"),))
    assert decision_of(policy, uri) in {"ok", "not-allowed", PREMIUM_RATE.name, SATELLITE.name}


def decision_of(policy: DialPlan, uri: object) -> str:
    """As `decision`, for a URI."""
    verdict = policy.judge(uri)  # type: ignore[arg-type]  # hand-made
    return "ok" if verdict.allowed else verdict.rule
