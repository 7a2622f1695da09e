"""What a call tells its agent, one class per event. `rustpbx.control.wire` turns them into JSON.

`timestamp` is when it happened and every other `..._time` a moment, both in epoch milliseconds; durations are
milliseconds. The tracks of a call are the session track (the remote party; `track_id` is the session id) and the
server-side track (tts, play, media pass, music on hold, refer leg; `track_id` as the agent named it on connecting).
Events are sent in the order they were made. `hangup` of the session track is the last, then the socket closes.
`refer` tells the events of a refer leg from those of the call itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar

import attrs


@attrs.frozen(kw_only=True)
class Incoming:
    """A phone calls: first event on a socket whose id is a pending incoming call. `sdp` is the phone's offer.

    What the phone says of the caller is in the rest, as far as it does: `caller_name` (From's display name),
    `asserted_identity` (P-Asserted-Identity or Remote-Party-ID, a URI) and `asserted_name`, `privacy` (the words of
    that header field). `headers` here and below are the header fields that `pass_headers` lets through.
    """

    name: ClassVar[str] = "incoming"
    track_id: str
    timestamp: int
    caller: str
    callee: str
    sdp: str
    caller_name: str | None = None
    asserted_identity: str | None = None
    asserted_name: str | None = None
    privacy: str | None = None
    headers: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Ringing:
    """A provisional response from 180 up to our INVITE; `early_media` if it carried SDP. Not for incoming calls."""

    name: ClassVar[str] = "ringing"
    track_id: str
    timestamp: int
    early_media: bool
    refer: bool = False


@attrs.frozen(kw_only=True)
class Answered:
    """`answer`: the call is up. `sdp` is the remote answer of an outgoing SIP call, else our own; "" on `/call`."""

    name: ClassVar[str] = "answer"
    track_id: str
    timestamp: int
    sdp: str
    refer: bool = False
    headers: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Rejected:
    """`reject`: the call was refused. `reason` is the SIP phrase, `code` the SIP status.

    `sip_code` and `sip_reason` say that it was the far end who refused it, and `q850` is the cause that it told, or
    else the one that its status stands for.
    """

    name: ClassVar[str] = "reject"
    track_id: str
    timestamp: int
    reason: str
    code: int | None = None
    refer: bool = False
    sip_code: int | None = None
    sip_reason: str | None = None
    q850: int | None = None
    headers: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Attendee:
    """A party of the call: user and host of its SIP URI, and the URI itself."""

    username: str
    realm: str
    source: str


@attrs.frozen(kw_only=True)
class HungUp:
    """`hangup`: a leg has ended; the session track's is the last event of a session.

    `reason` is a plain word (`caller`, `callee`, `system`, `autohangup`, `canceled`, `rejected`, `refer`,
    `noAnswer`, `inactivityTimeout` ...) or the agent's own text; `initiator` is `caller`, `callee`, `system` or the
    agent's own word. `extra` is the call option's. The times are RFC 3339 strings on the wire. `sip_code`,
    `sip_reason`, `q850` and `headers` are what the far end said with its refusal, CANCEL or BYE, as in `Rejected`.
    """

    name: ClassVar[str] = "hangup"
    track_id: str
    timestamp: int
    reason: str | None = None
    initiator: str | None = None
    start_time: int
    hangup_time: int
    ringing_time: int | None = None
    answer_time: int | None = None
    from_: Attendee | None = None
    to: Attendee | None = None
    extra: Mapping[str, str] | None = None
    refer: bool = False
    sip_code: int | None = None
    sip_reason: str | None = None
    q850: int | None = None
    headers: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class TrackStart:
    """A track was added: the session track when media is set up, the server-side track for each playback."""

    name: ClassVar[str] = "trackStart"
    track_id: str
    timestamp: int
    play_id: str | None = None


@attrs.frozen(kw_only=True)
class TrackEnd:
    """A track ended, by itself or cut. `duration` is since its start; `ssrc` its RTP source, 0 for none."""

    name: ClassVar[str] = "trackEnd"
    track_id: str
    timestamp: int
    duration: int
    ssrc: int = 0
    play_id: str | None = None


@attrs.frozen(kw_only=True)
class Interruption:
    """A playback was cut; its `trackEnd` follows.

    `subtitle` is the text being spoken and `position` the index into it that was reached. `total_duration` is how
    much of its audio existed, `current` how much had been played.
    """

    name: ClassVar[str] = "interruption"
    track_id: str
    timestamp: int
    play_id: str | None = None
    subtitle: str | None = None
    position: int | None = None
    total_duration: int = 0
    current: int = 0


@attrs.frozen(kw_only=True)
class Speaking:
    """The remote party speaks, since `start_time`. Exactly one `silence` answers each of these."""

    name: ClassVar[str] = "speaking"
    track_id: str
    timestamp: int
    start_time: int


@attrs.frozen(kw_only=True)
class Silence:
    """Speech ended, nobody spoke for `silenceTimeout`, or a playback's `waitInputTimeout` ran out.

    `start_time` is when the silence began, `duration` how long it has lasted.
    """

    name: ClassVar[str] = "silence"
    track_id: str
    timestamp: int
    start_time: int
    duration: int


@attrs.frozen(kw_only=True)
class Dtmf:
    """One key press: `digit` is one of 0-9, *, #, A-D."""

    name: ClassVar[str] = "dtmf"
    track_id: str
    timestamp: int
    digit: str


@attrs.frozen(kw_only=True)
class AsrDelta:
    """What was heard so far; replaces the previous text of the same `index`."""

    name: ClassVar[str] = "asrDelta"
    track_id: str
    timestamp: int
    index: int
    start_time: int
    end_time: int
    text: str


@attrs.frozen(kw_only=True)
class AsrFinal:
    """What was heard, for good."""

    name: ClassVar[str] = "asrFinal"
    track_id: str
    timestamp: int
    index: int
    start_time: int
    end_time: int
    text: str


@attrs.frozen(kw_only=True)
class Eou:
    """The remote party's utterance is over (`completed`), or is judged not to be."""

    name: ClassVar[str] = "eou"
    track_id: str
    timestamp: int
    completed: bool
    interrupt_point: str | None = None


@attrs.frozen(kw_only=True)
class Metrics:
    """A measurement: `key` such as `ttfb.asr.aliyun`, `duration` in ms, `data` an object of details."""

    name: ClassVar[str] = "metrics"
    timestamp: int
    key: str
    duration: int
    data: Mapping[str, object] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class ErrorEvent:
    """`error`: something failed. `sender` is what (`invite`, `command`, `asr.local`, `filetrack: <url>` ...).

    Before `answer` only a failed call set-up is an error; clients take any error then as the call's end.
    """

    name: ClassVar[str] = "error"
    track_id: str
    timestamp: int
    sender: str
    error: str
    code: int | None = None


@attrs.frozen(kw_only=True)
class AddHistory:
    """The answer to the `history` command."""

    name: ClassVar[str] = "addHistory"
    sender: str | None = None
    timestamp: int
    speaker: str
    text: str


@attrs.frozen(kw_only=True)
class Other:
    """Extension point."""

    name: ClassVar[str] = "other"
    track_id: str
    timestamp: int
    sender: str
    extra: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Ping:
    """Sent with each ping of the socket; `payload` is the RFC 3339 time."""

    name: ClassVar[str] = "ping"
    timestamp: int
    payload: str


class Outcome(Enum):
    """Who has answered; the values are those of the wire."""

    HUMAN = "human"
    MACHINE = "machine"
    UNSURE = "unsure"


@attrs.frozen(kw_only=True)
class AnswerMachineDetection:
    """Who has answered, told once: `text` is what was understood of it since, if there is ASR."""

    name: ClassVar[str] = "answerMachineDetection"
    track_id: str
    timestamp: int
    start_time: int
    end_time: int
    text: str
    outcome: Outcome


Event = (
    Incoming
    | Ringing
    | Answered
    | Rejected
    | HungUp
    | TrackStart
    | TrackEnd
    | Interruption
    | Speaking
    | Silence
    | Dtmf
    | AsrDelta
    | AsrFinal
    | Eou
    | AnswerMachineDetection
    | Metrics
    | ErrorEvent
    | AddHistory
    | Other
    | Ping
)
