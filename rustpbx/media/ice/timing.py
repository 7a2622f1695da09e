"""How long an agent waits for what (RFC 8445 14, RFC 8863, RFC 7675)."""

from __future__ import annotations

from collections.abc import Callable

from rustpbx.media.ice.tables import AgentState, AgentTrigger

PACE = 0.05
"""Seconds between two new checks (section 14.2)."""

CHECK_TIMEOUT = 39.5
"""Seconds until there must be a path: a peer that we know nothing of may still begin (RFC 8863 4)."""

CHOICE_TIME = 0.2
"""Seconds that the controlling side waits for a better pair than the one that works."""

CONSENT_PERIOD = 5.0
CONSENT_TIMEOUT = 30.0
"""RFC 7675 5.1: asked for every 4 to 6 s; without it for 30 s, nothing more is sent."""

ANXIOUS_PERIOD = 1.0
"""Seconds between questions once the peer is silent: where one datagram in five is lost, six would not be enough."""

SILENCE = 12.0
"""Seconds without consent that its owner is told of: two questions have had no answer."""

_FIXED = {
    AgentTrigger.CHECK_TIMEOUT: CHECK_TIMEOUT,
    AgentTrigger.CHOICE_TIMER: CHOICE_TIME,
    AgentTrigger.CONSENT_TIMEOUT: CONSENT_TIMEOUT,
    AgentTrigger.SILENCE_TIMER: SILENCE,
}


def duration(trigger: AgentTrigger, state: AgentState, entropy: Callable[[int], bytes]) -> float:
    """Seconds of a timer of the agent. `entropy(n)` gives n random bytes."""
    if trigger in _FIXED:
        return _FIXED[trigger]
    # CONSENT_TIMER; spread by a fifth, so that not all calls ask at once (RFC 7675 5.1)
    period = ANXIOUS_PERIOD if state is AgentState.DISCONNECTED else CONSENT_PERIOD
    return period * (0.8 + 0.4 * entropy(1)[0] / 255)
