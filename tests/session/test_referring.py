"""Transfers as the agent sees them: `refer` in blind mode, what comes of it, and `referred`."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rustpbx.session import commands, effects
from rustpbx.session.call import CallConfig, CallCore
from rustpbx.session.events import HungUp, Other, Rejected
from rustpbx.session.options import ReferOption, SipOption
from rustpbx.session.tables import Call
from rustpbx.sip import events as sip
from rustpbx.sip.message import NameAddr
from rustpbx.sip.parser import parse_name_addr
from rustpbx.sip.sipfrag import Referral
from rustpbx.sip.uri import Uri, parse_uri
from tests.kit.session import Bench, errors, names, talking, told, wall, wishes

CAROL = NameAddr(parse_uri("sip:carol@example.com"))


def refer(callee: str = "sip:carol@example.com", caller: str = "sip:bot@h", **options: Any) -> commands.Refer:
    """The command."""
    return commands.Refer(caller=caller, callee=callee, options=ReferOption(**{"mode": "blind", **options}))


def under_way(**options: Any) -> Bench:
    """A call whose far end has been asked to call Carol, and has said 202."""
    bench = talking()
    assert wishes(bench.give(refer(**options))) == [
        sip.SendRefer("s1", CAROL, NameAddr(parse_uri("sip:bot@h")), (), float(options.get("timeout", 180))),
    ]
    (accepted,) = told(bench.give(sip.ReferProgress("s1", 202, "Accepted")))
    assert isinstance(accepted, Other)
    assert (accepted.sender, accepted.extra) == ("refer", {"status": "202", "reason": "Accepted"})
    return bench


def test_a_transfer_that_works_ends_the_call() -> None:
    """Progress is told, then the far end is let go, for the reason `refer`."""
    bench = under_way(timeout=30)
    (ringing,) = told(bench.give(sip.ReferProgress("s1", 180, "Ringing")))
    assert isinstance(ringing, Other)
    assert ringing.extra == {"status": "180", "reason": "Ringing"}
    out = bench.give(sip.ReferEnded("s1", 200, "OK"))
    assert names(out) == ["other", "trackEnd", "hangup"]
    assert wishes(out) == [sip.HangUp("s1", cause=16)]
    hangup = told(out)[-1]
    assert isinstance(hangup, HungUp)
    assert (hangup.reason, hangup.initiator) == ("refer", "system")


def test_without_auto_hangup_the_agent_decides() -> None:
    """The outcome is told and nothing else happens."""
    bench = under_way(auto_hangup=False)
    assert names(bench.give(sip.ReferEnded("s1", 200, "OK"))) == ["other"]
    assert bench.core.state is Call.TALKING


def test_a_transfer_that_fails_leaves_the_call_to_the_agent() -> None:
    """`reject` with the far end's words; the bot talks on, and may try again."""
    bench = under_way()
    (reject,) = told(bench.give(sip.ReferEnded("s1", 486, "Busy Here")))
    assert isinstance(reject, Rejected)
    assert (reject.track_id, reject.refer, reject.code, reject.reason) == ("T", True, 486, "Busy Here")
    assert (reject.sip_code, reject.sip_reason, reject.q850) == (486, "Busy Here", 17)
    assert bench.core.state is Call.TALKING
    assert len(wishes(bench.give(refer()))) == 1


def test_a_far_end_that_hangs_up_once_it_is_referred() -> None:
    """Many do: the reason is the transfer, whoever says BYE."""
    bench = under_way()
    hangup = told(bench.give(sip.ByeReceived("s1")))[-1]
    assert isinstance(hangup, HungUp)
    assert (hangup.reason, hangup.initiator) == ("refer", "caller")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (commands.Refer(caller="a", callee=""), "callee is missing"),
        (refer(mode="bridged", callee="sip:never closed>"), "callee: "),
        (refer(mode="bridged", caller="sip:@"), "caller: "),
        (
            refer(mode="bridged", sip=SipOption(headers={"Via": "x"})),
            "option.sip.headers: Via is written by the server",
        ),
        (refer(mode="loud"), "options.mode: 'loud' is none of bridged, blind"),
        (refer(callee="sip:never closed>"), "callee: "),
        (refer(callee="x" * 1001), "callee: longer than 1000 characters"),
        (refer(sip=SipOption(headers={"Refer-To": "x"})), "options.sip.headers: Refer-To is written by the server"),
    ],
)
def test_a_refer_that_cannot_be(command: commands.Refer, problem: str) -> None:
    """One error that names what is wrong, and no REFER."""
    out = talking().give(command)
    assert wishes(out) == []
    ((sender, text),) = errors(out)
    assert sender == "refer"
    assert text.startswith(problem)


def test_a_call_that_is_not_answered_cannot_be_transferred() -> None:
    """The error is kept until the answer, as others are."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    assert bench.give(refer()) == []


def test_the_dial_policy_is_asked() -> None:
    """What it forbids is a `reject` with the rule's name, not the far end's."""
    asked: list[Uri] = []

    def admit(uri: Uri) -> str:
        asked.append(uri)
        return "dial policy: premium-rate"

    bench = Bench()
    config = CallConfig(session_id="s1", server_side_track="T", address="sip:rustpbx@192.0.2.1:5060")
    bench.core = CallCore(attrs.evolve(config, admit_transfer=admit), wall, 42, bench.now)
    bench.incoming()
    bench.attach()
    bench.give(commands.Accept(option=bench.core.talk.option))
    out = bench.give(refer(callee="sip:+1900@trunk"))
    assert wishes(out) == []
    (reject,) = told(out)
    assert isinstance(reject, Rejected)
    assert (reject.code, reject.reason, reject.refer, reject.sip_code) == (403, "dial policy: premium-rate", True, None)
    assert [str(uri) for uri in asked] == ["sip:+1900@trunk"]


def test_a_target_may_name_the_dialog_to_replace() -> None:
    """An attended transfer that the agent has prepared elsewhere."""
    (wish,) = wishes(talking().give(refer(callee="sip:carol@example.com?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2")))
    assert isinstance(wish, sip.SendRefer)
    assert wish.target.uri.headers == "Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2"


def test_the_far_end_asks_for_a_transfer() -> None:
    """Everything that it said is told; what the agent says of it goes back."""
    bench = talking()
    referral = Referral(
        target=parse_name_addr('"Carol" <sip:carol@example.com>'),
        referred_by=parse_name_addr("<sip:alice@192.0.2.9>"),
        replaces="a;to-tag=1;from-tag=2",
    )
    (other,) = told(bench.give(sip.ReferReceived("s1", referral)))
    assert isinstance(other, Other)
    assert (other.track_id, other.sender) == ("s1", "refer")
    assert other.extra == {
        "target": "sip:carol@example.com",
        "targetName": "Carol",
        "referredBy": "sip:alice@192.0.2.9",
        "replaces": "a;to-tag=1;from-tag=2",
    }
    assert bench.give(commands.Referred(code=180)) == [sip.ReportReferral("s1", 180, "")]
    assert bench.give(commands.Referred(code=486, reason="busy")) == [sip.ReportReferral("s1", 486, "busy")]
    assert errors(bench.give(commands.Referred(code=7))) == [("referred", "code: 7 is no SIP status")]


def test_agents_may_stay_silent() -> None:
    """Nothing happens by itself: the SIP side declines in time."""
    bench = talking()
    assert not any(
        isinstance(e, effects.PrepareDial) for e in bench.give(sip.ReferReceived("s1", Referral(target=CAROL)))
    )
    assert bench.wait(1000) == []
