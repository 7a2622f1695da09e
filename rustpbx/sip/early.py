"""What the calling side knows of one fork before its 2xx (RFC 3261 12.1, RFC 3262 4)."""

from __future__ import annotations

import attrs

from rustpbx.sip.dialog import Dialog


@attrs.define(eq=False)
class Early:
    """An early dialog. `rseq` is the last reliable response that we took, `sdp` the fork's last description.

    With `agreed` that is the answer to our offer, by a reliable response.
    """

    dialog: Dialog
    rseq: int | None = None
    sdp: bytes = b""
    agreed: bool = False

    def is_next(self, rseq: int) -> bool:
        """Whether a reliable response is the one that is due: neither a copy nor one that overtook another."""
        return self.rseq is None or rseq == self.rseq + 1
