"""What an agent can say to its call, one class per command. `rustpbx.control.wire` turns the JSON into them.

Commands are carried out strictly in the order they came. None waits for the network: a command that starts
something (`invite`, `tts`, `refer`) returns at once and the result is an event. There is no acknowledgement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

from rustpbx.session.options import CallOption, RecorderOption, ReferOption, SynthesisOption


@attrs.frozen(kw_only=True)
class Invite:
    """Place the outgoing call. The outcome is the first of `answer`, `reject`, `error`, `hangup`."""

    name: ClassVar[str] = "invite"
    option: CallOption


@attrs.frozen(kw_only=True)
class Accept:
    """Answer the pending incoming call; `answer` follows. Without one: `reject` (481), `hangup`.

    `headers` are extra header fields, by name, of the 200.
    """

    name: ClassVar[str] = "accept"
    option: CallOption
    headers: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Reject:
    """Refuse the pending incoming call with a final SIP status 400..699; `hangup` follows. Else ignored.

    `headers` are extra header fields, by name, of the response.
    """

    name: ClassVar[str] = "reject"
    reason: str
    code: int = 603
    headers: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Ring:
    """`ringing`: tell the caller that it rings (180), or send early media (183 with SDP).

    `ringtone` is the URL of what the caller hears meanwhile and implies early media; its playId is the URL.
    `recorder` starts recording now; one in the later `accept` is then ignored. May be repeated.
    """

    name: ClassVar[str] = "ringing"
    ringtone: str | None = None
    early_media: bool = False
    recorder: RecorderOption | None = None


@attrs.frozen(kw_only=True)
class Tts:
    """Speak. Commands with equal `play_id` (None equals None) form one playback; another id cuts it and begins anew.

    `text` may be empty, to carry `end_of_stream` alone: no more commands for this playback, `trackEnd` when all is
    spoken. `base64` says that `text` is base64 of s16le mono PCM at 16 kHz. `speaker` beats `option.speaker`; `option`
    is laid over the call's. Without `streaming` each command is an utterance of its own. With it (the playback's first
    command decides) the texts are pieces of one, spoken in one flow with the first one's voice, and the playback ends
    by itself ten quiet seconds after its last text.

    What the last command of a playback says of its end counts: with `auto_hangup` the call ends with it, unless
    another playback replaced it. `wait_input_timeout`, in ms, sends `silence` if the remote party says or presses
    nothing for so long after it; 0 and None are off. `cache_key` replaces the cache's own key.
    """

    name: ClassVar[str] = "tts"
    text: str
    speaker: str | None = None
    play_id: str | None = None
    auto_hangup: bool = False
    streaming: bool = False
    end_of_stream: bool = False
    option: SynthesisOption | None = None
    wait_input_timeout: int | None = None
    base64: bool = False
    cache_key: str | None = None


@attrs.frozen(kw_only=True)
class Play:
    """Play a wav or mp3 by http(s) in place of whatever plays. `play_id` None is the URL; the rest is as in `Tts`."""

    name: ClassVar[str] = "play"
    url: str
    play_id: str | None = None
    auto_hangup: bool = False
    wait_input_timeout: int | None = None


@attrs.frozen(kw_only=True)
class Interrupt:
    """Stop what plays: `interruption`, then `trackEnd`; silent if nothing plays.

    `graceful` lets the text being spoken finish, unless it is paused, streaming, or a file. Texts and files that wait
    for the answer are dropped. `fade_out_ms` is accepted and ignored.
    """

    name: ClassVar[str] = "interrupt"
    graceful: bool = False
    fade_out_ms: int | None = None


@attrs.frozen(kw_only=True)
class Pause:
    """Hold the playback where it is, until `resume` or the next `tts` or `play`. No event."""

    name: ClassVar[str] = "pause"


@attrs.frozen(kw_only=True)
class Resume:
    """Go on from where `pause` held. No event."""

    name: ClassVar[str] = "resume"


@attrs.frozen(kw_only=True)
class Hangup:
    """End the call in whatever state it is, before `invite` too. `reason` and `initiator` are echoed in `hangup`.

    `headers` are extra header fields, by name, of the BYE. With `after` `drained` it waits until all that was to be
    said has left us: what plays takes no more text, a loop ends. `interrupt` ends that wait with what it cuts; the next
    `hangup` or `refer` takes the place of one that waits.
    """

    name: ClassVar[str] = "hangup"
    reason: str | None = None
    initiator: str | None = None
    headers: Mapping[str, str] | None = None
    after: str | None = None


@attrs.frozen(kw_only=True)
class Refer:
    """Transfer: place a second call from `caller` to `callee` and join its audio with the remote party's.

    With `options.mode` `blind` no call is placed: the far end is asked to call `callee` itself (a SIP REFER), `caller`
    being who wants it to. What comes of it are `other` events (sender `refer`: `status`, `reason`), and in the end
    `hangup` (reason `refer`), or a `reject` (`refer` true) after which the conversation goes on.

    `after` is as in `Hangup`.
    """

    name: ClassVar[str] = "refer"
    caller: str
    callee: str
    options: ReferOption | None = None
    after: str | None = None


@attrs.frozen(kw_only=True)
class Referred:
    """Tell the far end what has become of the transfer that it asked for (`other` with sender `refer` and a `target`).

    `code` is a SIP status: below 200 of a call under way, else final. Without a word of the agent's the transfer is
    declined after two minutes, or with our hang-up.
    """

    name: ClassVar[str] = "referred"
    code: int
    reason: str | None = None


@attrs.frozen(kw_only=True)
class Dtmf:
    """Press keys, each for `duration` ms with `gap` ms of silence behind it; what plays waits meanwhile.

    `digits` are some of 0-9 * # A-D. `method` is `rfc4733`, `info` (SIP INFO), `inband` (tones in the audio) or `auto`:
    RFC 4733 if the far end agreed to it, else INFO, or tones in a call without SIP. Keys of several commands follow
    each other; `interrupt` ends them, as the end of the call does. Before the answer they wait, as a `tts` does. What
    could not be pressed is an `error` (sender `dtmf`), and none of the keys behind it is pressed.
    """

    name: ClassVar[str] = "dtmf"
    digits: str
    duration: int = 160
    gap: int = 80
    method: str = "auto"


@attrs.frozen(kw_only=True)
class Mute:
    """Make silence of what a track contributes, until `unmute`; None is all current tracks, an unknown one is ignored.

    Nobody hears the session track, and its DTMF is dropped; what plays on the server-side track goes on unheard.
    """

    name: ClassVar[str] = "mute"
    track_id: str | None = None


@attrs.frozen(kw_only=True)
class Unmute:
    """Undo `mute`."""

    name: ClassVar[str] = "unmute"
    track_id: str | None = None


@attrs.frozen(kw_only=True)
class History:
    """Note a line of the conversation in the event file; `addHistory` follows."""

    name: ClassVar[str] = "history"
    speaker: str
    text: str


@attrs.frozen(kw_only=True)
class Candidate:
    """ICE candidates of a browser that came after its offer, as `RTCIceCandidate.candidate` has them.

    Those that cannot be read are ignored, and so are all of them in calls of other kinds. The answer has all of ours.
    """

    name: ClassVar[str] = "candidate"
    candidates: tuple[str, ...] = ()


Command = (
    Invite
    | Accept
    | Reject
    | Ring
    | Tts
    | Play
    | Interrupt
    | Pause
    | Resume
    | Hangup
    | Refer
    | Referred
    | Dtmf
    | Mute
    | Unmute
    | History
    | Candidate
)
