"""The JSON of events: exactly the documented keys, integers that are integers, optionals left out."""

from __future__ import annotations

import json
from typing import Any, get_args

import attrs
import pytest

from rustpbx.control.wire import encode_event, encode_json, rfc3339
from rustpbx.session.events import (
    AddHistory,
    Answered,
    AnswerMachineDetection,
    AsrDelta,
    AsrFinal,
    Attendee,
    Dtmf,
    Eou,
    ErrorEvent,
    Event,
    HungUp,
    Incoming,
    Interruption,
    Metrics,
    Other,
    Outcome,
    Ping,
    Rejected,
    Ringing,
    Silence,
    Speaking,
    TrackEnd,
    TrackStart,
)

T = 1761812101000

SAID: dict[str, Any] = {"sip_code": 486, "sip_reason": "Busy Here", "q850": 17, "headers": {"X-A": "1"}}
SAID_ON_THE_WIRE = {"sipCode": 486, "sipReason": "Busy Here", "q850": 17, "headers": {"X-A": "1"}}

FULL: list[tuple[Event, dict[str, object]]] = [
    (
        Incoming(
            track_id="s",
            timestamp=T,
            caller="sip:a@x",
            callee="sip:b@x",
            sdp="v=0",
            caller_name="Al",
            asserted_identity="sip:al@carrier",
            asserted_name="Albert",
            privacy="id",
            headers={"X-A": "1"},
        ),
        {
            "event": "incoming",
            "trackId": "s",
            "timestamp": T,
            "caller": "sip:a@x",
            "callee": "sip:b@x",
            "sdp": "v=0",
            "callerName": "Al",
            "assertedIdentity": "sip:al@carrier",
            "assertedName": "Albert",
            "privacy": "id",
            "headers": {"X-A": "1"},
        },
    ),
    (
        Ringing(track_id="s", timestamp=T, early_media=True, refer=True),
        {"event": "ringing", "trackId": "s", "timestamp": T, "earlyMedia": True, "refer": True},
    ),
    (
        Answered(track_id="s", timestamp=T, sdp="v=0", refer=True, headers={"X-A": "1"}),
        {"event": "answer", "trackId": "s", "timestamp": T, "sdp": "v=0", "refer": True, "headers": {"X-A": "1"}},
    ),
    (
        Rejected(track_id="s", timestamp=T, reason="Busy Here", code=486, refer=True, **SAID),
        {
            "event": "reject",
            "trackId": "s",
            "timestamp": T,
            "reason": "Busy Here",
            "code": 486,
            "refer": True,
            **SAID_ON_THE_WIRE,
        },
    ),
    (
        HungUp(
            track_id="s",
            timestamp=T,
            reason="callee",
            initiator="callee",
            start_time=1761812100000,
            ringing_time=1761812101000,
            answer_time=1761812101500,
            hangup_time=1761812109000,
            from_=Attendee(username="bot", realm="198.51.100.7", source="sip:bot@198.51.100.7:13050"),
            to=Attendee(username="4021", realm="198.51.100.9", source="sip:4021@198.51.100.9"),
            extra={"k": "v"},
            refer=True,
            **SAID,
        ),
        {
            **SAID_ON_THE_WIRE,
            "event": "hangup",
            "trackId": "s",
            "timestamp": T,
            "reason": "callee",
            "initiator": "callee",
            "startTime": "2025-10-30T08:15:00+00:00",
            "ringingTime": "2025-10-30T08:15:01+00:00",
            "answerTime": "2025-10-30T08:15:01.500+00:00",
            "hangupTime": "2025-10-30T08:15:09+00:00",
            "from": {"username": "bot", "realm": "198.51.100.7", "source": "sip:bot@198.51.100.7:13050"},
            "to": {"username": "4021", "realm": "198.51.100.9", "source": "sip:4021@198.51.100.9"},
            "extra": {"k": "v"},
            "refer": True,
        },
    ),
    (
        TrackStart(track_id="t", timestamp=T, play_id="p"),
        {"event": "trackStart", "trackId": "t", "timestamp": T, "playId": "p"},
    ),
    (
        TrackEnd(track_id="t", timestamp=T, duration=1200, ssrc=4294967295, play_id="p"),
        {
            "event": "trackEnd",
            "trackId": "t",
            "timestamp": T,
            "duration": 1200,
            "ssrc": 4294967295,
            "playId": "p",
        },
    ),
    (
        Interruption(
            track_id="t", timestamp=T, play_id="p", subtitle="hello", position=2, total_duration=900, current=400
        ),
        {
            "event": "interruption",
            "trackId": "t",
            "timestamp": T,
            "playId": "p",
            "subtitle": "hello",
            "position": 2,
            "totalDuration": 900,
            "current": 400,
        },
    ),
    (
        Speaking(track_id="s", timestamp=T, start_time=T - 250),
        {"event": "speaking", "trackId": "s", "timestamp": T, "startTime": T - 250},
    ),
    (
        Silence(track_id="s", timestamp=T, start_time=T - 100, duration=100),
        {"event": "silence", "trackId": "s", "timestamp": T, "startTime": T - 100, "duration": 100},
    ),
    (
        Dtmf(track_id="s", timestamp=T, digit="#"),
        {"event": "dtmf", "trackId": "s", "timestamp": T, "digit": "#"},
    ),
    (
        AsrDelta(track_id="s", timestamp=T, index=0, start_time=T - 9, end_time=T, text=""),
        {
            "event": "asrDelta",
            "trackId": "s",
            "timestamp": T,
            "index": 0,
            "startTime": T - 9,
            "endTime": T,
            "text": "",
        },
    ),
    (
        AsrFinal(track_id="s", timestamp=T, index=3, start_time=T - 9, end_time=T, text="grüß dich"),
        {
            "event": "asrFinal",
            "trackId": "s",
            "timestamp": T,
            "index": 3,
            "startTime": T - 9,
            "endTime": T,
            "text": "grüß dich",
        },
    ),
    (
        AnswerMachineDetection(track_id="s", timestamp=T, start_time=T - 9, end_time=T, text="", outcome=Outcome.HUMAN),
        {
            "event": "answerMachineDetection",
            "trackId": "s",
            "timestamp": T,
            "startTime": T - 9,
            "endTime": T,
            "text": "",
            "outcome": "human",
        },
    ),
    (
        Eou(track_id="s", timestamp=T, completed=True, interrupt_point="x"),
        {
            "event": "eou",
            "trackId": "s",
            "timestamp": T,
            "completed": True,
            "complete": True,
            "interruptPoint": "x",
        },
    ),
    (
        Metrics(timestamp=T, key="ttfb.asr.local", duration=120, data={"index": 1, "cmdSeq": None}),
        {
            "event": "metrics",
            "timestamp": T,
            "key": "ttfb.asr.local",
            "duration": 120,
            "data": {"index": 1, "cmdSeq": None},
        },
    ),
    (
        ErrorEvent(track_id="s", timestamp=T, sender="command", error="no", code=500),
        {"event": "error", "trackId": "s", "timestamp": T, "sender": "command", "error": "no", "code": 500},
    ),
    (
        AddHistory(sender="s", timestamp=T, speaker="user", text="hi"),
        {"event": "addHistory", "sender": "s", "timestamp": T, "speaker": "user", "text": "hi"},
    ),
    (
        Other(track_id="s", timestamp=T, sender="x", extra={"k": "v"}),
        {"event": "other", "trackId": "s", "timestamp": T, "sender": "x", "extra": {"k": "v"}},
    ),
    (
        Ping(timestamp=T, payload="2025-10-30T08:15:01+00:00"),
        {"event": "ping", "timestamp": T, "payload": "2025-10-30T08:15:01+00:00"},
    ),
]


