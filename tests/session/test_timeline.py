"""Positions of a playback: which entry was being heard."""

from __future__ import annotations

from rustpbx.session.effects import Spoken
from rustpbx.session.timeline import Timeline


def two_entries() -> Timeline:
    """600 ms of entry 0, then entry 3 of which 400 ms exist."""
    timeline = Timeline()
    timeline.begin(0, 0)
    timeline.grow(600)
    timeline.end()
    timeline.begin(3, 600)
    timeline.grow(1000)
    return timeline


def test_before_the_first_sample_nothing_was_heard() -> None:
    """No audio out is None, not an entry at zero."""
    assert two_entries().at(0) is None
    assert Timeline().at(500) is None


def test_the_entry_at_a_position_and_how_far_into_it() -> None:
    """A border belongs to the entry that ends there."""
    timeline = two_entries()
    assert timeline.at(240) == Spoken(0, 240, 600)
    assert timeline.at(600) == Spoken(0, 600, 600)
    assert timeline.at(620) == Spoken(3, 20, 400)


def test_the_end_of_an_entry_is_known_once_it_is_complete() -> None:
    """An entry still being written has no end."""
    timeline = two_entries()
    assert timeline.end_of(0) == 600
    assert timeline.end_of(3) is None
