"""Keys that come in several ways are one press each."""

from __future__ import annotations

import pytest

from rustpbx.media.events import DigitPressed
from rustpbx.session import commands, effects
from rustpbx.session.events import Dtmf
from rustpbx.session.options import CallOption, DtmfOption
from rustpbx.sip.events import DigitReceived
from tests.kit.session import Bench, talking, told


def digits(bench: Bench, *facts: DigitPressed | DigitReceived) -> str:
    """The `dtmf` events of these facts, a tenth of a second apart."""
    found = ""
    for fact in facts:
        bench.now += 0.1
        found += "".join(event.digit for event in told(bench.give(fact)) if isinstance(event, Dtmf))
    return found


def tone(digit: str) -> DigitPressed:
    """Found in the audio."""
    return DigitPressed("s1", digit, 0.0, inband=True)


def event(digit: str) -> DigitPressed:
    """An RFC 4733 event."""
    return DigitPressed("s1", digit, 0.0)


def info(digit: str) -> DigitReceived:
    """A SIP INFO."""
    return DigitReceived("s1", digit)


def test_tones_alone_are_keys() -> None:
    """Doubled ones too."""
    assert digits(talking(), *map(tone, "1123")) == "1123"


def test_a_phone_that_sends_both() -> None:
    """The events begin before their tones are heard: what is in the audio never counts."""
    assert digits(talking(), event("1"), tone("1"), event("1"), tone("1"), event("2"), tone("2")) == "112"


def test_a_phone_that_tells_by_info_after_the_tone() -> None:
    """The first key is heard before it is told, and is one all the same."""
    assert digits(talking(), tone("1"), info("1"), tone("2"), info("2"), info("3"), tone("3")) == "123"


def test_the_same_key_later_by_info_is_another_press() -> None:
    """A second is long enough for two."""
    bench = talking()
    assert digits(bench, tone("1")) == "1"
    bench.now += 1.0
    assert digits(bench, info("1")) == "1"


@pytest.mark.parametrize(
    ("option", "server", "sought"),
    [
        (None, False, False),
        (None, True, True),
        (DtmfOption(), True, True),
        (DtmfOption(inband=True), False, True),
        (DtmfOption(inband=False), True, False),
    ],
)
def test_who_decides(option: DtmfOption | None, server: bool, sought: bool) -> None:
    """The call's option, else the server's."""
    bench = Bench(dtmf_inband=server)
    bench.incoming()
    bench.attach()
    out = bench.give(commands.Accept(option=CallOption(dtmf=option)))
    assert (effects.SeekTones() in out) is sought