@pytest.mark.parametrize(("event", "wire"), FULL, ids=[event.name for event, _ in FULL])
def test_an_event_with_everything_has_exactly_its_keys(event: Event, wire: dict[str, object]) -> None:
    """Every documented key, and no other."""
    assert json.loads(encode_event(event)) == wire


def test_every_event_class_is_tried_above() -> None:
    """With none of its fields left at None, so that no key can be missed."""
    assert {type(event) for event, _ in FULL} == set(get_args(Event))
    assert [event.name for event, _ in FULL if None in attrs.asdict(event, recurse=False).values()] == []


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        (Ringing(track_id="s", timestamp=T, early_media=False), {"trackId", "earlyMedia", "refer"}),
        (Answered(track_id="s", timestamp=T, sdp=""), {"trackId", "sdp", "refer"}),
        (Rejected(track_id="s", timestamp=T, reason=""), {"trackId", "reason", "refer"}),
        (
            HungUp(track_id="s", timestamp=T, start_time=T, hangup_time=T),
            {"trackId", "startTime", "hangupTime", "refer"},
        ),
        (TrackStart(track_id="t", timestamp=T), {"trackId"}),
        (TrackEnd(track_id="t", timestamp=T, duration=0), {"trackId", "duration", "ssrc"}),
        (Interruption(track_id="t", timestamp=T), {"trackId", "totalDuration", "current"}),
        (Eou(track_id="s", timestamp=T, completed=False), {"trackId", "completed", "complete"}),
        (Metrics(timestamp=T, key="k", duration=0), {"key", "duration", "data"}),
        (ErrorEvent(track_id="s", timestamp=T, sender="x", error="e"), {"trackId", "sender", "error"}),
        (AddHistory(timestamp=T, speaker="u", text="t"), {"speaker", "text"}),
        (Other(track_id="s", timestamp=T, sender="x"), {"trackId", "sender"}),
    ],
    ids=lambda value: value.name if not isinstance(value, set) else "",
)
def test_absent_optionals_are_left_out_and_refer_is_always_there(event: Event, keys: set[str]) -> None:
    """No null, ever; `refer` on four events also when it is false."""
    wire = json.loads(encode_event(event))
    assert set(wire) == {"event", "timestamp", *keys}
    assert None not in wire.values()
    assert wire.get("refer", False) is False


