"""A call core on a bench: inputs in, effects out, with the shell's immediate answers played by hand."""

from __future__ import annotations

from typing import Any

from rustpbx.core import Tick
from rustpbx.session import commands, effects
from rustpbx.session.call import CallConfig, CallCore
from rustpbx.session.effects import Effect, Input
from rustpbx.session.events import ErrorEvent, Event
from rustpbx.session.options import CallOption
from rustpbx.sip import events as sip
from rustpbx.sip.message import NameAddr
from rustpbx.sip.uri import parse_uri
from tests.kit.rounds import while_it_lasts

OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
NO_AUDIO = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=video 4000 RTP/AVP 96\r\n"
    b"a=rtpmap:96 VP8/90000\r\n"
)


def wall(now: float) -> int:
    """Epoch milliseconds that are easy to read: the monotonic ones plus a million."""
    return 1_000_000 + round(now * 1000)


class Bench:
    """One `CallCore`. `spoken` is what the plane reports when a playback is cut."""

    def __init__(self, session_id: str = "s1", *, default_voice: bool = True, dtmf_inband: bool = False) -> None:
        config = CallConfig(
            session_id=session_id,
            server_side_track="T",
            address="sip:rustpbx@192.0.2.1:5060",
            default_voice=default_voice,
            dtmf_inband=dtmf_inband,
        )
        self.now = 10.0
        self.core = CallCore(config, wall, 42, self.now)
        self.spoken: effects.Spoken | None = None
        self.leg: effects.LegReady | effects.LegUnusable = effects.LegReady("192.0.2.1", 12000, 77)

    def give(self, *inputs: Input) -> list[Effect]:
        """Hand over inputs and return all effects, the immediate answers' included."""
        out: list[Effect] = []
        pending: list[Any] = list(inputs)
        while pending:
            done = self.core.handle(pending.pop(0), self.now)
            out += done
            pending[:0] = [answer for answer in map(self._answer, done) if answer is not None]
        return out

    def _answer(self, effect: Effect) -> Input | None:
        match effect:
            case effects.OpenLeg():
                return self.leg
            case effects.StopTrack():
                return effects.TrackStopped(effect.generation, self.spoken)
            case effects.FinishEntry() if self.spoken is not None:
                return effects.TrackFinishing(effect.generation, self.spoken)
            case effects.FinishEntry():
                return effects.TrackStopped(effect.generation, None)
        return None

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass, stopping at every deadline on the way."""
        end, out = self.now + seconds, []
        for _ in while_it_lasts(lambda: self.core.deadline().at <= end):
            self.now = self.core.deadline().at
            out += self._tick()
        self.now = end
        return out

    def _tick(self) -> list[Effect]:
        out = self.core.handle(Tick(), self.now)
        for effect in list(out):
            answer = self._answer(effect)
            if answer is not None:
                out += self.give(answer)
        return out

    def incoming(self, offer: bytes = OFFER) -> list[Effect]:
        """A phone rings."""
        return self.give(
            sip.IncomingCall(
                leg=self.core.id,
                caller=NameAddr(parse_uri("sip:phone@192.0.2.9")),
                callee=NameAddr(parse_uri("sip:800@192.0.2.1")),
                headers=(),
                offer=offer,
                source=("192.0.2.9", 5060),
                local_host="192.0.2.1",
            )
        )

    def attach(self) -> list[Effect]:
        """An agent connects."""
        return self.give(effects.AgentReserved(), effects.AgentAttached())


def told(out: list[Effect]) -> list[Event]:
    """The events among effects."""
    return [effect.event for effect in out if isinstance(effect, effects.Tell)]


def names(out: list[Effect]) -> list[str]:
    """The events' names, in order."""
    return [event.name for event in told(out)]


def errors(out: list[Effect]) -> list[tuple[str, str]]:
    """Sender and text of the `error` events among effects."""
    return [(event.sender, event.error) for event in told(out) if isinstance(event, ErrorEvent)]


def wishes(out: list[Effect]) -> list[Effect]:
    """What goes to SIP."""
    return [effect for effect in out if type(effect).__module__ == sip.__name__]


def talking(option: CallOption | None = None, *, default_voice: bool = True) -> Bench:
    """A call in conversation."""
    bench = Bench(default_voice=default_voice)
    bench.incoming()
    bench.attach()
    bench.give(commands.Accept(option=option or CallOption()))
    return bench


def track_work(out: list[Effect]) -> list[str]:
    """The playback effects' names, in order."""
    kinds = (
        effects.StartTrack,
        effects.Say,
        effects.FinishTrack,
        effects.StopTrack,
        effects.FinishEntry,
        effects.PauseTrack,
        effects.ResumeTrack,
        effects.SetMute,
    )
    return [type(effect).__name__ for effect in out if isinstance(effect, kinds)]
