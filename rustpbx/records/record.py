"""The call record: one JSON object for each session that was, made of the last things it told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import attrs

from rustpbx.control.wire import option_body, rfc3339
from rustpbx.media.recording.names import safe_name
from rustpbx.session.ending import REASONS
from rustpbx.session.events import Event, HungUp, Rejected
from rustpbx.session.options import CallOption
from rustpbx.session.params import Ended, ReferLeg

_TIMEOUT = 408
"""Of a target that nobody answered at."""

_ENDINGS = {"caller": "byCaller", "callee": "byCallee", "refer": "byRefer", "system": "bySystem"}


@attrs.frozen(kw_only=True)
class MediaFile:
    """A recording: whose track, where its file is, its bytes; `extra` says what is wrong with it, if something is."""

    track: str
    path: str
    size: int
    extra: Mapping[str, str] | None = None


class Told:
    """What the events of a session have said of its end, and of the end of its last transfer."""

    def __init__(self) -> None:
        self.end: HungUp | None = None
        self.refer_end: HungUp | Rejected | None = None

    def note(self, event: Event) -> None:
        """Take one event, in order."""
        if isinstance(event, HungUp) and not event.refer:
            self.end = event
        elif isinstance(event, HungUp | Rejected) and event.refer:
            self.refer_end = event


def call_record(ended: Ended, told: Told, media: Sequence[MediaFile], dump: str | None) -> dict[str, object]:
    """The record as JSON's types. Credentials in the option are masked. `told` must have heard the end."""
    assert told.end is not None  # noqa: S101 - `hangup` is the last event of every session
    record: dict[str, object] = {
        "callType": ended.call_type.value,
        "option": option_body(ended.option or CallOption()),
        "callId": ended.session_id,
        **_course(told.end, ended.status),
    }
    if media:
        record["recorder"] = [_media(file) for file in media]
    if told.end.extra:
        record["extras"] = dict(told.end.extra)
    if dump is not None:
        record["dumpEventFile"] = dump
    if ended.refer is not None:
        record["referCallrecord"] = _refer(ended.refer, told, told.end)
    return record


def _refer(leg: ReferLeg, told: Told, main: HungUp) -> dict[str, object]:
    """The record of a transfer, which ends by itself or with the call that it was for."""
    end = told.refer_end
    if end is None or end.timestamp < leg.started_at:  # that of a transfer before it
        end = main
    course = {
        "callType": "b2bua",
        "callId": leg.leg,
        **_times(leg.started_at, leg.rang_at, leg.answered_at, end.timestamp),
        "caller": leg.caller,
        "callee": leg.callee,
    }
    if isinstance(end, HungUp):
        return {**course, "statusCode": 200 if leg.answered_at else 487, "hangupReason": hangup_reason(end.reason)}
    why = "byCallee" if end.sip_code else "noAnswer" if end.code == _TIMEOUT else "failed"
    said = {"code": end.code or 500, "reason": end.reason, "target": leg.callee}
    return {**course, "statusCode": end.code or 500, "hangupReason": why, "hangupMessages": [said]}


def _times(start: int, ring: int | None, answer: int | None, end: int) -> dict[str, str]:
    moments = {"startTime": start, "ringTime": ring, "answerTime": answer, "endTime": end}
    return {key: rfc3339(moment) for key, moment in moments.items() if moment is not None}


def file_name(record: Mapping[str, object]) -> str:
    """`20251030-081500_s.0d6b.json`: the name of a record in a folder or an object store."""
    started = dt.datetime.fromisoformat(str(record["startTime"]))
    return f"{started:%Y%m%d-%H%M%S}_{safe_name(str(record['callId']))}.json"


def hangup_reason(reason: str | None) -> object:
    """The `reason` of a `hangup` event in the words of records."""
    if reason is None or reason in REASONS:
        return _ENDINGS.get(reason or "system", reason)
    return {"other": reason}


def _course(end: HungUp, status: int) -> dict[str, object]:
    """Times, parties and the end."""
    return {
        **_times(end.start_time, end.ringing_time, end.answer_time, end.hangup_time),
        "caller": end.from_.source if end.from_ else "",
        "callee": end.to.source if end.to else "",
        "statusCode": status,
        "hangupReason": hangup_reason(end.reason),
        **({"hangupMessages": [_message(end)]} if end.sip_code or end.sip_reason else {}),
    }


def _message(end: HungUp) -> dict[str, object]:
    """What the far end said: a status of its own, or 200 for a BYE with words."""
    said: dict[str, object] = {"code": end.sip_code or 200}
    if end.sip_reason:
        said["reason"] = end.sip_reason
    who = {"caller": end.from_, "callee": end.to}.get(end.initiator or "")
    if who is not None:
        said["target"] = who.source
    return said


def _media(file: MediaFile) -> dict[str, object]:
    plain: dict[str, object] = {"trackId": file.track, "path": file.path, "size": file.size}
    return plain if file.extra is None else {**plain, "extra": dict(file.extra)}
