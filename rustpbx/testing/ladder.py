"""What a wire carried, as people draw it: hosts as columns, SIP messages as arrows, media as a count.

print(ladder(wire.transcript))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rustpbx.sip.ladder import Rung, draw
from rustpbx.testing.matching import is_rtp, is_sip
from rustpbx.testing.wire import Carried, Fate

_ARRIVED = frozenset({Fate.SENT, Fate.DELIVERED})


def ladder(transcript: Iterable[Carried], names: Mapping[str, str] | None = None) -> str:
    """Draw SIP and RTP of a transcript, at most 120 columns wide for up to four hosts (`rustpbx.sip.ladder.draw`).

    Times are seconds since the first of them. `names` are what hosts are called, by IP.
    """
    shown = [carried for carried in transcript if is_sip(carried.data) or is_rtp(carried.data)]
    begin = shown[0].at if shown else 0.0
    return draw((_rung(carried, begin) for carried in shown), names)


def _rung(carried: Carried, begin: float) -> Rung:
    lost = "" if carried.fate in _ARRIVED else carried.fate.value
    source, destination = carried.source[0], carried.destination[0]
    return Rung(carried.at - begin, source, destination, carried.data, lost, media=not is_sip(carried.data))
