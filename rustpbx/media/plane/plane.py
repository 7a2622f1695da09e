"""`Plane`: every call's audio behind one narrow interface, stepped by one clock.

Legs are opened and closed, told where their peer is, given a source to play, listened to by taps, watched for speech.
Facts (`rustpbx.media.events`) come back through the channel that each leg was opened with. Nothing here waits for a
call, and no call can stop another: what raises for one leg ejects that leg (`LegFailed`).
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import trio

from rustpbx.core import Address
from rustpbx.errors import MediaError
from rustpbx.journal import Journal
from rustpbx.media.codec.registry import make_stream_coder
from rustpbx.media.events import Fact, LegFailed, LegOpened, LegStats, MediaFormat, VadParams
from rustpbx.media.plane.bank import Bank
from rustpbx.media.plane.binding import Bindings
from rustpbx.media.plane.bridging import Bridging
from rustpbx.media.plane.clock import Lateness, MediaClock
from rustpbx.media.plane.egress import Egress
from rustpbx.media.plane.foresight import Foresight
from rustpbx.media.plane.hearing import Hearing
from rustpbx.media.plane.ingress import Ingress
from rustpbx.media.plane.leg import Aside, Leg, Watch
from rustpbx.media.plane.outlet import Carrier, Outlet
from rustpbx.media.plane.port import Ports
from rustpbx.media.plane.report import Reporter
from rustpbx.media.plane.reporting import Reporting
from rustpbx.media.plane.source import Source
from rustpbx.media.plane.stages import Slots
from rustpbx.media.plane.stream import FORMATS, Stream
from rustpbx.media.plane.tap import Tap
from rustpbx.media.plane.traffic import Ledger, Traffic
from rustpbx.media.plane.vigil import Vigil
from rustpbx.media.vad.activity import Activity
from rustpbx.media.vad.detector import ENGINES, frame_length, make_detector
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Datagrams
from rustpbx.shell.offload import InlineOffload, Offload

log = Journal(__name__)


@attrs.frozen(kw_only=True)
class PlaneConfig:
    """Where and how many. `first_port`..`last_port` is the range of RTP (even) and RTCP (odd) ports on `host`;
    `quarantine` is the seconds that a closed port rests. After `media_timeout` seconds without a packet of the peer's,
    a leg is said to be silent (None: never).
    """

    host: str = "127.0.0.1"
    first_port: int = 12000
    last_port: int = 42000
    max_calls: int = 500
    quarantine: float = 30.0
    media_timeout: float | None = None


class Plane:
    """All legs of this process. Everything but `run` and `source` is synchronous and done when it returns."""

    def __init__(
        self, ports: Ports, clock: Clock, config: PlaneConfig, rng: random.Random, offload: Offload | None = None
    ) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._ports = ports
        self._clock = clock
        self._rng = rng
        self._bank = Bank(config.max_calls)
        self._bindings = Bindings(ports, config.host, config.first_port, config.last_port, config.quarantine, rng)
        self._outlet = Outlet(ports)
        self._legs: dict[str, Leg] = {}
        self._ledger = Ledger()
        self._by_slot: dict[int, Leg] = {}
        self._bridging = Bridging(self._bank)
        self._egress = Egress(self._bank, self._outlet, self.counters, self._guard, self._bridging)
        threads = offload or InlineOffload()
        self._hearing = Hearing(self._bank, self.counters, self._guard, self._eject, threads)
        self._foresight = Foresight(self._bank, self.counters, threads)
        self._ingress = Ingress(self._bank, ports, self.counters, eject=self._eject, route=self._egress.route)
        self._vigil = Vigil(config.media_timeout)
        self._media_clock = MediaClock(self, clock)
        self._reporting = Reporting(self._bank, self._outlet, self.counters, rng, self._eject)
        # NTP wants finer steps than the clock's milliseconds: one offset, then differences.
        self._epoch = clock.wall(clock.now()) / 1000 - clock.now()

    # -- metrics

    @property
    def lateness(self) -> Lateness:
        """How late the ticks of the last minute began."""
        return self._media_clock.lateness

    @property
    def frames_due(self) -> int:
        """20 ms frames that were to be sent so far, those of skipped ticks included."""
        return self._egress.frames_due

    @property
    def frames_sent(self) -> int:
        """20 ms frames really sent so far."""
        return self._egress.frames_sent

    @property
    def clock(self) -> MediaClock:
        """The clock's counters: ticks, failed, skipped and slow ones."""
        return self._media_clock

    @property
    def legs(self) -> int:
        """How many legs are open."""
        return len(self._legs)

    def traffic(self) -> Traffic:
        """What all legs together sent and received, those that are closed included."""
        return self._ledger.total([leg.stats() for leg in self._legs.values()])

    # -- the clock

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The clock, and beside it what takes longer than a tick: until cancelled, whatever happens in them."""
        async with trio.open_nursery() as nursery:
            self._think(nursery)
            await self._media_clock.run(task_status=task_status)

    async def deliberate(self) -> None:
        """Do what neural networks are waited for, until cancelled: a part of `run`, for whoever ticks by hand."""
        async with trio.open_nursery() as nursery:
            self._think(nursery)

    def _think(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._hearing.deliberation.run)
        nursery.start_soon(self._hearing.denoising.run)
        nursery.start_soon(self._foresight.run)

    def tick(self, due: float) -> None:
        """One step of 20 ms; `due` is the time it stands for. Called by the clock."""
        self._bank.tick += 1
        self._egress.speak()  # first: what is heard takes longer at one time than at another
        self._ingress.drain(due, due + self._epoch)
        self._hearing.hear(due)
        self._reporting.report(due, due + self._epoch)
        self._vigil.look(self._legs.values(), due)
        self._foresight.look()

    @property
    def idle(self) -> bool:
        """Whether no leg is open, or nothing could be heard of any. Asked by the clock."""
        return not self._legs or self._ports.silent

    def skip(self, ticks: int) -> None:
        """Leave out `ticks` steps. Called by the clock."""
        self._egress.skip(ticks)

    # -- legs

    def open_leg(self, leg: str, facts: trio.MemorySendChannel[Fact]) -> LegOpened:
        """Bind an even port and the next one for a new leg and give it a slot. It is silent until `set_remote`.

        Raises `OverloadedError` if there is no slot or no port, `MediaError` if the leg is open already.
        """
        slot = self._take(leg)
        try:
            bound = self._bindings.bind(self._clock.now())
        except BaseException:
            self._bank.give(slot)
            raise
        opened = self._new_leg(leg, slot, facts, rtp=bound.rtp, rtcp=bound.rtcp, bound=bound, former=bound.former)
        return LegOpened(leg, bound.port, opened.ssrc)

    def open_carried(self, leg: str, carrier: Carrier, facts: trio.MemorySendChannel[Fact]) -> LegOpened:
        """Give a leg whose packets come and go by somebody else's path (ICE) a slot; its port is 0.

        `carrier` takes each packet that leaves, on the plane's tick: it must not wait. `arrive` brings those that come.
        Raises as `open_leg` does.
        """
        opened = self._new_leg(leg, self._take(leg), facts, rtp=self._outlet.connect(carrier), carrier=carrier)
        return LegOpened(leg, 0, opened.ssrc)

    def adopt(self, leg: str, sock: Datagrams, peer: Address, aside: Aside) -> None:
        """Carry a carried leg's packets ourselves from now on, those between `sock` and `peer`, with all the others'.

        `aside` is handed whatever else comes to `sock`, on the plane's tick, and where it came from. Until `give_back`,
        or the end of the leg, nobody else may receive there. Raises `MediaError` if there is no such leg.
        """
        found = self._find(leg)
        self.give_back(leg)
        self._outlet.disconnect(found.rtp)
        found.rtp, found.path, found.aside = self._ports.adopt(sock), peer, aside
        if not found.failed:
            self._ingress.attend(found)
        self._relocate(found)

    def give_back(self, leg: str) -> None:
        """Undo `adopt`: the carrier carries again. Raises `MediaError` if there is no such leg."""
        found = self._find(leg)
        if found.path is None or found.carrier is None:
            return
        self._ingress.leave(found)
        self._ports.close(found.rtp)
        found.rtp, found.path, found.aside = self._outlet.connect(found.carrier), None, None
        self._relocate(found)

    def _relocate(self, leg: Leg) -> None:
        if leg.format is not None:
            leg.locate(leg.format.remote, self._clock.now())
            self._egress.route(leg)

    def lend_port(self) -> int:
        """A port of our range for a carried leg's own sockets, until `return_port`. Raises `OverloadedError`."""
        return self._bindings.lend(self._clock.now())

    def return_port(self, port: int) -> None:
        """Let it rest like those of other legs."""
        self._bindings.take_back(port, self._clock.now())

    def arrive(self, leg: str, data: bytes) -> None:
        """A packet of RTP or RTCP came to a carried leg, from where only its peer can send. Too early ones are dropped.

        Raises `MediaError` if there is no such leg.
        """
        now = self._clock.now()
        self._ingress.take(self._find(leg), data, now, now + self._epoch)

    def open_stream(
        self, leg: str, codec: str, sink: Callable[[bytes], None], facts: trio.MemorySendChannel[Fact]
    ) -> None:
        """Give a leg without ports a slot: it hears what it is fed, and `sink` gets each 20 ms that it plays.

        `codec` is one of `pcm` (16-bit little-endian samples at 16 kHz), `pcmu`, `pcma`. Raises `OverloadedError` if
        there is no slot, `MediaError` if the leg is open already or there is no such codec.
        """
        coder = make_stream_coder(codec)
        slot = self._take(leg)
        stream = Stream(FORMATS[codec], sink)
        self._new_leg(leg, slot, facts, stream=stream).carry(coder)

    def feed(self, leg: str, data: bytes) -> None:
        """Let a leg without ports hear: any amount of its codec's audio, up to five seconds.

        Raises `MediaError` for more, for a part of a sample, or if there is no such leg.
        """
        found = self._find(leg)
        if found.stream is None:
            raise MediaError(f"media leg {leg!r} hears RTP")
        if not found.failed:
            self.counters["stream_frames_dropped"] += found.stream.feed(data)

    def set_remote(self, leg: str, media: MediaFormat) -> None:
        """Obey an agreement, the first or that of a re-INVITE: the peer's address is learned anew.

        Raises `MediaError` if there is no such leg, or no SRTP of the suite agreed on.
        """
        found = self._find(leg)
        first = found.format is None
        now = self._clock.now()
        found.agree(media, now)
        if found.failed:
            self._bank.silence(found.slot)
            return
        self._egress.route(found)
        self._hearing.deliberation.change_rate(found)
        if first:
            self._ingress.settle(found, now)
            self._reporting.begin(found, now)

    def close_leg(self, leg: str) -> LegStats:
        """Say RTCP BYE, stop source and taps, end reported speech, rest the port. An unknown leg has had no packets."""
        found = self._legs.pop(leg, None)
        if found is None:
            return LegStats()
        self._reporting.say(found, self._clock.now() + self._epoch, bye=True)
        stats = found.stats()
        self._ledger.close(stats)
        self._end(found)
        del self._by_slot[found.slot]
        self._ingress.remove(found)
        self._egress.remove(found)
        self._hearing.mute(found.slot, False)
        found.failed = True  # whatever still holds the leg does nothing with it
        if found.bound is not None:
            self._bindings.unbind(found.bound, found.believed, self._clock.now())
        if found.path is not None:
            self._ports.close(found.rtp)
        self._outlet.disconnect(found.rtp)
        self._bank.give(found.slot)
        return stats

    # -- audio

    @contextlib.asynccontextmanager
    async def source(self, leg: str, generation: int) -> AsyncIterator[Source]:
        """Play on a leg: `async with plane.source(leg, generation) as source`. A source before it is stopped.

        It waits while the leg has no peer yet or is held. Leaving the block stops it: nothing of it is sent after.
        A generation below the running one's is stale: its source is stopped from the start. Raises `MediaError` if
        there is no such leg.
        """
        found = self._find(leg)
        source = Source(self._bank, found.slot, found.playout, generation, muted=found.muted)
        running = found.source
        if found.failed or (running is not None and not running.stopped and running.generation > generation):
            source.stop()
        else:
            if running is not None:
                running.stop()
            self._bank.played[found.slot] = 0
            found.source = source
        try:
            yield source
        finally:
            source.stop()
            if found.source is source:
                found.source = None

    def mute(self, leg: str, *, heard: bool, played: bool) -> None:
        """Make silence of what is heard on a leg, of what is played on it, or of both; False undoes it.

        Raises `MediaError` if there is no such leg.
        """
        found = self._find(leg)
        if found.failed:
            return
        self._hearing.mute(found.slot, heard)
        found.muted = played
        self._bridging.mute(found)
        if found.source is not None:
            found.source.mute(played)

    def bridge(self, leg: str, other: str) -> None:
        """Send on `leg` what is heard on `other` from now on, whatever their codecs are; a source goes before it.

        It ends with either of them. Keys are not passed on, but for tones in the audio. Raises `MediaError` if there
        is no such leg.
        """
        found, heard = self._find(leg), self._find(other)
        if not found.failed and not heard.failed:
            self._bridging.join(found, heard)

    def press(self, leg: str, digit: str, *, duration: int = 160, gap: int = 80, inband: bool = False) -> None:
        """Press a key for `duration` ms, behind those that are pressed already; `KeyReleased` comes `gap` ms after it.

        It is an RFC 4733 event, or with `inband` two tones in the audio. What is played waits meanwhile. Nothing is
        pressed while our direction does not let us send. Raises `MediaError` if there is no such leg or digit, no
        telephone-event was agreed, or too many keys wait.
        """
        found = self._find(leg)
        if not inband and (found.format is None or found.format.send_dtmf_pt is None):
            raise MediaError("telephone-event was not agreed")
        found.keypad.press(digit, duration=duration, gap=gap, inband=inband)
        if not found.failed:
            self._egress.press(found)

    def release(self, leg: str) -> None:
        """Let the key that is down go up now, and press none that waits. Raises `MediaError` without such a leg."""
        self._find(leg).keypad.release()

    def tap(self, leg: str, *, seconds: float = 0.1, capacity: int = 50, played: bool = False) -> Tap:
        """Listen to a leg in blocks of `seconds`: `with plane.tap(leg) as tap`, then read `tap.blocks`.

        With `played` it is what we send: silence too, and while nothing is sent at all.

        Raises `MediaError` if there is no such leg or no such block size (20 to 500 ms).
        """
        found = self._find(leg)
        tap = Tap(seconds=seconds, capacity=capacity, played=played)
        if found.failed:
            tap.close()
        else:
            self._hearing.tap(found, tap)
        return tap

    def watch_speech(self, leg: str, params: VadParams) -> None:
        """Report speech and silence of a leg from now on, in place of what was watched before.

        An engine that cannot be had here is told by `WatchFailed`, as soon as that is known. Raises `MediaError` if
        there is no such leg, or no engine of that name.
        """
        found = self._find(leg)
        detector = None if params.engine in ENGINES else make_detector(params.engine)
        activity = Activity(leg, params, frame_length(params.engine))
        watch = Watch(params.engine, detector, activity, params.threshold)
        self._unwatch(found)
        if not found.failed:
            found.watch = watch
            self._hearing.listen(found)

    def seek_beeps(self, leg: str) -> None:
        """Look for the beep of an answering machine in the audio of a leg from now on: `BeepHeard`, as it ends.

        Raises `MediaError` if there is no such leg.
        """
        found = self._find(leg)
        if not found.failed:
            found.seeks_beeps = True
            self._hearing.seek_beeps(found)

    def denoise(self, leg: str) -> None:
        """Take the noise out of what is heard on a leg from now on; it is heard 60 ms later. DTMF is sought before it.

        Where that cannot be had, or goes wrong, `DenoiseFailed` is told and it is heard as it is. Raises `MediaError`
        if there is no such leg.
        """
        found = self._find(leg)
        if not found.failed:
            self._hearing.denoising.join(found)

    def limit_silence(self, leg: str, seconds: float) -> None:
        """Tell `MediaSilent` when so long nothing has come from the leg's peer, in place of `media_timeout`.

        Raises `MediaError` if there is no such leg.
        """
        self._find(leg).patience = seconds

    def seek_tones(self, leg: str) -> None:
        """Look for DTMF tones in the audio of a leg from now on: `DigitPressed` with `inband`.

        Raises `MediaError` if there is no such leg.
        """
        found = self._find(leg)
        if not found.failed:
            found.seeks_tones = True
            self._hearing.seek_tones(found)

    # -- inside

    def _take(self, leg: str) -> int:
        """A slot for a new leg."""
        if leg in self._legs:
            raise MediaError(f"media leg {leg!r} is open already")
        return self._bank.take()

    def _new_leg(self, name: str, slot: int, facts: trio.MemorySendChannel[Fact], **fields: Any) -> Leg:
        """A leg in `slot`, with a stream of its own to be: nothing of it can be guessed from another's."""
        ssrc, bank = self._rng.getrandbits(32), self._bank
        bank.ssrc_out[slot] = ssrc
        bank.sequence[slot] = self._rng.getrandbits(15)  # RFC 3711 3.3.1: room before the first wrap
        bank.rtp_time[slot] = self._rng.getrandbits(32)
        cname = f"{self._rng.getrandbits(64):016x}"  # RFC 7022: unlinkable, one for the life of the stream
        reporter = Reporter(ssrc, cname)
        leg = Leg(
            name=name, slot=slot, ssrc=ssrc, facts=facts, bank=bank, counters=self.counters, reporter=reporter, **fields
        )
        self._legs[name] = self._by_slot[slot] = leg
        self._ingress.add(leg)
        self._egress.add(leg)
        self._media_clock.wake()
        return leg

    def leg(self, name: str) -> Leg | None:
        """An open leg, to look at."""
        return self._legs.get(name)

    def _find(self, leg: str) -> Leg:
        try:
            return self._legs[leg]
        except KeyError:
            raise MediaError(f"there is no media leg {leg!r}") from None

    def _unwatch(self, leg: Leg) -> None:
        if leg.watch is not None:
            for fact in leg.watch.activity.finish(self._hearing.heard_at(leg.slot)):
                leg.tell(fact)
            leg.watch = None
            self._hearing.listen(leg)

    def _end(self, leg: Leg) -> None:
        """Stop whatever the leg does, but keep its slot and ports."""
        if leg.source is not None:
            leg.source.stop()
        if not leg.failed:
            self._hearing.flush(leg)
        for tap in list(leg.taps):
            tap.close()
        leg.taps.clear()
        self._bridging.remove(leg)
        self._unwatch(leg)
        self._hearing.denoising.leave(leg.slot)
        leg.seeks_tones = False
        self._hearing.seek_tones(leg)
        leg.seeks_beeps = False
        self._hearing.seek_beeps(leg)
        self._bank.silence(leg.slot)

    def _guard(self, step: Callable[[Slots], None], slots: Slots) -> None:
        """Run a step over all rows; if it raises, over each row alone, and eject those that raise."""
        try:
            step(slots)
        except Exception:  # noqa: BLE001 - the row at fault is found below, and reported there
            for index in range(slots.size):
                try:
                    step(slots[index : index + 1])
                except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
                    leg = self._by_slot.get(int(slots[index]))
                    if leg is None:
                        self._bank.silence(int(slots[index]))
                    else:
                        self._eject(leg, error)

    def _eject(self, leg: Leg, error: Exception) -> None:
        """This leg's processing raised: it does nothing more, its call is told, the others go on."""
        if leg.failed:
            return
        leg.failed = True
        self._ingress.remove(leg)
        self.counters["legs_failed"] += 1
        log.error("media leg ejected", call=leg.name, problem=error)
        try:
            self._end(leg)
        except Exception:
            log.exception("media leg could not be ended cleanly", call=leg.name)
            self._bank.silence(leg.slot)
        leg.tell(LegFailed(leg.name, f"{type(error).__name__}: {error}"))
