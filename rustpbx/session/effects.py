"""What a call is told besides commands, and what it wants done: read this with `tables.py` to know the session.

Facts of SIP and media keep their own classes (`rustpbx.sip.events`, `rustpbx.media.events`). The facts here come from
the session's shell. A `generation` numbers the playbacks of one call; what belongs to an older one is dropped. A `leg`
is the name of a refer leg; None is the call's own.
"""

from __future__ import annotations

import attrs

from rustpbx.media.events import Fact as MediaFact
from rustpbx.media.events import MediaFormat, VadParams
from rustpbx.media.sdp.ice import Candidate
from rustpbx.media.sdp.webrtc import OwnEnd, PeerOffer
from rustpbx.media.webrtc import PeerFact
from rustpbx.session.commands import Command
from rustpbx.session.events import Event
from rustpbx.session.options import MediaPassOption, RecorderOption, SynthesisOption, TranscriptionOption
from rustpbx.sip.events import Fact as SipFact
from rustpbx.sip.events import IncomingCall, Wish
from rustpbx.sip.uri import Uri
from rustpbx.speech.base import Transcript

# -- facts ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class AgentReserved:
    """An agent's socket is being upgraded for this call."""


@attrs.frozen
class AgentAttached:
    """An agent's socket is up."""


@attrs.frozen
class AgentGone:
    """The agent's socket is lost; `cause` is for the log. `dropped`: without a word, it did not close it."""

    cause: str
    dropped: bool = False


@attrs.frozen
class Killed:
    """The kill endpoint, the server's shutdown, or an overflow ends this call."""

    cause: str


@attrs.frozen
class BadCommand:
    """The agent sent something that is no command."""

    problem: str


@attrs.frozen
class PingSent:
    """The agent's socket was pinged with this payload."""

    payload: str


@attrs.frozen
class AnnounceFailed:
    """Nobody took the incoming call: the webhook failed, or there is none."""

    problem: str


@attrs.frozen
class LegReady:
    """The leg has its RTP port on `host` (our address as the phone knows it)."""

    host: str
    port: int
    ssrc: int
    leg: str | None = None


@attrs.frozen
class LegUnusable:
    """The leg could not be opened, or the phone's SDP does not fit it. `status` is the SIP answer that says so."""

    problem: str
    status: int = 503
    leg: str | None = None


@attrs.frozen
class PeerDescribed:
    """A further offer of a browser has been taken; this is our end now."""

    end: OwnEnd


@attrs.frozen
class SetupFailed:
    """The callee's address leads nowhere."""

    problem: str
    leg: str | None = None


@attrs.frozen
class Broken:
    """Something of ours failed within this call; it is in the log."""

    problem: str


@attrs.frozen
class Spoken:
    """What was heard of the entry being spoken when a playback was cut, in ms; `total` is what existed of it.

    `entry` is None for streamed audio whose service does not tell the words. `position` is the index into the entry's
    text that was reached, as far as the service told.
    """

    entry: int | None
    current: int
    total: int
    position: int | None = None


@attrs.frozen
class TrackStopped:
    """A playback was cut at once. `spoken` is None if none of its audio had left."""

    generation: int
    spoken: Spoken | None


@attrs.frozen
class TrackFinishing:
    """A playback will end with the entry being spoken."""

    generation: int
    spoken: Spoken


@attrs.frozen
class TrackPlayedOut:
    """The last frame of a finished playback has been sent."""

    generation: int


@attrs.frozen
class TrackDry:
    """All that a streaming playback had has been heard."""

    generation: int


@attrs.frozen
class TrackSounding:
    """A streaming playback that had run dry has audio again."""

    generation: int


@attrs.frozen
class TrackBegun:
    """The first packet of a playback has left."""

    generation: int


@attrs.frozen
class TrackFailed:
    """A playback has nothing to play (the file could not be fetched or decoded)."""

    generation: int
    problem: str


@attrs.frozen
class EntryWritten:
    """All audio of an utterance, and of those before it, is with the plane."""

    generation: int
    number: int