def test_numbers_are_integers_and_never_negative() -> None:
    """A Go client drops the whole event over `12.0` or `-1`; a caller's float or clock skew must not cause that."""
    late = TrackEnd(track_id="t", timestamp=T, duration=12.6, ssrc=-1)  # type: ignore[arg-type]
    assert encode_event(late) == ('{"event":"trackEnd","trackId":"t","timestamp":1761812101000,"duration":13,"ssrc":0}')
    early = Silence(track_id="t", timestamp=T, start_time=-5, duration=-1)
    assert encode_event(early) == (
        '{"event":"silence","trackId":"t","timestamp":1761812101000,"startTime":0,"duration":0}'
    )


def test_values_of_other_are_strings() -> None:
    """Go decodes a map of strings."""
    event = Other(track_id="s", timestamp=T, sender="x", extra={"n": 5})  # type: ignore[dict-item]
    assert json.loads(encode_event(event))["extra"] == {"n": "5"}


def test_text_is_always_utf_8() -> None:
    """Half a surrogate pair from a provider does not break the socket."""
    event = AsrFinal(track_id="s", timestamp=T, index=0, start_time=0, end_time=0, text="a\ud800ö")
    assert json.loads(encode_event(event))["text"] == "a?ö"


def test_json_is_compact() -> None:
    """No spaces, no escapes for what UTF-8 can say."""
    assert encode_json({"a": ["ä", 1]}) == '{"a":["ä",1]}'


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1761812100000, "2025-10-30T08:15:00+00:00"),
        (1761812102417, "2025-10-30T08:15:02.417+00:00"),
        (1761812102007, "2025-10-30T08:15:02.007+00:00"),
    ],
)
def test_times_are_rfc_3339_with_offset(milliseconds: int, text: str) -> None:
    """The fraction is there when it says something."""
    assert rfc3339(milliseconds) == text
