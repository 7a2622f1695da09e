"""The JSON of the control protocol: text from the agent to commands, events to text, and the listings' bodies.

Text from outside becomes a command or a `WireError` (`rustpbx.control.reading` has the rules), never another
exception. Text that we write is compact, keeps integers integers (a Go client drops an event over a `12.0`), never
writes a negative number, and leaves absent optionals out.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn, get_args

import attrs

from rustpbx.control.reading import SECRETS, WireError, camel, describe, make_converter, read_candidates
from rustpbx.core import address_text
from rustpbx.session.commands import Candidate, Command
from rustpbx.session.events import Attendee, Eou, Event, HungUp, Metrics, Other, Outcome
from rustpbx.session.options import CallOption
from rustpbx.session.params import CallSummary, Health
from rustpbx.sip.trace import Trace

__all__ = [
    "MAX_DEPTH",
    "MAX_MESSAGE",
    "WireError",
    "calls_body",
    "decode_command",
    "encode_command",
    "encode_event",
    "encode_json",
    "health_body",
    "rfc3339",
    "trace_body",
]

MAX_MESSAGE = 1024 * 1024
"""Bytes of one message from an agent."""

MAX_DEPTH = 16
"""Objects and arrays inside each other; the protocol itself needs four."""

MASK = "***"

_CONVERTER = make_converter()
_COMMANDS: Mapping[str, type[Command]] = {kind.name: kind for kind in get_args(Command)}


# -- commands -------------------------------------------------------------------------------------------------------


def decode_command(text: str) -> Command:
    """The command that an agent's message says. Raises `WireError`, which never shows a credential."""
    data = _parse(text)
    if not isinstance(data, dict):
        raise WireError("", f"expected a JSON object, got {_shape(data)}")
    name = data.get("command")
    if not isinstance(name, str):
        raise WireError("command", "required" if name is None else f"expected a string, got {describe(name)}")
    kind = _COMMANDS.get(name)
    if kind is None:
        raise WireError("command", f"unknown command {describe(name)}")
    if kind is Candidate:
        return Candidate(candidates=read_candidates(data.get("candidates")))
    command: Command = _CONVERTER.structure(data, kind)
    return command


def _shape(data: object) -> str:
    return "an array" if isinstance(data, list) else "something else"


def _refuse_constant(name: str) -> NoReturn:
    raise WireError("", f"not JSON: {name} is no number")


def _parse(text: str) -> object:
    if len(text) > MAX_MESSAGE or len(text.encode(errors="replace")) > MAX_MESSAGE:
        raise WireError("", f"a message has at most {MAX_MESSAGE} bytes")
    try:
        data: object = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise WireError("", f"nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        raise WireError("", f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except ValueError:  # an integer of thousands of digits
        raise WireError("", "not JSON that we take: a number is too long") from None
    _check_depth(data)
    return data


def _check_depth(data: object) -> None:
    level: list[object] = [data]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item) if isinstance(child, (dict, list))]
        if not level:
            return
    raise WireError("", f"nested deeper than {MAX_DEPTH}")


def _children(item: object) -> Iterable[object]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def encode_command(command: Command) -> str:
    """The command as JSON again, for the dump file: what was given, credentials masked."""
    return encode_json({"command": command.name, **_written(command, mask=MASK)})


def option_body(option: CallOption) -> dict[str, object]:
    """What was given of a call's option, for its record: credentials masked."""
    return _written(option, mask=MASK)


_SECRET_KEY = re.compile(r"secret|password|passwd|token|authorization|api[-_]?key|credential", re.IGNORECASE)


def _written(value: attrs.AttrsInstance, mask: str | None) -> dict[str, object]:
    """The fields that differ from their defaults, under their wire keys. Secrets are masked, or left out for None."""
    result: dict[str, object] = {}
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        if item is None or (field.default is not attrs.NOTHING and item == field.default):
            continue
        key = camel(field.name)
        if field.name in SECRETS:
            result |= {} if mask is None else {key: mask}
        elif attrs.has(type(item)):
            result[key] = _written(item, mask)
        elif isinstance(item, Mapping):
            result[key] = _plain(item, mask)
        else:
            result[key] = item
    return result


def _plain(mapping: Mapping[str, str], mask: str | None) -> dict[str, str]:
    """A map of free keys; values under keys that sound secret are treated as secrets."""
    hidden = {key: mask for key in mapping if _SECRET_KEY.search(key)}
    return {key: shown for key, value in mapping.items() if (shown := hidden.get(key, value)) is not None}


