"""What is fuzzed: one row for each kind of input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from tests.kit import predicates

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"


@attrs.frozen(kw_only=True)
class Target:
    """`check` raises if the input breaks a promise. `longest` is the largest input to try, in bytes.

    `goldens` are files that serve as seeds beside `corpus/<name>/`, `dictionary` is a file of `dict/`. `lines` says
    that the input is text in lines, whose lines are mutated as such, too.
    """

    name: str
    check: Callable[[bytes], None]
    longest: int = 4096
    goldens: tuple[Path, ...] = ()
    dictionary: str | None = None
    lines: bool = False

    @property
    def corpus(self) -> Path:
        """The inputs that are kept."""
        return HERE / "corpus" / self.name

    def inputs(self) -> list[Path]:
        """Every input there is, the goldens included."""
        return sorted(path for folder in (self.corpus, *self.goldens) for path in folder.glob("*") if path.is_file())


_SIP = (GOLDEN / "sip",)

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="sip_message",
            check=predicates.sip_message,
            longest=8192,
            goldens=_SIP,
            dictionary="sip",
            lines=True,
        ),
        Target(name="sip_address", check=predicates.sip_address, longest=512, dictionary="sip"),
        Target(
            name="sip_framing", check=predicates.sip_framing, longest=3000, goldens=_SIP, dictionary="sip", lines=True
        ),
        Target(name="sip_challenge", check=predicates.sip_challenge, longest=1024, dictionary="challenge"),
        Target(name="sip_credentials", check=predicates.sip_credentials, longest=1024, dictionary="credentials"),
        Target(name="sip_endpoint", check=predicates.sip_endpoint, longest=12_000, dictionary="endpoint", lines=True),
        Target(name="sdp", check=predicates.sdp, goldens=(GOLDEN / "sdp",), dictionary="sdp", lines=True),
        Target(name="rtp", check=predicates.rtp, longest=400),
        Target(name="rtcp", check=predicates.rtcp, longest=600),
        Target(name="srtp", check=predicates.srtp, longest=3000),
        Target(name="stun", check=predicates.stun, longest=600),
        Target(name="turn", check=predicates.turn, longest=600),
        Target(name="ice_candidate", check=predicates.ice_candidate, longest=512),
        Target(name="dtls", check=predicates.dtls, longest=2500),
        Target(name="dtmf", check=predicates.dtmf, longest=200),
        Target(name="media_plane", check=predicates.media_plane, longest=3000),
        Target(name="control_json", check=predicates.control_json, longest=2048, dictionary="control_json"),
        Target(name="control_http", check=predicates.control_http, dictionary="control_http"),
        Target(name="config", check=predicates.config, dictionary="config", lines=True),
        Target(name="audio", check=predicates.audio, longest=4096, dictionary="audio"),
    )
}
