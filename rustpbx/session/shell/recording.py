"""What a call's option makes of a recording: its name, its format, its rate."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.errors import MediaError
from rustpbx.media.recording.names import FORMATS, Format, stem
from rustpbx.media.recording.shell.recorder import Recorder, Recording, RecordingWish
from rustpbx.session.options import RecorderOption

DEFAULT_PERIOD = 200
"""Milliseconds; an option's `ptime` of 0 means that."""


@attrs.frozen(kw_only=True)
class Recordings:
    """The server's recorder, and how the configuration wants it used.

    `kind` is the format of options that name none, `pattern` what a file is called then. With `enabled` False nothing
    is recorded. `unasked` is the option of calls whose agent names no recorder, None for those not to be recorded.
    """

    recorder: Recorder
    kind: Format = "wav"
    pattern: str = ""
    enabled: bool = True
    unasked: RecorderOption | None = None

    def begin(self, session_id: str, option: RecorderOption, fail: Callable[[str], None]) -> Recording:
        """Record the leg of a session from now on. `fail` is told why it ends early, if it does.

        Raises `MediaError` for a name, format or rate that cannot be.
        """
        if not self.enabled:
            raise MediaError("recording is switched off on this server")
        kind = self.kind
        if option.format is not None:
            found = next((known for known in FORMATS if known == option.format.lower()), None)
            if found is None:
                raise MediaError(f"format {option.format!r:.40} is none of {', '.join(FORMATS)}")
            kind = found
        wish = RecordingWish(
            leg=session_id,
            stem=stem(option.recorder_file, session_id, kind, self.pattern),
            kind=kind,
            rate=option.samplerate,
            period=(option.ptime or DEFAULT_PERIOD) / 1000,
        )
        return self.recorder.record(wish, fail)
