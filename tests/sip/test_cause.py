"""Why calls end: Reason header fields read and written, and what status is which cause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.sip.cause import (
    NO_REASONS,
    OF_STATUS,
    STATUS_OF,
    Reasons,
    parse_reasons,
    q850_reason,
    sip_reason,
    with_cause,
)


@pytest.mark.rfc("3326", "2")
@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ([], NO_REASONS),
        (['SIP ;cause=200 ;text="Call completed elsewhere"'], Reasons(sip=200, sip_text="Call completed elsewhere")),
        (['Q.850;cause=16;text="Terminated"'], Reasons(q850=16, q850_text="Terminated")),
        (["q.850;cause=17"], Reasons(q850=17)),
        (
            ['Q.850;cause=16;text="a, b", SIP;cause=600;text="Busy \\"Everywhere\\""'],
            Reasons(sip=600, sip_text='Busy "Everywhere"', q850=16, q850_text="a, b"),
        ),
        (["SIP;cause=580", 'Q.850;cause=47;text="no"'], Reasons(sip=580, q850=47, q850_text="no")),
        (["Q.850;cause=1", "Q.850;cause=2"], Reasons(q850=1)),
        (["preemption;cause=1;text=UA", "Q.850;cause=16"], Reasons(q850=16)),
        (["Q.850;cause=128", "SIP;cause=99"], NO_REASONS),
        (["Q.850;cause=", "Q.850;cause=x", "Q.850", ";cause=16", '"Q.850";cause=16'], NO_REASONS),
        (["Q.850;cause=\u0661"], NO_REASONS),
        (['SIP;cause=200;text="never closed'], NO_REASONS),
        (["Q.850 ; cause = 0016", "Q.850;cause=016"], Reasons(q850=16)),
    ],
)
def test_what_is_read(fields: list[str], reasons: Reasons) -> None:
    """The first value of each protocol; other protocols, numbers out of range and what cannot be read are left out."""
    assert parse_reasons(fields) == reasons


@given(st.lists(st.text(max_size=60), max_size=5))
def test_anything_is_survived(fields: list[str]) -> None:
    """Any text gives causes in their ranges, or none."""
    reasons = parse_reasons(fields)
    assert reasons.sip is None or 100 <= reasons.sip <= 699
    assert reasons.q850 is None or 0 <= reasons.q850 <= 127


@pytest.mark.rfc("6432", "2")
def test_what_is_written_is_read_again() -> None:
    """With the words of Q.850, and ours, which cannot break out of their quotes."""
    lines = [q850_reason(17), sip_reason(486, 'in a "meeting"\r\nVia: x'), q850_reason(99)]
    assert lines == [
        ("Reason", 'Q.850;cause=17;text="User busy"'),
        ("Reason", 'SIP;cause=486;text="in a \\"meeting\\"  Via: x"'),
        ("Reason", "Q.850;cause=99"),
    ]
    assert parse_reasons(value for _, value in lines) == Reasons(
        sip=486, sip_text='in a "meeting"  Via: x', q850=17, q850_text="User busy"
    )


def test_an_agents_own_reason_stands() -> None:
    """However it is spelled; without one ours comes first."""
    own = (("REASON", "Q.850;cause=21"),)
    assert with_cause(own, 16) == own
    assert with_cause((("X-A", "b"),), 16) == (q850_reason(16), ("X-A", "b"))
    assert with_cause((("X-A", "b"),), None) == (("X-A", "b"),)


@pytest.mark.rfc("3398", "7.2.4.1", "8.2.6.1")
def test_the_mappings() -> None:
    """Both ways, where they matter most; a status that refuses is always some cause, and a cause a status."""
    causes = {404: 1, 480: 18, 484: 28, 486: 17, 488: 65, 503: 41, 600: 17, 603: 21}
    assert {status: OF_STATUS[status] for status in causes} == causes
    statuses = {1: 404, 17: 486, 18: 408, 19: 480, 21: 403, 28: 484, 34: 503, 102: 504}
    assert {cause: STATUS_OF[cause] for cause in statuses} == statuses
    assert 16 not in STATUS_OF
    assert {cause for cause in OF_STATUS.values() if cause not in STATUS_OF} == {25, 63}


@pytest.mark.rfc("3398", "8.2.6.1")
def test_the_cause_is_the_one_that_was_told() -> None:
    """Else the one that the SIP status stands for, if any."""
    assert Reasons(sip=486, q850=21).cause == 21
    assert Reasons(sip=486).cause == 17
    assert Reasons(sip=200).cause is None
    assert NO_REASONS.cause is None