@attrs.frozen
class EntrySounding:
    """The first audio of an utterance, said at `said_at`, has come from `provider`."""

    generation: int
    number: int
    provider: str
    said_at: float


@attrs.frozen
class EntrySynthesized:
    """All audio of an utterance, `size` bytes, has come from `provider`, or is that which came before (`cached`)."""

    generation: int
    number: int
    provider: str
    said_at: float
    size: int
    cached: bool = False
    speaker: str | None = None


@attrs.frozen
class EntryFailed:
    """One utterance could not be synthesised; the playback goes on with the next."""

    generation: int
    sender: str
    problem: str
    code: int | None = None


@attrs.frozen
class Heard:
    """A transcript of the remote party."""

    transcript: Transcript
    leg: str | None = None


@attrs.frozen
class ListeningEnded:
    """Nothing is transcribed any more: all words are told."""

    leg: str | None = None


@attrs.frozen
class ListeningFailed:
    """Transcription broke; `sender` names the provider."""

    sender: str
    problem: str
    code: int | None = None
    leg: str | None = None


@attrs.frozen
class RecordingFailed:
    """The recording has not begun, or ends here."""

    problem: str


@attrs.frozen
class KeyFailed:
    """The plane cannot press this key."""

    problem: str
    leg: str | None = None


@attrs.frozen
class PassEnded:
    """The service has gone: in peace, or with a `problem` (`code`: the HTTP status or close code)."""

    problem: str | None
    code: int | None = None


ShellFact = (
    AgentReserved
    | AgentAttached
    | AgentGone
    | Killed
    | BadCommand
    | PingSent
    | AnnounceFailed
    | LegReady
    | LegUnusable
    | PeerDescribed
    | SetupFailed
    | Broken
    | TrackStopped
    | TrackFinishing
    | TrackPlayedOut
    | TrackDry
    | TrackSounding
    | TrackBegun
    | TrackFailed
    | EntryWritten
    | EntrySounding
    | EntrySynthesized
    | EntryFailed
    | Heard
    | ListeningEnded
    | ListeningFailed
    | PassEnded
    | RecordingFailed
    | KeyFailed
)
Input = Command | SipFact | MediaFact | PeerFact | ShellFact

# -- effects --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Tell:
    """Send an event to the agent."""

    event: Event


@attrs.frozen
class Announce:
    """Tell the webhook of this incoming call; `AnnounceFailed` comes back if nobody took it."""

    call: IncomingCall


@attrs.frozen
class PrepareDial:
    """Find `caller`'s way to `callee` and open a leg for it: `LegReady`, `LegUnusable` or `SetupFailed` comes back."""

    caller: Uri
    callee: Uri
    leg: str | None = None


@attrs.frozen
class OpenLeg:
    """Open the leg, or say again that it is open: `LegReady` or `LegUnusable` comes back at once."""

    host: str


@attrs.frozen
class OpenStream:
    """Open a leg whose audio, in `codec`, is in the agent's own socket: `LegReady` or `LegUnusable` comes back."""

    codec: str


@attrs.frozen
class OpenPeer:
    """Open a leg to the browser that offers this, or say that it is open: `PeerReady` or `LegUnusable` comes back.

    `signalled_from` is where the offer came from, "" if it was the agent. `patience` in seconds, see `PeerWish`.
    """

    offer: PeerOffer
    signalled_from: str
    ipv6: bool
    patience: float


@attrs.frozen
class DescribePeer:
    """The browser offers anew; `PeerDescribed` comes back at once."""

    offer: PeerOffer


@attrs.frozen
class TricklePeer:
    """The browser has found these addresses, too."""

    candidates: tuple[Candidate, ...]


@attrs.frozen
class SetRemote:
    """Audio flows as agreed from now on."""

    media: MediaFormat
    leg: str | None = None


@attrs.frozen
class JoinLeg:
    """Let the remote party hear the refer leg from now on, and with `both` the refer leg hear it, too."""

    leg: str
    both: bool


@attrs.frozen
class CloseLeg:
    """Give the leg back: nothing is sent or heard any more."""

    leg: str | None = None


@attrs.frozen
class WatchSpeech:
    """Report when the remote party speaks."""

    params: VadParams