# -- events ---------------------------------------------------------------------------------------------------------


def encode_event(event: Event, seq: int | None = None) -> str:
    """One event as the text of one message; `seq` is its number in the call, where that is sent."""
    numbered = {} if seq is None else {"seq": seq}
    return encode_json({"event": event.name, **_event_fields(event), **numbered})


_MOMENTS = frozenset({"start_time", "hangup_time", "ringing_time", "answer_time"})
"""The fields of `hangup` that are RFC 3339 strings on the wire."""


def _event_fields(event: Event | Attendee) -> dict[str, object]:
    result: dict[str, object] = {}
    for field in attrs.fields(type(event)):
        value = getattr(event, field.name)
        if value is not None:
            result[camel(field.name)] = _event_value(event, field.name, value)
    if isinstance(event, Eou):
        result["complete"] = event.completed  # documented as `completed`, read as `complete` by the Go client
    return result


def _event_value(event: Event | Attendee, name: str, value: object) -> object:
    if isinstance(event, HungUp) and name in _MOMENTS and isinstance(value, int):
        return rfc3339(value)
    if isinstance(value, Attendee):
        return _event_fields(value)
    if isinstance(event, Metrics) and name == "data":
        return dict(event.data)
    if isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()} if isinstance(event, Other) else dict(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return max(0, round(value))
    return value.value if isinstance(value, Outcome) else value


# -- listings -------------------------------------------------------------------------------------------------------


def calls_body(calls: Sequence[CallSummary]) -> dict[str, object]:
    """The body of `/call/lists`, which has the keys of both documented forms. Credentials are left out."""
    return {"total": len(calls), "calls": [_call(call) for call in calls]}


def _call(call: CallSummary) -> dict[str, object]:
    started = rfc3339(call.started_at)
    return {
        "id": call.session_id,
        "call_type": call.call_type.value,
        "callType": call.call_type.value,
        "created_at": started,
        "startTime": started,
        "ringTime": None if call.ringing_at is None else rfc3339(call.ringing_at),
        "answerTime": None if call.answered_at is None else rfc3339(call.answered_at),
        "duration": call.duration,
        "option": None if call.option is None else _written(call.option, mask=None),
    }


def health_body(health: Health) -> dict[str, object]:
    """The body of `/health`; `uptime` is the start time, as clients expect it under this name.

    `accounts` are an addition of ours, there if any are configured, and so is `refused`, there once something was.
    """
    accounts = [{**attrs.asdict(account), "since": rfc3339(account.since)} for account in health.accounts]
    return {
        "status": health.status,
        "uptime": rfc3339(health.started_at).replace("+00:00", "Z"),
        "version": health.version,
        "total": health.total,
        "failed": health.failed,
        "runnings": health.runnings,
        "useragent": {
            "transactions": {
                "running": health.transactions_running,
                "finished": health.transactions_finished,
                "waiting_ack": health.transactions_waiting_ack,
            },
            "pending": health.pending,
            "dialogs": health.dialogs,
            **({"accounts": accounts} if accounts else {}),
            **({"refused": dict(health.refused)} if health.refused else {}),
        },
        "sipserver": {},
    }


# -- text -----------------------------------------------------------------------------------------------------------


def rfc3339(milliseconds: int, timespec: str | None = None) -> str:
    """Epoch milliseconds as an RFC 3339 time in UTC: `2025-10-30T08:15:02.417+00:00`, no fraction if it is zero."""
    moment = dt.datetime.fromtimestamp(milliseconds // 1000, tz=dt.UTC)
    moment += dt.timedelta(milliseconds=milliseconds % 1000)
    return moment.isoformat(timespec=timespec or ("milliseconds" if milliseconds % 1000 else "seconds"))


def encode_json(value: object) -> str:
    """Compact JSON that is always valid UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text if text.isascii() else text.encode(errors="replace").decode()


def trace_body(trace: Trace, wall: Callable[[float], int]) -> dict[str, object]:
    """The body of `/call/{id}/sip`; `wall` turns monotonic seconds into epoch milliseconds."""
    return {
        "id": trace.call,
        "local": None if trace.local is None else address_text(trace.local),
        "dropped": trace.dropped,
        "messages": [
            {
                "time": rfc3339(wall(one.now), "milliseconds"),
                "direction": one.direction,
                "peer": address_text(one.peer.address),
                "transport": one.peer.transport,
                "message": one.text,
            }
            for one in trace.messages
        ],
    }
