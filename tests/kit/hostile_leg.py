"""The target of a transfer in the hostile session: one refer leg after the other, each with the contracts of SIP."""

from __future__ import annotations

import attrs

from rustpbx.media import events as media
from rustpbx.session import effects
from rustpbx.session.effects import Effect, Input
from rustpbx.sip import events as sip


@attrs.define
class ReferLeg:
    """A refer leg, as far as its facts were emitted and its wishes performed."""

    name: str
    preparing: bool = True
    ready: bool = False
    closed: bool = False
    invited: bool = False
    answered: bool = False
    joined: bool = False
    listening: bool = False
    over: bool = False
    let_go: int = 0
    offers: int = 0

    def perform(self, effect: Effect) -> Input | None:
        """What the shell does with an effect for this leg."""
        match effect:
            case effects.PrepareDial():
                assert not self.ready
            case effects.CloseLeg():
                assert self.has_leg
                self.closed = True
            case effects.SetRemote() | effects.Denoise() | effects.PressKey():
                assert self.has_leg
            case effects.JoinLeg(both=both):
                assert self.has_leg
                assert self.answered or not both
                self.joined = True
            case effects.Listen():
                assert self.has_leg
                assert not self.listening
                self.listening = True
            case sip.SendInvite():
                assert self.has_leg
                assert not self.invited
                self.invited = True
            case sip.HangUp():
                assert self.invited
                assert not self.over or self.let_go == 0
                self.let_go += 1
                assert self.let_go == 1, "goodbye said twice"
            case sip.AcceptOffer() | sip.RefuseOffer():
                assert self.offers == 1
                self.offers = 0
            case sip.SendDigit() | sip.ReportReferral():
                assert self.answered
            case _:
                raise AssertionError(f"an unexpected {effect}")
        return None

    @property
    def has_leg(self) -> bool:
        """Whether media flows, or could."""
        return self.ready and not self.closed

    @property
    def is_up(self) -> bool:
        """Whether SIP may still tell something."""
        return self.invited and not self.over and not self.let_go

    def open(self) -> Input:
        """The way to the target is found."""
        self.preparing, self.ready = False, True
        return effects.LegReady("192.0.2.1", 12002, 78, self.name)

    def lose(self) -> Input:
        """It is not."""
        self.preparing = False
        return effects.SetupFailed("no such host", self.name)

    def facts(self, body: bytes) -> list[Input]:
        """What SIP and plane may tell of a leg that goes on; `answered` and `offered` note it."""
        if not self.answered:
            return [sip.CallProgress(self.name, 183, "Session Progress", body), sip.CallAnswered(self.name, body)]
        facts: list[Input] = [media.DigitPressed(self.name, "3", 0.0), sip.DigitReceived(self.name, "4")]
        facts.append(sip.RefreshAnswered(self.name, body))
        if not self.offers:
            facts.append(sip.OfferReceived(self.name, body))
        return facts

    def endings(self) -> list[Input]:
        """How it may end."""
        ends: list[Input] = [sip.ByeReceived(self.name), sip.CallLost(self.name, "no answer")]
        if not self.answered:
            ends.append(sip.CallRefused(self.name, 486, "Busy Here"))
        if self.has_leg:
            ends += [media.LegFailed(self.name, "a stage raised"), media.MediaSilent(self.name, 60.0)]
        return ends

    def tell(self, fact: Input) -> Input:
        """Note that this is told."""
        if isinstance(fact, sip.CallAnswered):
            self.answered = True
        elif isinstance(fact, sip.OfferReceived):
            self.offers = 1
        elif isinstance(fact, sip.ENDINGS):
            self.over = True
        return fact

    def check_end(self) -> None:
        """Nothing of it is left: an invited target was let go once, unless it went by itself."""
        assert self.closed == self.ready
        if self.invited:
            assert self.over or self.let_go == 1
        else:
            assert self.let_go == 0
