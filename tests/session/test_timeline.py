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


def test_the_words_reached_are_those_of_the_last_mark_that_began() -> None:
    """A mark counts once it has been heard, and only for its own entry; without marks nothing is known."""
    timeline = Timeline()
    timeline.begin(0, 0)
    for index, at in ((0, 0), (4, 200), (9, 500)):
        timeline.mark(index, at)
        timeline.grow(at + 100)
    timeline.end()
    timeline.begin(1, 600)
    timeline.grow(900)
    assert timeline.at(200) == Spoken(0, 200, 600, 0)
    assert timeline.at(201) == Spoken(0, 201, 600, 4)
    assert timeline.at(600) == Spoken(0, 600, 600, 9)
    assert timeline.at(700) == Spoken(1, 100, 300, None)


def test_a_length_that_is_known_is_told_before_it_is_written() -> None:
    """A file's total is its own, however little of it has been written; in a loop each round counts for itself."""
    timeline = Timeline()
    for start in (0, 2000):
        timeline.begin(None, start, 2000)
        timeline.grow(start + 1000)
        assert timeline.at(start + 500) == Spoken(None, 500, 2000)
        timeline.grow(start + 2000)
        timeline.end()
