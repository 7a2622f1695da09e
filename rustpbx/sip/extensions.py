"""The extensions of SIP that we do: 100rel (RFC 3262) and timer (RFC 4028), and how insistently.

Always: norefersub (RFC 4488) and replaces (RFC 3891).
"""

from __future__ import annotations

from typing import Literal

import attrs

from rustpbx.sip.headers import list_tokens
from rustpbx.sip.message import Lines, Message

RELIABLE = "100rel"
TIMER = "timer"
NO_SUBSCRIPTION = "norefersub"
REPLACES = "replaces"

PrackWish = Literal["supported", "required", "off"]
TimerWish = Literal["on", "accept", "off"]

LEAST_INTERVAL = 90
"""Seconds below which no session interval may be (RFC 4028 5)."""


@attrs.frozen(kw_only=True)
class Extensions:
    """`prack`: reliable provisional responses if the peer does them too, always, or never.

    `session_timers`: "on" asks for them, and refreshes by itself where the peer does not know them; "accept" leaves it
    to the peer. `session_expires` is the interval that we ask for, `min_se` the least that we accept, in seconds.
    """

    prack: PrackWish = "supported"
    session_timers: TimerWish = "on"
    session_expires: int = 1800
    min_se: int = LEAST_INTERVAL

    @property
    def tags(self) -> frozenset[str]:
        """Option tags (RFC 3261 19.2) that we implement."""
        on = {RELIABLE: self.prack != "off", TIMER: self.session_timers != "off"}
        return frozenset({NO_SUBSCRIPTION, REPLACES, *(tag for tag, known in on.items() if known)})

    @property
    def supported(self) -> Lines:
        """The header field that says so; none where there is nothing to say."""
        return (("Supported", ", ".join(sorted(self.tags))),) if self.tags else ()

    @property
    def required(self) -> Lines:
        """What a callee must do for an INVITE of ours."""
        return (("Require", RELIABLE),) if self.prack == "required" else ()


def option_tags(message: Message) -> frozenset[str]:
    """What the sender of a message implements: the option tags it supports or requires."""
    return frozenset(tag.lower() for tag in list_tokens((*message.all("Supported"), *message.all("Require"))))


def requires(message: Message, tag: str) -> bool:
    """Whether a message requires this extension."""
    return tag in {found.lower() for found in list_tokens(message.all("Require"))}
