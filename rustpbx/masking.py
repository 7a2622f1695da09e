"""What must not be in texts that people read (log lines, SIP traces): secrets, and what steers a terminal.

Nothing of ours writes a secret on purpose; this is for what comes in from outside (a header, a URL in an error's text).
"""

from __future__ import annotations

import re

MASK = "***"

_BREAKS = {code: f"\\x{code:02x}" for code in (*range(9), *range(0xB, 0x20), 0x7F, *range(0x80, 0xA0))}
"""Control characters but tab and line feed."""

_NAMES = r"authorization|authentication|api[-_]?key|access[-_]?key|token|secret|password|passwd|cookie|signature"

_HEADER = re.compile(rf"(?im)^([\w-]*(?:{_NAMES})[\w-]*[ \t]*:[ \t]*)(?=[^\s,])[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*")
"""A whole header field, its folded lines included (RFC 3261 7.3.1)."""

_MEDIA_KEY = (re.compile(r"(?i)\b(inline:[ \t]*)[^\s|;\\\"']+"), rf"\1{MASK}")
"""Keys of SRTP in SDP (RFC 4568), up to what may stand behind one; also within JSON or a `repr`."""

_IN_TEXT = (
    # Schemes of HTTP and SIP authentication: "Bearer x", "Digest username=..., response=...".
    (re.compile(r"(?i)\b(bearer|basic)[ \t]+[\w.~+/=-]{4,}"), rf"\1 {MASK}"),
    (re.compile(r"(?i)\b(digest)[ \t]+\w+=[^\r\n]*"), rf"\1 {MASK}"),
    # user:password@host of URLs, and of SIP URIs, whose user may stay.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@\"'<>]+@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)\b(sips?:[^\s:@;<>\"]+):[^\s@<>\"]+@"), rf"\1:{MASK}@"),
    # name=value and "name": "value", also with a longer name (`x_api_key`).
    (re.compile(rf"(?i)((?:{_NAMES})\w*[\"']?[ \t]*[=:][ \t]*[\"']?)(?!\*)[^\s\"',;&<>]+"), rf"\1{MASK}"),
    # Query parameters that are keys in all but name.
    (re.compile(r"(?i)([?&](?:key|sig|auth|pass|pwd|code)=)[^\s\"'&<>#]+"), rf"\1{MASK}"),
    _MEDIA_KEY,
)


def mask(text: str) -> str:
    """`text` with `***` in place of credentials: header fields, URLs, `name=value` pairs, SDP keys."""
    text = _HEADER.sub(rf"\1{MASK}", text)
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def mask_media_keys(sdp: str) -> str:
    """SDP for whoever must not hear the call: with `***` in place of keys, and nothing else changed."""
    return _MEDIA_KEY[0].sub(_MEDIA_KEY[1], sdp)


def visible(text: str) -> str:
    """`text` with control characters written out: somebody else's words must not steer a terminal."""
    return text.translate(_BREAKS)
