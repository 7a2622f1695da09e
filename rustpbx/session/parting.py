"""What the far end said with the end of a call: its SIP status and words, its Q.850 cause, and header fields."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from rustpbx.sip import events as sip
from rustpbx.sip.cause import OF_STATUS
from rustpbx.sip.message import Lines


@attrs.frozen(kw_only=True)
class Parting:
    """Its words; None is what it did not say. `q850` may be what its status stands for (RFC 3398)."""

    code: int | None = None
    reason: str | None = None
    q850: int | None = None
    headers: Mapping[str, str] | None = None


NOTHING_SAID = Parting()


def parting_of(fact: object) -> Parting:
    """Read it from the fact that ends a call."""
    match fact:
        case sip.CallRefused():
            told = fact.reasons.q850
            cause = OF_STATUS.get(fact.status) if told is None else told
            return Parting(code=fact.status, reason=fact.reason, q850=cause, headers=by_name(fact.passed))
        case sip.CallCancelled() | sip.ByeReceived():
            said = fact.reasons
            return Parting(
                code=said.sip,
                reason=said.sip_text or said.q850_text or None,
                q850=said.cause,
                headers=by_name(fact.passed),
            )
        case _:
            return NOTHING_SAID


def by_name(lines: Lines) -> Mapping[str, str] | None:
    """Header fields as an event has them: one of several values by a comma, None for none at all."""
    found: dict[str, str] = {}
    for name, value in lines:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found or None