@attrs.frozen
class Denoise:
    """Take the noise out of what the remote party says."""

    leg: str | None = None


@attrs.frozen
class SeekTones:
    """Look for keys in the audio of the remote party, too."""


@attrs.frozen
class SeekBeeps:
    """Look for the beep of an answering machine."""


@attrs.frozen
class SetMute:
    """From now on what the remote party says (`heard`) or what we say (`played`) is silence, or is not."""

    heard: bool
    played: bool


@attrs.frozen
class PressKey:
    """Press a key for `duration` ms, then `gap` ms of silence: `KeyReleased` comes after that, `KeyFailed` at once."""

    digit: str
    duration: int
    gap: int
    inband: bool = False
    leg: str | None = None


@attrs.frozen
class ReleaseKeys:
    """Let go of the key that is down."""


@attrs.frozen
class Listen:
    """Transcribe the remote party from now on."""

    option: TranscriptionOption
    leg: str | None = None


@attrs.frozen
class LimitSilence:
    """Report when nothing comes from the far end for so many seconds."""

    seconds: float


@attrs.frozen
class CopyAudio:
    """Copy what both sides say to the agent from now on."""


@attrs.frozen
class PassMedia:
    """Pass the call's audio to and from the agent's own service, until it has gone (`PassEnded`) or is stopped."""

    option: MediaPassOption


@attrs.frozen
class FlushPass:
    """Send nothing more of what has come from that service so far."""


@attrs.frozen
class StopPass:
    """Leave that service."""


@attrs.frozen
class Record:
    """Record both sides from now on, until the leg is closed; `RecordingFailed` comes back if that goes wrong."""

    option: RecorderOption


@attrs.frozen
class Entry:
    """One thing to say within a playback: text, or `pcm` (s16le mono 16 kHz) in its place.

    `cache_key` replaces the cache's own; `said_at` is when the agent's command came, on the call's clock.
    """

    number: int
    text: str
    option: SynthesisOption
    pcm: bytes | None = None
    cache_key: str | None = None
    said_at: float = 0.0


@attrs.frozen
class SpeakTrack:
    """A playback of utterances, at most `concurrency` of them in synthesis at once.

    With `streaming` they are the pieces of one text, spoken in one flow with the first one's voice.
    """

    concurrency: int = 1
    streaming: bool = False


@attrs.frozen
class FileTrack:
    """A playback of one file, again and again if `loop`."""

    url: str
    loop: bool = False


@attrs.frozen
class StartTrack:
    """Begin a playback on the server-side track."""

    generation: int
    content: SpeakTrack | FileTrack


@attrs.frozen
class Say:
    """Add an utterance to a `SpeakTrack`."""

    generation: int
    entry: Entry


@attrs.frozen
class FinishTrack:
    """Nothing more will be added; `TrackPlayedOut` when the last frame has left."""

    generation: int


@attrs.frozen
class StopTrack:
    """Cut a playback now; `TrackStopped` comes back at once."""

    generation: int


@attrs.frozen
class PauseTrack:
    """Send nothing of a playback, and lose nothing of it, until `ResumeTrack`."""

    generation: int


@attrs.frozen
class ResumeTrack:
    """Go on from where `PauseTrack` held."""

    generation: int


@attrs.frozen
class FinishEntry:
    """Let the entry being spoken end and drop the rest: `TrackFinishing`, or `TrackStopped`, comes back at once."""

    generation: int


Effect = (
    Wish
    | Tell
    | Announce
    | PrepareDial
    | OpenLeg
    | OpenStream
    | OpenPeer
    | DescribePeer
    | TricklePeer
    | SetRemote
    | JoinLeg
    | CloseLeg
    | WatchSpeech
    | Denoise
    | SeekTones
    | SeekBeeps
    | SetMute
    | PressKey
    | ReleaseKeys
    | Listen
    | CopyAudio
    | PassMedia
    | FlushPass
    | StopPass
    | Record
    | LimitSilence
    | StartTrack
    | Say
    | FinishTrack
    | PauseTrack
    | ResumeTrack
    | StopTrack
    | FinishEntry
)
