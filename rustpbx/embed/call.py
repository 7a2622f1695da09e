"""A call in the hands of the program that embeds the server.

It holds the same `Attachment` as an agent's socket does: the methods here hand it the commands of
`rustpbx.session.commands`, and iterating a call receives the events of `rustpbx.session.events`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self, TypedDict, Unpack

import attrs
import trio

from rustpbx.errors import LocalError, RustpbxError
from rustpbx.session import commands
from rustpbx.session.commands import Command
from rustpbx.session.events import Answered, ErrorEvent, Event, HungUp, Rejected
from rustpbx.session.options import (
    AmdOption,
    CallOption,
    DtmfOption,
    EouOption,
    MediaPassOption,
    RecorderOption,
    ReferOption,
    SipOption,
    SynthesisOption,
    TranscriptionOption,
    VadOption,
)
from rustpbx.session.shell.attachment import Attachment
from rustpbx.sip.events import IncomingCall

GOODBYE = 5.0
"""Seconds that leaving a call may take; its own end has a limit of one."""


class CallFields(TypedDict, total=False):
    """The fields of `CallOption` as keywords."""

    callee: str | None
    caller: str | None
    offer: str | None
    codec: str
    denoise: bool
    vad: VadOption | None
    asr: TranscriptionOption | None
    tts: SynthesisOption | None
    eou: EouOption | None
    recorder: RecorderOption | None
    media_pass: MediaPassOption | None
    sip: SipOption | None
    dtmf: DtmfOption | None
    amd: AmdOption | None
    handshake_timeout: int | None
    enable_ipv6: bool
    extra: Mapping[str, str] | None
    inactivity_timeout: int | None
    subscribe: bool


class CallEndedError(RustpbxError):
    """A call is over, or was never answered, and something was asked of it.

    `call` is the call. `ending` is its `hangup` event; None if the program itself was too slow to read its events.
    `code` is the SIP status that the call was refused with, if it was.
    """

    def __init__(self, call: Call, why: str, ending: HungUp | None, code: int | None) -> None:
        super().__init__(f"call {call.id} has ended: {why}")
        self.call = call
        self.ending = ending
        self.code = code


@attrs.define(eq=False)
class _Course:
    """What a call has been told that its methods wait for; kept at the moment it is told, read or not."""

    answer: Answered | None = None
    rejection: Rejected | None = None
    problem: ErrorEvent | None = None
    ending: HungUp | None = None
    cause: str = ""
    settled: trio.Event = attrs.field(factory=trio.Event)
    """The call is answered, or never will be."""
    over: trio.Event = attrs.field(factory=trio.Event)

    def told(self, event: Event) -> None:
        match event:
            case Answered(refer=False):
                self.answer = event
                self.settled.set()
            case Rejected(refer=False):
                self.rejection = event
            case ErrorEvent() if self.answer is None:
                self.problem = event
            case HungUp(refer=False):
                self.ending = event

    def closed(self, cause: str) -> None:
        self.cause = cause
        self.settled.set()
        self.over.set()

    def why(self) -> str:
        """How it ended, for people."""
        if self.rejection is not None:
            return f"{self.rejection.code} {self.rejection.reason}"
        if self.problem is not None:
            return self.problem.error
        if self.ending is not None and self.ending.reason:
            return self.ending.reason
        return self.cause or "it is over"


class Call:
    """One phone call: `async with call` holds it, and leaving the block ends it, whatever happened inside.

    Each command of the protocol is a method. `accept` and `invite` return when the call is answered; the others hand
    the command over and return, and what comes of it are events (`async for event in call`, up to `hangup`).
    A command for a call that is over raises `CallEndedError`. The block itself swallows that error, because a call
    that ends is nothing wrong; only for a call of ours that was never answered it comes out of the block.

    `id` is the session id. `caller` and `callee` are SIP addresses; `headers` are the `Name: value` lines of the
    INVITE that came in, () for an outgoing call.
    """

    def __init__(self, reserve: Callable[[], Attachment], incoming: IncomingCall | None = None) -> None:
        self._reserve = reserve
        self._attachment: Attachment | None = None
        self._course = _Course()
        self._asked = False
        self.incoming = incoming is not None
        self.caller = str(incoming.caller.uri.bare()) if incoming is not None else ""
        self.callee = str(incoming.callee.uri.bare()) if incoming is not None else ""
        self.headers = incoming.headers if incoming is not None else ()
        if incoming is not None:
            self._attach()

    def __repr__(self) -> str:
        state = "ended" if self.ended else "up" if self.answered else "not answered"
        return f"<Call {self.id or 'not opened'} {self.caller or '?'} -> {self.callee or '?'}, {state}>"

    # -- what is known of it ----------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The session id; "" for an outgoing call before its block."""
        return self._attachment.session_id if self._attachment is not None else ""

    @property
    def answered(self) -> bool:
        """Whether it was ever answered."""
        return self._course.answer is not None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._course.over.is_set()

    @property
    def ending(self) -> HungUp | None:
        """Its `hangup` event (why it ended, who ended it, when), as soon as that was sent."""
        return self._course.ending

    def header(self, name: str) -> str | None:
        """The first header field of that name in the INVITE that came in."""
        for line in self.headers:
            field, _, value = line.partition(":")
            if field.strip().lower() == name.lower():
                return value.strip()
        return None

    async def wait_ended(self) -> None:
        """Wait until the call is over and owns nothing any more."""
        await self._course.over.wait()

    # -- the block --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Hold the call. An outgoing one gets its session: raises `OverloadedError` if the server takes no more."""
        await trio.lowlevel.checkpoint()
        self._attach()
        return self

    def _attach(self) -> None:
        if self._attachment is None:
            self._attachment = self._reserve()
            self._attachment.watcher = self._course
            self._attachment.upgraded()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        own, rest = self._sorted_out(error)
        await self._leave(failed=isinstance(rest, Exception))
        if own is not None and rest is not None and rest is not error:
            raise rest
        return own is not None and rest is None

    def _sorted_out(self, error: BaseException | None) -> tuple[BaseException | None, BaseException | None]:
        """What of an exception only says that this call is over, and the rest."""
        if isinstance(error, BaseExceptionGroup):
            return error.split(lambda each: self._is_told(each))  # noqa: PLW0108 - Python 3.11 wants a function here
        return (error, None) if error is not None and self._is_told(error) else (None, error)

    def _is_told(self, error: BaseException) -> bool:
        """The end of a call is no failure, unless we placed it and have not even been answered."""
        return isinstance(error, CallEndedError) and error.call is self and (self.incoming or self.answered)

    async def _leave(self, *, failed: bool) -> None:
        """End the call, in the words that its state wants, even if this task is cancelled."""
        assert self._attachment is not None  # noqa: S101 - `__aenter__` made it
        if not self.ended:
            self._attachment.command(self._farewell(failed=failed))
            with trio.move_on_after(GOODBYE, shield=True):
                await self._course.over.wait()
            self._attachment.lost("its program has left it")

    def _farewell(self, *, failed: bool) -> Command:
        if self.incoming and not self.answered:
            return commands.Reject(reason="agent failed" if failed else "not answered", code=500 if failed else 480)
        return commands.Hangup(reason="failed" if failed else None)

    # -- events -----------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        """The events that nobody has received yet; several tasks that iterate share them."""
        return self

    async def __anext__(self) -> Event:
        """The next event; the last one is `HungUp`.

        Raises `CallEndedError` if so many events were unread that the call was ended for it.
        """
        if self._attachment is None:
            raise LocalError("a call is held by `async with call`")
        try:
            event = await self._attachment.events.receive()
            while isinstance(event, bytes):  # audio, which has other ways out of an embedded call
                event = await self._attachment.events.receive()
        except trio.EndOfChannel:
            if self._course.cause and self._course.ending is None:
                raise self._over() from None
            raise StopAsyncIteration from None
        else:
            return event

    # -- commands: beginning and end --------------------------------------------------------------------------------

    async def invite(self, option: CallOption | None = None, **fields: Unpack[CallFields]) -> Answered:
        """Place the call, and return its `answer` event. Raises `CallEndedError` if it is not answered.

        The fields of `CallOption` are keywords, laid over `option`; `callee` is needed.
        Cancelling does not take the command back: leaving the block does.
        """
        if self.incoming:
            raise LocalError("invite: this call came in, so it is accepted")
        chosen = attrs.evolve(option or CallOption(), **fields)
        self.caller, self.callee = chosen.caller or "", chosen.callee or ""
        return await self._set_up(commands.Invite(option=chosen))

    async def accept(
        self,
        option: CallOption | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Unpack[CallFields],
    ) -> Answered:
        """Answer the call, and return its `answer` event. Raises `CallEndedError` if it has gone meanwhile.

        The fields of `CallOption` are keywords, laid over `option`. `headers` are extra header fields of the 200.
        """
        if not self.incoming:
            raise LocalError("accept: this call is ours, so it is placed by invite")
        chosen = attrs.evolve(option or CallOption(), **fields)
        return await self._set_up(commands.Accept(option=chosen, headers=headers))

    async def _set_up(self, command: commands.Invite | commands.Accept) -> Answered:
        if self._asked:
            raise LocalError(f"{command.name}: asked for already")
        await self._give(command)
        self._asked = True
        await self._course.settled.wait()
        if self._course.answer is None:
            raise self._over()
        return self._course.answer

    async def reject(self, reason: str = "", code: int = 603, headers: Mapping[str, str] | None = None) -> None:
        """Refuse the call with a final SIP status 400..699, and wait for its end. Nothing to do if it has ended.

        `headers` are extra header fields of the response.
        """
        if not self.incoming:
            raise LocalError("reject: this call is ours; hang up")
        with suppress(CallEndedError):
            await self._give(commands.Reject(reason=reason, code=code, headers=headers))
        await self._course.settled.wait()
        if self.answered:
            raise LocalError("reject: the call is answered; hang up")
        await self._course.over.wait()

    async def hangup(
        self,
        reason: str | None = None,
        initiator: str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        after: str | None = None,
    ) -> None:
        """End the call in whatever state it is, and wait for its end. Nothing to do if it has ended.

        `reason` and `initiator` are echoed in `hangup`; `headers` are extra header fields of the BYE. With `after`
        `"drained"` all that was to be said leaves first.
        """
        with suppress(CallEndedError):
            await self._give(commands.Hangup(reason=reason, initiator=initiator, headers=headers, after=after))
        await self._course.over.wait()

    async def ringing(
        self, ringtone: str | None = None, *, early_media: bool = False, recorder: RecorderOption | None = None
    ) -> None:
        """Tell the caller that it rings; with early media, `ringtone` (a URL) or `tts` is heard before the answer."""
        await self._give(commands.Ring(ringtone=ringtone, early_media=early_media, recorder=recorder))

    # -- commands: playback -----------------------------------------------------------------------------------------

    async def tts(
        self,
        text: str,
        *,
        speaker: str | None = None,
        play_id: str | None = None,
        auto_hangup: bool = False,
        streaming: bool = False,
        end_of_stream: bool = False,
        option: SynthesisOption | None = None,
        wait_input_timeout: int | None = None,
        base64: bool = False,
        cache_key: str | None = None,
    ) -> None:
        """Speak `text`. What the arguments mean is in `rustpbx.session.commands.Tts`."""
        await self._give(
            commands.Tts(
                text=text,
                speaker=speaker,
                play_id=play_id,
                auto_hangup=auto_hangup,
                streaming=streaming,
                end_of_stream=end_of_stream,
                option=option,
                wait_input_timeout=wait_input_timeout,
                base64=base64,
                cache_key=cache_key,
            )
        )

    async def play(
        self,
        url: str,
        *,
        play_id: str | None = None,
        auto_hangup: bool = False,
        wait_input_timeout: int | None = None,
    ) -> None:
        """Play a wav or mp3 by http(s) in place of whatever plays."""
        await self._give(
            commands.Play(url=url, play_id=play_id, auto_hangup=auto_hangup, wait_input_timeout=wait_input_timeout)
        )

    async def interrupt(self, *, graceful: bool = False, fade_out_ms: int | None = None) -> None:
        """Stop what plays; `graceful` lets the text being spoken finish."""
        await self._give(commands.Interrupt(graceful=graceful, fade_out_ms=fade_out_ms))

    async def pause(self) -> None:
        """Hold the playback where it is."""
        await self._give(commands.Pause())

    async def resume(self) -> None:
        """Go on from where `pause` held."""
        await self._give(commands.Resume())

    # -- commands: the rest -----------------------------------------------------------------------------------------

    async def refer(
        self, caller: str, callee: str, options: ReferOption | None = None, *, after: str | None = None
    ) -> None:
        """Transfer: a second call from `caller` to `callee`, joined with this one; or a REFER, with `mode="blind"`.

        With `after` `"drained"` all that was to be said leaves first.
        """
        await self._give(commands.Refer(caller=caller, callee=callee, options=options, after=after))

    async def referred(self, code: int, reason: str | None = None) -> None:
        """Tell the far end what has become of the transfer that it asked for: a SIP status."""
        await self._give(commands.Referred(code=code, reason=reason))

    async def dtmf(self, digits: str, *, duration: int = 160, gap: int = 80, method: str = "auto") -> None:
        """Press keys. What the arguments mean is in `rustpbx.session.commands.Dtmf`."""
        await self._give(commands.Dtmf(digits=digits, duration=duration, gap=gap, method=method))

    async def mute(self, track_id: str | None = None) -> None:
        """Silence what a track contributes; None is all tracks."""
        await self._give(commands.Mute(track_id=track_id))

    async def unmute(self, track_id: str | None = None) -> None:
        """Undo `mute`."""
        await self._give(commands.Unmute(track_id=track_id))

    async def history(self, speaker: str, text: str) -> None:
        """Note a line of the conversation; an `AddHistory` event follows."""
        await self._give(commands.History(speaker=speaker, text=text))

    async def _give(self, command: Command) -> None:
        """Hand over one command. The checkpoint before it lets the call keep pace with a program that gives many."""
        await trio.lowlevel.checkpoint()
        if self._attachment is None:
            raise LocalError(f"{command.name}: a call is held by `async with call`")
        if self.ended:
            raise self._over()
        self._attachment.command(command)

    def _over(self) -> CallEndedError:
        rejection = self._course.rejection
        return CallEndedError(self, self._course.why(), self.ending, rejection.code if rejection is not None else None)
