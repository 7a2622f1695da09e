"""The `dtmf` command: keys in their order, one at a time, by whichever way there is; what fails is one error."""

from __future__ import annotations

from typing import Any

import pytest

from rustpbx.media.events import KeyReleased
from rustpbx.session import commands, effects
from rustpbx.session.events import ErrorEvent
from rustpbx.session.keying import ANSWER_LIMIT, HOLD_LIMIT, MOST_KEYS
from rustpbx.session.options import CallOption
from rustpbx.session.tables import Call
from rustpbx.sip import events as sip
from tests.kit.session import OFFER, Bench, told

WITHOUT_EVENTS = OFFER.replace(b"RTP/AVP 0 8 101", b"RTP/AVP 0 8").replace(
    b"a=rtpmap:101 telephone-event/8000\r\n", b""
)


def talking(offer: bytes = OFFER) -> Bench:
    """A phone's call that is answered."""
    bench = Bench()
    bench.incoming(offer)
    bench.attach()
    bench.give(commands.Accept(option=CallOption()))
    assert bench.core.state is Call.TALKING
    return bench


def dtmf(digits: str, **fields: Any) -> commands.Dtmf:
    """The command."""
    return commands.Dtmf(digits=digits, **fields)


def key(digit: str, duration: int = 160, gap: int = 80, **fields: Any) -> effects.PressKey:
    """The effect."""
    return effects.PressKey(digit, duration, gap, **fields)


def test_keys_follow_each_other() -> None:
    """The next one is pressed when the one before is released, over several commands."""
    bench = talking()
    assert bench.give(dtmf("1a")) == [key("1")]
    assert bench.give(dtmf("#", duration=90, gap=70)) == []
    assert bench.give(KeyReleased("s1", "1")) == [key("A")]
    assert bench.give(KeyReleased("s1", "A")) == [key("#", 90, 70)]
    assert bench.give(KeyReleased("s1", "#")) == []


def test_without_telephone_event_they_go_by_info() -> None:
    """One INFO at a time: the next follows the answer, and the key's own time."""
    bench = talking(WITHOUT_EVENTS)
    assert bench.give(dtmf("12", duration=100, gap=60)) == [sip.SendDigit("s1", "1", 100)]
    assert bench.wait(2.0) == []
    assert bench.give(sip.DigitSent("s1", "1", 200, "OK")) == []
    assert bench.wait(0.159) == []
    assert bench.wait(0.001) == [sip.SendDigit("s1", "2", 100)]


@pytest.mark.parametrize(("method", "effect"), [("inband", key("5", inband=True)), ("info", sip.SendDigit("s1", "5"))])
def test_the_agent_chooses(method: str, effect: effects.Effect) -> None:
    """Tones or INFO although telephone-event was agreed."""
    assert talking().give(dtmf("5", method=method)) == [effect]


def test_an_info_that_is_refused_is_told_once() -> None:
    """The status is in the error, and the keys behind it are lost."""
    bench = talking(WITHOUT_EVENTS)
    bench.give(dtmf("123"))
    (error,) = told(bench.give(sip.DigitSent("s1", "1", 405, "Method Not Allowed")))
    assert isinstance(error, ErrorEvent)
    assert (error.sender, error.code) == ("dtmf", 405)
    assert error.error == "1 was not sent, 3 keys are lost: the far end refused the INFO: 405 Method Not Allowed"
    assert bench.wait(100) == []


def test_an_info_without_an_answer() -> None:
    """There is a limit, should the fact be lost."""
    bench = talking(WITHOUT_EVENTS)
    bench.give(dtmf("1"))
    assert bench.wait(ANSWER_LIMIT - 0.01) == []
    assert [error.name for error in told(bench.wait(0.01))] == ["error"]


def test_a_line_on_hold() -> None:
    """A key that nobody takes for five seconds is an error, and the plane is told to forget it."""
    bench = talking()
    bench.give(dtmf("77"))
    assert bench.wait(0.24 + HOLD_LIMIT - 0.01) == []
    released, *rest = bench.wait(0.02)
    assert released == effects.ReleaseKeys()
    assert [error.name for error in told(rest)] == ["error"]


def test_the_plane_may_refuse() -> None:
    """What it says is in the error."""
    bench = talking()
    bench.give(dtmf("7"))
    (error,) = told(bench.give(effects.KeyFailed("telephone-event was not agreed")))
    assert isinstance(error, ErrorEvent)
    assert error.error == "7 was not sent, 1 keys are lost: telephone-event was not agreed"


def test_interrupt_ends_them() -> None:
    """The key that is down goes up, none that waits is pressed, and new ones may follow."""
    bench = talking()
    bench.give(dtmf("123"))
    assert bench.give(commands.Interrupt()) == [effects.ReleaseKeys()]
    assert bench.give(KeyReleased("s1", "1")) == []
    assert bench.give(dtmf("9")) == [key("9")]


def test_interrupt_leaves_an_info_its_answer() -> None:
    """It is on its way: the next key waits for its answer."""
    bench = talking(WITHOUT_EVENTS)
    bench.give(dtmf("12"), commands.Interrupt())
    assert bench.give(dtmf("9")) == []
    bench.give(sip.DigitSent("s1", "1", 200, "OK"))
    assert bench.wait(0.24) == [sip.SendDigit("s1", "9", 160)]


def test_the_end_of_the_call_ends_them() -> None:
    """Nothing is pressed afterwards, and no timer runs."""
    bench = talking()
    bench.give(dtmf("123"), commands.Hangup())
    assert bench.core.done
    assert bench.wait(100) == []


def test_before_the_answer_they_wait() -> None:
    """As a `tts` does: pressed in their order once there is audio."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    assert bench.give(dtmf("4")) == []
    assert key("4") in bench.give(commands.Accept(option=CallOption()))


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (dtmf(""), "digits: '' are not all of 0-9 * # A-D"),
        (dtmf("12x"), "digits: '12x' are not all of 0-9 * # A-D"),
        (dtmf("1", duration=39), "duration: 39 ms are not within 40 and 6000"),
        (dtmf("1", duration=6001), "duration: 6001 ms are not within 40 and 6000"),
        (dtmf("1", gap=10), "gap: 10 ms are not within 40 and 10000"),
        (dtmf("1", method="smoke"), "method: 'smoke' is none of auto, rfc4733, info, inband"),
        (dtmf("1" * (MOST_KEYS + 1)), f"more than {MOST_KEYS} keys wait"),
    ],
)
def test_a_bad_command(command: commands.Dtmf, problem: str) -> None:
    """One error that names what is wrong; nothing of it is pressed."""
    bench = talking()
    (error,) = told(bench.give(command))
    assert isinstance(error, ErrorEvent)
    assert (error.sender, error.error) == ("dtmf", problem)
    assert bench.give(dtmf("1")) == [key("1")]


def test_events_that_were_not_agreed() -> None:
    """`rfc4733` is not silently something else."""
    (error,) = told(talking(WITHOUT_EVENTS).give(dtmf("1", method="rfc4733")))
    assert isinstance(error, ErrorEvent)
    assert error.error == "method: telephone-event was not agreed with the far end"
