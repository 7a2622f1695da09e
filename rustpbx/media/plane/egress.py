"""From the sources to the sockets: each sending leg gets a frame every tick, of its source or of silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import numpy as np

from rustpbx.errors import MediaError
from rustpbx.media.events import KeyReleased
from rustpbx.media.plane import stages
from rustpbx.media.plane.bank import KEPT, MOST_FRAMES, PLAYOUT, Bank
from rustpbx.media.plane.bridging import Bridging
from rustpbx.media.plane.keypad import EventPacket, Released, Sound
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.outlet import Outlet
from rustpbx.media.plane.port import Parcel
from rustpbx.media.plane.stages import FRAME, HEADER, Bytes, Flags, Slots
from rustpbx.media.plane.stream import Stream
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.srtp import Job, overhead, pointers, seal_all

MOST_PAYLOAD = MOST_FRAMES * FRAME
"""Bytes of the longest payload that we send."""

LOW = 4
"""Frames in a playout ring below which it is filled up from the spool. Looked at in each tick, so that one would do."""


@attrs.frozen
class _Plan:
    """What a tick sends, and which of it has to be sealed before: `sealed` are the indices of `jobs` in `parcels`."""

    slots: bytes = b""
    parcels: list[Parcel] = attrs.field(factory=list)
    jobs: list[Job] = attrs.field(factory=list)
    sealed: list[int] = attrs.field(factory=list)


class Egress:
    """The speaking side of the tick. `guard(step, slots)` runs a step, and again row by row if it raises."""

    def __init__(
        self,
        bank: Bank,
        outlet: Outlet,
        counters: Counter[str],
        guard: Callable[[Callable[[Slots], None], Slots], None],
        bridging: Bridging,
    ) -> None:
        self._bank = bank
        self._bridging = bridging
        self._outlet = outlet
        self._counters = counters
        self._guard = guard
        self._legs: dict[int, Leg] = {}
        self._parcels: dict[int, Parcel] = {}
        self._places = pointers(bank.packets)
        self._planned = _Plan()
        self._pressing: dict[int, Leg] = {}  # legs that press keys
        self._events: set[int] = set()  # those of them that send an event in this tick, and no audio
        self._instead: dict[int, Bytes] = {}  # what others of them send in place of what is played
        self._overheard = False
        self.frames_due = 0
        self.frames_sent = 0

    def add(self, leg: Leg) -> None:
        """This leg exists."""
        self._legs[leg.slot] = leg

    def remove(self, leg: Leg) -> None:
        """It does no more."""
        self._legs.pop(leg.slot, None)
        self._parcels.pop(leg.slot, None)
        self._pressing.pop(leg.slot, None)
        self._planned = _Plan()

    def press(self, leg: Leg) -> None:
        """The leg's keypad has something to do."""
        self._pressing[leg.slot] = leg

    def route(self, leg: Leg) -> None:
        """The leg's destination, packet time or key has changed: build anew what the send loop uses."""
        if leg.destination is None:
            return
        size = self._size(leg.slot) + (overhead(leg.sealer.key.suite) if leg.sealer else 0)
        packet = memoryview(self._bank.packets[leg.slot])[:size]
        self._parcels[leg.slot] = (leg.rtp, packet, leg.destination)
        self._planned = _Plan()

    def _size(self, slot: int) -> int:
        """Bytes of a slot's RTP packets."""
        return HEADER + FRAME * int(self._bank.frames[slot])

    def speak(self) -> None:
        """Send what is due in this tick."""
        bank = self._bank
        self._overheard = bool(bank.overheard.any())
        if self._overheard:
            self._begin_silent()
        slots = np.flatnonzero(bank.sending)
        if slots.size:
            speaking = self._press(slots) if self._pressing else slots
            if bank.coders:
                coded = bank.coded[speaking]
                self._guard(self._speak_coded, speaking[coded])
                speaking = speaking[~coded]
            self._guard(self._speak, speaking)
            self._guard(self._tend, slots)
        bank.rtp_time += bank.step

    def skip(self, ticks: int) -> None:
        """So many ticks are left out: RTP time goes on, no content is lost, the next packet starts a talk spurt."""
        bank = self._bank
        bank.rtp_time += bank.step * ticks
        bank.marker |= bank.sending
        self.frames_due += ticks * int(bank.sending.sum())

    def _speak(self, slots: Slots) -> None:
        bank = self._bank
        playing = bank.playout_count[slots] > 0
        if self._instead:
            playing &= ~np.isin(slots, list(self._instead))
        phase = bank.phase[slots]
        full = slots[phase + 1 >= bank.frames[slots]]
        # What can raise comes first, so that a second run, row by row, finds everything as it was.
        encoded = self._encoded(slots, playing)
        plan = self._plan(full)
        bank.payload[slots, phase] = encoded
        if self._overheard:
            self._note(slots, encoded)
        players = slots[playing]
        bank.playout_head[players] = (bank.playout_head[players] + 1) % PLAYOUT
        bank.playout_count[players] -= 1
        bank.unsent[players] += 1
        bank.marker[slots] |= playing & ~bank.talking[slots]
        bank.talking[slots] = playing
        first = slots[phase == 0]
        bank.stamp[first] = bank.rtp_time[first]
        bank.phase[slots] = phase + 1
        if plan.parcels:
            self._send(full, plan)

    def _begin_silent(self) -> None:
        """Whoever listens to what we send hears silence, unless something is sent in this tick."""
        bank = self._bank
        slots = np.flatnonzero(bank.overheard)
        bank.said[slots, bank.tick % KEPT] = 0
        for slot in slots[bank.coded[slots]].tolist():
            bank.coders[slot].said[bank.tick % KEPT] = 0

    def _note(self, slots: Slots, encoded: Bytes) -> None:
        """Keep what is sent for those who listen to it."""
        bank = self._bank
        overheard = bank.overheard[slots]
        slots = slots[overheard]
        if slots.size:
            bank.said[slots, bank.tick % KEPT] = stages.decode(encoded[overheard], bank.law_out[slots])

    def _plan(self, slots: Slots) -> _Plan:
        """What to send where: nearly always the same as in the tick before."""
        key = slots.tobytes()
        if key != self._planned.slots:
            parcels = [self._parcels[slot] for slot in slots.tolist()]
            sealers = [(at, slot, self._legs[slot].sealer) for at, slot in enumerate(slots.tolist())]
            jobs = [sealer.job(self._places[slot], self._size(slot)) for _, slot, sealer in sealers if sealer]
            self._planned = _Plan(key, parcels, jobs, [at for at, _, sealer in sealers if sealer])
        return self._planned

    def _encoded(self, slots: Slots, playing: Flags) -> Bytes:
        bank = self._bank
        if playing.all():
            return bank.playout[slots, bank.playout_head[slots]]
        encoded = stages.silence(bank.law_out[slots])
        players = slots[playing]
        encoded[playing] = bank.playout[players, bank.playout_head[players]]
        if self._bridging.wanted:
            self._bridging.encode(slots, ~playing, encoded)
        for slot, codes in self._instead.items():
            encoded[slots == slot] = codes
        return encoded

    # -- keys

    def _press(self, slots: Slots) -> Slots:
        """Let each leg that presses keys take its step; the slots that send audio all the same."""
        self._events.clear()
        self._instead.clear()
        for slot in slots.tolist():
            if slot in self._pressing:
                self._guard(self._step_keys, np.array([slot], np.intp))
        return slots[~np.isin(slots, list(self._events))] if self._events else slots

    def _step_keys(self, slots: Slots) -> None:
        """What is played waits while a key is down and in the gap behind it: nothing of it is lost."""
        slot = int(slots[0])
        leg, bank = self._pressing[slot], self._bank
        now, rate, boundary = int(bank.rtp_time[slot]), leg.clock_rate, not bank.phase[slot]
        step = leg.keypad.step(now, rate, boundary=boundary, event_rate=leg.format.dtmf_rate if leg.format else None)
        match step:
            case EventPacket():
                self._events.add(slot)
                bank.talking[slot] = False
                self._send_event(leg, step)
            case Sound(pcm=pcm) if slot in bank.coders:
                self._instead[slot] = np.frombuffer(bank.coders[slot].encode_narrow(pcm), np.uint8)
            case Sound(pcm=pcm):
                self._instead[slot] = stages.LAWS[bank.law_out[slot]].encode(pcm)
            case Released(told=digit):
                if digit is not None:
                    leg.tell(KeyReleased(leg.name, digit))
        if not leg.keypad.busy:
            self._pressing.pop(slot, None)

    def _send_event(self, leg: Leg, event: EventPacket) -> None:
        """One telephone-event packet, in the sequence of the audio (RFC 4733 2.2)."""
        bank, slot = self._bank, leg.slot
        assert leg.format is not None  # noqa: S101 - a leg that sends has one
        if leg.format.send_dtmf_pt is None or leg.destination is None:  # a new agreement has none: the key is gone
            leg.keypad.release()
            return
        packet = RtpPacket(
            payload_type=leg.format.send_dtmf_pt,
            sequence=int(bank.sequence[slot]) & 0xFFFF,
            timestamp=event.rtp_time & 0xFFFFFFFF,
            ssrc=leg.ssrc,
            payload=event.payload,
            marker=event.marker,
        )
        data = build_rtp(packet)
        sealed = data if leg.sealer is None else leg.sealer.sealed(data)
        bank.sequence[slot] += 1
        self.frames_due += 1
        if sealed is None:
            self._counters["srtp_not_sealed"] += 1
        elif not self._outlet.send(leg.rtp, sealed, leg.destination):
            self._counters["sends_refused"] += 1
        else:
            self.frames_sent += 1
            bank.sent[slot] += 1
            bank.octets[slot] += len(event.payload)

    # -- legs with a coder

    def _speak_coded(self, slots: Slots) -> None:
        """A frame and a packet for each: of what is played, of silence, or nothing if the codec wants none for that."""
        bank = self._bank
        bank.size[slots] = 0
        if self._bridging.wanted:
            self._bridging.widen(slots)
        for index in range(slots.size):
            self._guard(self._encode, slots[index : index + 1])  # not twice for all: coders remember what they did
        silent = slots[bank.size[slots] == 0]
        bank.played[silent] += bank.unsent[silent]
        bank.unsent[silent] = 0
        full = slots[bank.size[slots] > 0]
        bank.stamp[full] = bank.rtp_time[full]
        if full.size:
            self._send(full, self._plan_coded(full))

    def _encode(self, slots: Slots) -> None:
        """Make one slot's next payload, and put it into its packet, or into its stream."""
        slot = int(slots[0])
        bank, coded, stream = self._bank, self._bank.coders[slot], self._legs[slot].stream
        playing = bool(bank.playout_count[slot]) and slot not in self._instead
        head = int(bank.playout_head[slot])
        if slot in self._instead:
            payload = self._instead[slot].tobytes()
        elif playing:
            payload = coded.encode(head)
        elif (bridged := self._bridging.wide(slot)) is not None:
            payload = coded.encode_wide(bridged)
        else:
            payload = b"" if stream is not None else coded.encode_silence()
        if stream is None and len(payload) > MOST_PAYLOAD:
            raise MediaError(f"a payload of {len(payload)} bytes for 20 ms")
        if playing:
            bank.playout_head[slot] = (head + 1) % PLAYOUT
            bank.playout_count[slot] -= 1
            bank.unsent[slot] = 1
        bank.marker[slot] |= playing and not bank.talking[slot]
        bank.talking[slot] = playing
        if stream is None:
            bank.size[slot] = len(payload)
            bank.packets[slot, HEADER : HEADER + len(payload)] = np.frombuffer(payload, np.uint8)
        elif payload:
            self._pour(slot, stream, payload)

    def _pour(self, slot: int, stream: Stream, payload: bytes) -> None:
        """Give a stream what is played; it gets nothing while nothing is."""
        bank = self._bank
        stream.sink(payload)
        self.frames_due += 1
        self.frames_sent += 1
        bank.sent[slot] += 1
        bank.octets[slot] += len(payload)

    def _plan_coded(self, slots: Slots) -> _Plan:
        """Their packets have another size each time."""
        plan = _Plan(slots.tobytes())
        for at, slot in enumerate(slots.tolist()):
            leg, size = self._legs[slot], HEADER + int(self._bank.size[slot])
            assert leg.destination is not None  # noqa: S101 - a leg that sends has one
            if leg.sealer is not None:
                plan.jobs.append(leg.sealer.job(self._places[slot], size))
                plan.sealed.append(at)
                size += overhead(leg.sealer.key.suite)
            plan.parcels.append((leg.rtp, memoryview(self._bank.packets[slot])[:size], leg.destination))
        return plan

    # -- packets

    def _send(self, slots: Slots, plan: _Plan) -> None:
        """Write the headers of full packets, seal and send them, always in the order of their slots."""
        bank = self._bank
        stages.write_headers(
            bank.packets,
            slots,
            marker=bank.marker[slots],
            payload_type=bank.send_pt[slots],
            sequence=bank.sequence[slots],
            rtp_time=bank.stamp[slots],
            ssrc=bank.ssrc_out[slots],
        )
        unsealed = seal_all(plan.jobs)
        refused = self._send_sealed(plan, unsealed) if unsealed else self._outlet.send_all(plan.parcels)
        frames = bank.frames[slots]
        self.frames_due += int(frames.sum())
        bank.phase[slots] = 0
        bank.marker[slots] = False
        bank.sequence[slots] += 1
        if refused:
            self._counters["sends_refused"] += len(refused)
            bank.unsent[slots[refused]] = 0
            slots = np.delete(slots, refused)
            frames = bank.frames[slots]
        self.frames_sent += int(frames.sum())
        bank.sent[slots] += 1
        bank.octets[slots] += np.where(bank.coded[slots], bank.size[slots], frames * FRAME)
        bank.played[slots] += bank.unsent[slots]
        bank.unsent[slots] = 0

    def _send_sealed(self, plan: _Plan, refused: list[int]) -> list[int]:
        """Send all but the jobs that could not be sealed, which must not leave as they are; what was not sent."""
        self._counters["srtp_not_sealed"] += len(refused)
        unsealed = {plan.sealed[job] for job in refused}
        left = [at for at in range(len(plan.parcels)) if at not in unsealed]
        unsent = self._outlet.send_all([plan.parcels[at] for at in left])
        return sorted([*unsealed, *(left[at] for at in unsent)])

    def _tend(self, slots: Slots) -> None:
        """Fill up low rings, and tell sources whose last frame has gone."""
        bank = self._bank
        count = bank.playout_count[slots]
        low = bank.spooled[slots] & (count < LOW)
        over = bank.closing[slots] & (count == 0) & (bank.unsent[slots] == 0)
        begun = bank.beginning[slots] & (bank.played[slots] > 0)
        for slot in slots[low | over | begun].tolist():
            leg = self._legs.get(slot)
            if leg is not None and leg.source is not None:
                leg.source.refill()
