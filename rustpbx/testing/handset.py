"""A phone that is talked to in words: `says` and `hears` over a `Phone` and its audio.

    await phone.dials()
    await phone.hears("good morning")
    await phone.says("hello")
    await phone.hangs_up()

Times are virtual seconds. What cannot be, or does not happen in time, raises `ScriptError`, which says what did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import trio

from rustpbx.errors import MediaError, RustpbxError
from rustpbx.media.events import Direction, Pcm
from rustpbx.sip import events as sip
from rustpbx.sip.message import Lines
from rustpbx.testing.line import RATE, AudioLine, Heard, Spoken
from rustpbx.testing.phone import CallRefusedError, Ending, Phone, PhoneCall, State
from rustpbx.testing.script import PATIENCE, ScriptError, find, quoted
from rustpbx.testing.voice import Ear, spoken
from rustpbx.testing.wire import Link

LATE = round(0.1 * RATE)
"""A packet that is this many samples behind the newest is lost: the ear goes on without it."""

SENDING = (Direction.SENDRECV, Direction.SENDONLY)


class LineEar:
    """Reads the words that an `AudioLine` hears, packet by packet."""

    def __init__(self, line: AudioLine) -> None:
        self._line = line
        self._ear = Ear(RATE)
        self._last: Heard | None = None
        self._waiting: dict[int, Pcm] = {}  # by position: packets behind a gap
        self._at = 0

    @property
    def text(self) -> str:
        """Everything heard so far."""
        self._catch_up()
        return self._ear.text

    def finish(self) -> None:
        """The line is dead: hear what is left of it."""
        self._catch_up()
        self._play(math.inf)
        self._ear.finish()

    def _catch_up(self) -> None:
        new: list[Heard] = []
        for heard in reversed(self._line.heard):
            if heard is self._last:
                break
            new.append(heard)
        for heard in reversed(new):
            self._last = heard
            self._waiting[heard.position] = heard.pcm
            self._play(heard.position - LATE)

    def _play(self, give_up: float) -> None:
        """Hear packets in their order; a gap is waited for until `give_up` is behind it, and then it is silence."""
        for position in sorted(self._waiting):
            if position > self._at and position > give_up:
                return
            pcm = self._waiting.pop(position)
            if position > self._at:
                self._ear.feed(np.zeros(position - self._at, np.int16))
                self._at = position
            fresh = pcm[max(0, self._at - position) :]
            self._ear.feed(fresh)
            self._at += len(fresh)


class Handset:
    """One phone and its one call at a time. `call` is the SIP side of that call, `phone` the phone itself."""

    def __init__(
        self, phone: Callable[[], Phone], home: Callable[[], str], weather: Callable[[Link], None], name: str = "phone"
    ) -> None:
        self.name = name
        self._get_phone = phone
        self._home = home
        self._weather = weather
        self.forget()

    def forget(self) -> None:
        """Be a phone that has had no call."""
        self._call: PhoneCall | None = None
        self._ear: LineEar | None = None
        self._found = 0

    def __repr__(self) -> str:
        return f"<{self.name}: {self.tells()}>"

    def tells(self) -> str:
        """Where its call stands and what it heard, in a line."""
        if self._call is None:
            return "no call"
        state = self._call.state.value if self._call.ending is None else _how(self._call.ending)
        return f"{state}, heard {quoted(self.heard)}"

    @property
    def phone(self) -> Phone:
        """The phone, for what has no word here."""
        return self._get_phone()

    @property
    def call(self) -> PhoneCall:
        """The call that is up, or was last. Raises `ScriptError` before the first."""
        if self._call is None:
            raise ScriptError(f"the {self.name} has no call: {self.name}.dials() or {self.name}.answers() first")
        return self._call

    @property
    def heard(self) -> str:
        """All words of the call so far, as they came out of the audio."""
        return "" if self._ear is None else self._ear.text

    def weather(self, link: Link) -> None:
        """How datagrams fare between this phone and the server from now on."""
        self._weather(link)

    # -- the call -----------------------------------------------------------------------------------------------

    async def dials(self, uri: str | None = None, *, dtmf: bool = True, headers: Lines = ()) -> PhoneCall:
        """Call `uri`, or the server. Returns at once; `says` and `hears` wait for the answer.

        Without `dtmf` it is a phone that has no telephone-event; `headers` go with the INVITE.
        """
        if self._call is not None and self._call.ending is None:
            raise ScriptError(f"the {self.name} is in a call already: {self.name}.hangs_up() first")
        return self._take(await self.phone.dial(uri or self._home(), dtmf=dtmf, headers=headers))

    async def answers(self, within: float = PATIENCE) -> PhoneCall:
        """Answer the call that rings, waiting for it."""
        call = await self.rings(within)
        call.answer()
        await self._talking(within)
        return call

    async def rings(self, within: float = PATIENCE) -> PhoneCall:
        """Wait for a call and let it ring (180)."""
        if self._call is not None and self._call.state is State.INCOMING:
            return self._call
        with trio.move_on_after(within):
            call = self._take(await self.phone.ring())
            call.ringing()
            return call
        raise ScriptError(f"nobody called the {self.name} within {within:g} s")

    async def rejects(self, status: int = 486, within: float = PATIENCE) -> None:
        """Refuse the call that rings, waiting for it."""
        (await self.rings(within)).reject(status)

    def hangs_up(self) -> None:
        """End the call, or give up dialling."""
        if self.call.ending is not None:
            raise ScriptError(f"the {self.name} cannot hang up: {self._why_over(self.call.ending)}")
        self.call.hang_up()

    async def is_hung_up(self, within: float = PATIENCE) -> Ending:
        """Wait until the other side has ended the call."""
        call = self.call
        with trio.move_on_after(within):
            return await call.ended()
        raise ScriptError(f"the {self.name}'s call was not ended within {within:g} s; {self._so_far()}")

    def _take(self, call: PhoneCall) -> PhoneCall:
        self._call, self._ear, self._found = call, LineEar(call.line), 0
        return call

    # -- the audio ----------------------------------------------------------------------------------------------

    async def says(self, words: str, within: float = PATIENCE) -> Spoken:
        """Say `words` and return when the last of them has been sent; waits for the answer first."""
        return await self._send(spoken(words), quoted(words), within)

    async def plays(self, pcm: Pcm, within: float = PATIENCE) -> Spoken:
        """Send any sound, 8 kHz."""
        return await self._send(pcm, "a sound", within)

    async def presses(self, digits: str, within: float = PATIENCE) -> None:
        """Press keys, one after the other (RFC 4733)."""
        await self._talking(within)
        for digit in digits:
            try:
                await self.call.press(digit)
            except MediaError as problem:
                raise ScriptError(f"the {self.name} cannot press {digit}: {problem}") from None

    async def hears(self, words: str, within: float = PATIENCE) -> str:
        """Wait until `words` are heard after those that were waited for before; everything heard so far."""
        call, ear = self.call, self._ear
        assert ear is not None  # noqa: S101 - there is one for each call
        if call.ending is None:
            await self._talking(within)
        with trio.move_on_after(within):
            try:
                await call.line.until(lambda: self._have_heard(words))
            except MediaError:
                ear.finish()
        if not self._have_heard(words):
            if call.ending is not None:
                raise ScriptError(f"the {self.name} cannot hear {quoted(words)}: {self._why_over(call.ending)}")
            raise ScriptError(f"the {self.name} did not hear {quoted(words)} within {within:g} s; {self._so_far()}")
        found = find(ear.text, words, self._found)
        self._found = self._found if found is None else found
        return ear.text

    async def hears_keys(self, keys: str, within: float = PATIENCE) -> None:
        """Wait until the server has pressed these keys in this call, by RTP events or by SIP INFO, and no others."""
        line = self.call.line
        with trio.move_on_after(within), suppress(MediaError):
            await line.until(lambda: len(line.digits) >= len(keys))
        heard = "".join(line.digits)
        if heard != keys:
            raise ScriptError(f"the {self.name} heard the keys {heard or 'none'} within {within:g} s, not {keys}")

    def _have_heard(self, words: str) -> bool:
        return find(self.heard, words, self._found) is not None

    async def _send(self, pcm: Pcm, what: str, within: float) -> Spoken:
        await self._talking(within)
        media = self.call.line.format
        if media is None or media.direction not in SENDING:
            held = "no audio was agreed" if media is None else f"the call is on hold ({media.direction.value})"
            raise ScriptError(f"the {self.name} cannot say {what}: {held}")
        try:
            return await self.call.say(pcm)
        except MediaError:
            ending = self.call.ending
            why = "its call is over" if ending is None else self._why_over(ending)
            raise ScriptError(f"the {self.name} could not finish saying {what}: {why}") from None

    async def _talking(self, within: float) -> None:
        """Wait for the answer; returns at once in a call that talks, or that has early media."""
        call = self.call
        if call.state is State.INCOMING and call.line.format is None:
            raise ScriptError(f"the {self.name} has not answered its call: {self.name}.answers() first")
        if call.ending is not None:
            raise ScriptError(f"the {self.name} has no audio: {self._why_over(call.ending)}")
        if call.line.format is not None:
            return
        with trio.move_on_after(within):
            try:
                await call.answered()
            except CallRefusedError as refused:
                raise ScriptError(f"the {self.name}'s call was refused: {refused}") from None
            except RustpbxError as problem:
                raise ScriptError(str(problem)) from None
            return
        raise ScriptError(f"nobody answered the {self.name} within {within:g} s")

    def _why_over(self, ending: Ending) -> str:
        return f"its call is over ({_how(ending)}); {self._so_far()}"

    def _so_far(self) -> str:
        return f"the {self.name} heard {quoted(self.heard)}"


def _how(ending: Ending) -> str:
    """How a call ended, in words."""
    if isinstance(ending.cause, sip.CallRefused):
        how = f"refused with {ending.cause.status} {ending.cause.reason}"
    elif isinstance(ending.cause, sip.ByeReceived):
        how = "hung up by the other side"
    elif isinstance(ending.cause, sip.CallCancelled):
        how = "cancelled by the other side"
    else:
        how = "hung up by itself" if ending.by_us else "lost"
    return f"{how} at {ending.at:.1f} s"
