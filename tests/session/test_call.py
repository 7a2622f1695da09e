"""The call core by itself: what each side's move does, and in what order it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rustpbx.media import events as media
from rustpbx.session import commands, effects, events
from rustpbx.session.options import (
    CallOption,
    RecorderOption,
    SipOption,
    SynthesisOption,
    TranscriptionOption,
    VadOption,
)
from rustpbx.session.tables import Call
from rustpbx.sip import events as sip
from rustpbx.sip.cause import OF_STATUS
from rustpbx.sip.uri import parse_uri
from tests.kit.session import NO_AUDIO, OFFER, Bench, names, told, wall, wishes

ACCEPT = commands.Accept(option=CallOption())
INVITE = commands.Invite(option=CallOption(caller="sip:bot@192.0.2.1", callee="sip:4021@192.0.2.9"))


def answered_incoming(option: CallOption | None = None) -> Bench:
    """A phone's call that the agent has accepted."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(commands.Accept(option=option or CallOption()))
    assert bench.core.state is Call.TALKING
    return bench


def dialled(option: CallOption | None = None) -> Bench:
    """An agent's call whose INVITE is out."""
    bench = Bench()
    bench.attach()
    bench.give(commands.Invite(option=option) if option else INVITE, bench.leg)
    assert bench.core.state is Call.DIALLING
    return bench


def dialled_and_answered() -> Bench:
    """An agent's call in conversation."""
    bench = dialled()
    bench.give(sip.CallAnswered("s1", OFFER))
    return bench


def last_hangup(out: list[effects.Effect]) -> events.HungUp:
    """The closing event."""
    event = told(out)[-1]
    assert isinstance(event, events.HungUp)
    return event


# -- a phone's call -------------------------------------------------------------------------------------------------


def test_an_incoming_call_is_announced_and_an_attaching_agent_is_told_of_it() -> None:
    """The webhook goes out first; the agent's first event is `incoming` with the phone's offer."""
    bench = Bench()
    assert [type(effect) for effect in bench.incoming()] == [effects.Announce]
    assert told(bench.attach()) == [
        events.Incoming(
            track_id="s1",
            timestamp=wall(10.0),
            caller="sip:phone@192.0.2.9",
            callee="sip:800@192.0.2.1",
            sdp=OFFER.decode(),
        )
    ]


def test_accept_starts_the_track_answers_and_tells_both_in_this_order() -> None:
    """`trackStart`, then our 200, then `answer` with our SDP."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    out = bench.give(ACCEPT)
    kinds = [type(effect) for effect in out]
    assert kinds == [effects.OpenLeg, effects.SetRemote, effects.Tell, sip.Answer, effects.Tell]
    assert names(out) == ["trackStart", "answer"]
    answer = out[3]
    assert isinstance(answer, sip.Answer)
    event = told(out)[1]
    assert isinstance(event, events.Answered)
    assert event.sdp.encode() == answer.body
    assert b"m=audio 12000 RTP/AVP 0 101" in answer.body


def test_an_offer_without_audio_is_refused_before_anyone_is_asked() -> None:
    """No webhook for a call that cannot be: 488, and the call is over."""
    bench = Bench()
    out = bench.incoming(NO_AUDIO)
    (refusal,) = wishes(out)
    assert isinstance(refusal, sip.Refuse)
    assert refusal.status == 488
    assert bench.core.done


def test_a_delayed_offer_is_answered_with_ours_and_the_ack_brings_the_answer() -> None:
    """An INVITE without SDP gets our offer in the 200; audio flows once the ACK says where to."""
    bench = Bench()
    bench.incoming(b"")
    bench.attach()
    out = bench.give(ACCEPT)
    assert not any(isinstance(effect, effects.SetRemote) for effect in out)
    (effect,) = bench.give(sip.CallConfirmed("s1", OFFER))
    assert isinstance(effect, effects.SetRemote)
    assert effect.media.remote == ("192.0.2.9", 4000)


def test_ringing_is_180_and_early_media_is_183_with_the_sdp_of_the_later_answer() -> None:
    """A ringtone implies early media; the answer repeats its SDP and opens no second track."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    assert wishes(bench.give(commands.Ring())) == [sip.Ring("s1", 180)]
    out = bench.give(commands.Ring(ringtone="http://x/ring.wav"))
    (early,) = wishes(out)
    assert isinstance(early, sip.Ring)
    assert early.status == 183
    assert names(out) == ["trackStart", "trackStart"]
    out = bench.give(commands.Accept(option=CallOption(vad=VadOption())))
    (answer,) = wishes(out)
    assert isinstance(answer, sip.Answer)
    assert answer.body == early.body
    assert names(out) == ["trackEnd", "answer"]
    assert any(isinstance(effect, effects.WatchSpeech) for effect in out)


def test_no_port_for_an_accepted_call_is_an_error_and_a_503() -> None:
    """The phone gets a final answer, the agent `error` and `hangup`."""
    bench = Bench()
    bench.leg = effects.LegUnusable("no RTP port is free")
    bench.incoming()
    bench.attach()
    out = bench.give(ACCEPT)
    assert wishes(out) == [sip.Refuse("s1", 503, "no RTP port is free", cause=41)]
    assert names(out) == ["error", "hangup"]


def test_the_caller_gives_up() -> None:
    """CANCEL ends a claimed call as canceled by the caller, and nothing more is said to the phone."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(commands.Ring())
    out = bench.give(sip.CallCancelled("s1"))
    assert wishes(out) == []
    assert (last_hangup(out).reason, last_hangup(out).initiator) == ("canceled", "caller")


def test_a_cancel_that_our_acceptance_has_crossed_ends_the_call() -> None:
    """The phone was told 487 while the agent's `accept` was under way: nothing more goes out, and it is over."""
    bench = answered_incoming()
    out = bench.give(sip.CallCancelled("s1"))
    assert names(out) == ["trackEnd", "hangup"]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == ("canceled", "caller")
    assert wishes(out) == []
    assert bench.core.done


def test_reject_sends_its_code_and_reason_and_ends() -> None:
    """The agent's words reach the phone; `hangup` says rejected."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    out = bench.give(commands.Reject(reason="busy right now", code=486))
    assert wishes(out) == [sip.Refuse("s1", 486, "busy right now", cause=17)]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == ("rejected", "callee")


def test_hang_up_before_accept_declines_and_busy_is_486() -> None:
    """An unanswered phone gets a final response, never a BYE."""
    for reason, status in ((None, 603), ("busy", 486)):
        bench = Bench()
        bench.incoming()
        bench.attach()
        assert wishes(bench.give(commands.Hangup(reason=reason))) == [sip.Refuse("s1", status, cause=OF_STATUS[status])]


def test_nobody_accepts_in_time() -> None:
    """480 after the accept timeout, which `ringing` starts again."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.wait(50)
    bench.give(commands.Ring())
    assert wishes(bench.wait(50)) == []
    out = bench.wait(10)
    assert wishes(out) == [sip.Refuse("s1", 480, cause=18)]
    assert last_hangup(out).reason == "noAnswer"


def test_a_failed_webhook_is_a_503_unless_an_agent_came_all_the_same() -> None:
    """The failure counts only while nobody is attached."""
    alone = Bench()
    alone.incoming()
    assert wishes(alone.give(effects.AnnounceFailed("webhook failed"))) == [
        sip.Refuse("s1", 503, "webhook failed", cause=41)
    ]
    claimed = Bench()
    claimed.incoming()
    claimed.attach()
    assert claimed.give(effects.AnnounceFailed("webhook failed")) == []


def test_a_socket_lost_before_any_claim_leaves_the_call_to_the_next_agent() -> None:
    """The call stays pending, and the next agent hears of it."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    assert bench.give(effects.AgentGone("dropped")) == []
    assert bench.core.pending
    assert names(bench.attach()) == ["incoming"]


def test_a_socket_lost_after_ringing_turns_the_caller_away() -> None:
    """The agent had claimed the call, so the phone gets 480."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(commands.Ring())
    assert wishes(bench.give(effects.AgentGone("dropped"))) == [sip.Refuse("s1", 480, cause=18)]
    assert bench.core.done


def test_accept_without_a_call_is_rejected_and_ends() -> None:
    """The client waits for an outcome: `reject` 481, `hangup`."""
    bench = Bench()
    bench.attach()
    out = bench.give(ACCEPT)
    assert names(out) == ["reject", "hangup"]
    rejected = told(out)[0]
    assert isinstance(rejected, events.Rejected)
    assert (rejected.code, rejected.reason) == (481, "no pending call")


def test_reject_without_a_call_is_ignored() -> None:
    """Nothing happens and the session stays."""
    bench = Bench()
    bench.attach()
    assert bench.give(commands.Reject(reason="no")) == []
    assert bench.core.state is Call.NEW


# -- an agent's call ------------------------------------------------------------------------------------------------


def test_invite_opens_a_leg_first_and_then_dials() -> None:
    """`trackStart` comes before anything rings; the offer names the leg's port."""
    bench = Bench()
    bench.attach()
    assert bench.give(INVITE) == [effects.PrepareDial(parse_uri("sip:bot@192.0.2.1"), parse_uri("sip:4021@192.0.2.9"))]
    out = bench.give(effects.LegReady("192.0.2.1", 12000, 77))
    assert names(out) == ["trackStart"]
    (invite,) = wishes(out)
    assert isinstance(invite, sip.SendInvite)
    assert b"m=audio 12000" in invite.body
    assert str(invite.callee) == "sip:4021@192.0.2.9"


def test_ringing_then_answer_of_an_outgoing_call() -> None:
    """180 is `ringing` without early media, 200 is `answer` with the phone's SDP."""
    bench = dialled()
    (ringing,) = told(bench.give(sip.CallProgress("s1", 180, "Ringing", b"")))
    assert ringing == events.Ringing(track_id="s1", timestamp=wall(10.0), early_media=False)
    out = bench.give(sip.CallAnswered("s1", OFFER))
    assert [type(effect) for effect in out] == [effects.SetRemote, effects.Tell]
    assert told(out) == [events.Answered(track_id="s1", timestamp=wall(10.0), sdp=OFFER.decode())]


def test_early_media_flows_and_a_bare_200_keeps_it() -> None:
    """183 with SDP sets the remote; a 200 without SDP is answered all the same."""
    bench = dialled()
    out = bench.give(sip.CallProgress("s1", 183, "Session Progress", OFFER))
    assert [type(effect) for effect in out] == [effects.SetRemote, effects.Tell]
    assert names(bench.give(sip.CallAnswered("s1", b"", early=True))) == ["answer"]


@pytest.mark.parametrize("body", [b"", NO_AUDIO, b"garbage"])
def test_a_200_that_cannot_be_used_is_rejected_and_hung_up(body: bytes) -> None:
    """BYE to the phone; `reject` 488, `trackEnd`, `hangup` to the agent."""
    bench = dialled()
    out = bench.give(sip.CallAnswered("s1", body))
    assert wishes(out) == [sip.HangUp("s1", cause=65)]
    assert names(out) == ["reject", "trackEnd", "hangup"]
    rejected = told(out)[0]
    assert isinstance(rejected, events.Rejected)
    assert rejected.code == 488


def test_a_refused_call_is_rejected_by_the_callee() -> None:
    """`reject` carries the SIP code and phrase; no `error` beside it."""
    bench = dialled()
    out = bench.give(sip.CallRefused("s1", 486, "Busy Here"))
    assert names(out) == ["reject", "trackEnd", "hangup"]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == ("callee", "callee")
    assert wishes(out) == []


def test_hang_up_while_it_rings_cancels_at_once() -> None:
    """Nothing blocks behind a ringing invite."""
    bench = dialled()
    bench.give(sip.CallProgress("s1", 180, "Ringing", b""))
    out = bench.give(commands.Hangup())
    assert wishes(out) == [sip.HangUp("s1", cause=16)]
    assert names(out) == ["trackEnd", "hangup"]


def test_nobody_answers() -> None:
    """The ring limit cancels and rejects with 408."""
    bench = dialled()
    out = bench.wait(120)
    assert wishes(out) == [sip.HangUp("s1", cause=19)]
    assert names(out) == ["reject", "trackEnd", "hangup"]
    assert last_hangup(out).reason == "noAnswer"


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (CallOption(), "option.callee is missing"),
        (CallOption(callee="sip:"), "option.callee"),
        (CallOption(callee="tel:+49301234"), "tel addresses"),
        (CallOption(callee="a@h", caller="not a uri at all <"), "option.caller"),
        (CallOption(callee="a@h", sip=SipOption(headers={"Via": "x"})), "Via is written by the server"),
        (CallOption(callee="sip:" + "a" * 2000 + "@h"), "longer than 1000"),
        (CallOption(callee="a@h", sip=SipOption(headers={"X-A": "a" * 9000})), "more than 8000"),
        (CallOption(callee="a@h", sip=SipOption(headers={"X-A": "a\r\nVia: b"})), "not a header field"),
    ],
)
def test_an_invite_that_cannot_be_dialled_is_one_error_and_the_end(option: CallOption, problem: str) -> None:
    """The error names the key; nothing is sent to anyone."""
    bench = Bench()
    bench.attach()
    out = bench.give(commands.Invite(option=option))
    assert names(out) == ["error", "hangup"]
    error = told(out)[0]
    assert isinstance(error, events.ErrorEvent)
    assert error.sender == "invite"
    assert problem in error.error
    assert wishes(out) == []


def test_a_caller_is_found_where_none_is_given() -> None:
    """The credentials' own address, else the server's; a bare callee gets its scheme."""
    for sip_option, caller in (
        (SipOption(username="bot", realm="pbx.test", password="x"), "sip:bot@pbx.test"),
        (None, "sip:rustpbx@192.0.2.1:5060"),
    ):
        bench = dialled(CallOption(callee="4021@192.0.2.9", sip=sip_option))
        assert bench.core.report.addresses == (caller, "sip:4021@192.0.2.9")


def test_a_second_invite_is_an_error_after_the_answer_and_changes_nothing() -> None:
    """Before the answer clients would take it as the outcome, so it waits."""
    bench = dialled()
    assert bench.give(INVITE) == []
    out = bench.give(sip.CallAnswered("s1", OFFER))
    assert names(out) == ["answer", "error"]
    error = told(out)[1]
    assert isinstance(error, events.ErrorEvent)
    assert error.sender == "invite"


# -- an answered call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "who"), [(answered_incoming, "caller"), (dialled_and_answered, "callee")])
def test_who_hung_up(make: Callable[[], Bench], who: str) -> None:
    """A BYE is the caller's on an incoming call, the callee's on ours."""
    out = make().give(sip.ByeReceived("s1"))
    assert names(out) == ["trackEnd", "hangup"]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == (who, who)


@pytest.mark.parametrize(
    ("command", "reason", "initiator"),
    [
        (commands.Hangup(), "system", "system"),
        (commands.Hangup(reason="max call time reached"), "max call time reached", "system"),
        (commands.Hangup(reason="NOANSWER"), "noAnswer", "system"),
        (commands.Hangup(initiator="caller"), "caller", "caller"),
        (commands.Hangup(initiator="system"), "autohangup", "system"),
        (commands.Hangup(initiator="user"), "system", "user"),
    ],
)
def test_the_words_of_a_hangup_command(command: commands.Hangup, reason: str, initiator: str) -> None:
    """Codes in any case, free text echoed, the initiator kept."""
    out = answered_incoming().give(command)
    assert wishes(out) == [sip.HangUp("s1", cause=16)]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == (reason, initiator)


def test_words_and_headers_of_an_agent_cannot_break_out_of_their_line() -> None:
    """A reason is put on one line; a header field that is none is an error, and the BYE goes out without it."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    refused = bench.give(commands.Reject(reason="no\r\nVia: x"))
    assert wishes(refused) == [sip.Refuse("s1", 603, "no  Via: x", cause=21)]
    out = answered_incoming().give(commands.Hangup(headers={"X-A": "b\r\nVia: x"}))
    assert wishes(out) == [sip.HangUp("s1", cause=16)]
    assert names(out) == ["error", "trackEnd", "hangup"]
    out = answered_incoming().give(commands.Hangup(headers={"X-A": "b"}))
    assert wishes(out) == [sip.HangUp("s1", (("X-A", "b"),), cause=16)]


def test_the_end_is_told_once_and_in_order_with_a_playback_under_way() -> None:
    """`interruption`, `trackEnd(T)`, `trackEnd(S)`, `hangup`; the BYE leaves first."""
    bench = answered_incoming()
    bench.give(commands.Tts(text="one two", play_id="p"))
    bench.spoken = effects.Spoken(0, 300, 1500)
    bench.now += 2
    out = bench.give(commands.Hangup())
    assert isinstance(out[0], sip.HangUp)
    assert [(event.name, getattr(event, "track_id", None)) for event in told(out)] == [
        ("interruption", "T"),
        ("trackEnd", "T"),
        ("trackEnd", "s1"),
        ("hangup", "s1"),
    ]
    assert told(out)[0] == events.Interruption(
        track_id="T", timestamp=wall(12.0), play_id="p", subtitle="one two", total_duration=1500, current=300
    )
    assert bench.core.done


def test_a_lost_agent_hangs_up_an_answered_call() -> None:
    """No call stays up without an agent."""
    out = answered_incoming().give(effects.AgentGone("dropped"))
    assert wishes(out) == [sip.HangUp("s1", cause=41)]


def test_a_reinvite_is_answered_and_media_follows() -> None:
    """The plane gets the new address; our side of the SDP session has the next version if anything of it is new."""
    bench = answered_incoming()
    moved = OFFER.replace(b"audio 4000", b"audio 4444")
    remote, answer = bench.give(sip.OfferReceived("s1", moved))
    assert isinstance(remote, effects.SetRemote)
    assert remote.media.remote == ("192.0.2.9", 4444)
    assert isinstance(answer, sip.AcceptOffer)
    assert b"o=- 42 42 IN IP4 192.0.2.1" in answer.body
    _, answer = bench.give(sip.OfferReceived("s1", moved.replace(b"sendrecv", b"sendonly")))
    assert isinstance(answer, sip.AcceptOffer)
    assert b"o=- 42 43 IN IP4 192.0.2.1" in answer.body
    assert bench.give(sip.OfferReceived("s1", NO_AUDIO)) == [sip.RefuseOffer("s1", 488)]


def test_commands_in_the_wrong_state_are_one_error_each() -> None:
    """They name what was tried and change nothing."""
    bench = answered_incoming()
    for command, sender in ((ACCEPT, "accept"), (commands.Ring(), "ringing"), (INVITE, "invite")):
        (error,) = told(bench.give(command))
        assert isinstance(error, events.ErrorEvent)
        assert error.sender == sender
        assert "talking" in error.error
    assert bench.core.state is Call.TALKING


def test_processors_fail_one_by_one_after_the_answer() -> None:
    """An unknown VAD does not take ASR down, and the error comes behind `answer`."""
    option = CallOption(vad=VadOption(type="nop"), asr=TranscriptionOption(), denoise=True)
    bench = Bench()
    bench.incoming()
    bench.attach()
    out = bench.give(commands.Accept(option=option))
    assert names(out) == ["trackStart", "answer", "error"]
    processors = (effects.Denoise, effects.WatchSpeech, effects.Listen)
    assert [type(effect) for effect in out if isinstance(effect, processors)] == list(processors)


def test_the_first_option_to_ask_for_a_recording_is_obeyed_from_the_legs_opening_on() -> None:
    """`ringing` without early media has nothing to record yet; what `accept` says of it later is ignored."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    first, second = RecorderOption(recorder_file="first"), RecorderOption(recorder_file="second")
    assert not any(isinstance(effect, effects.Record) for effect in bench.give(commands.Ring(recorder=first)))
    out = bench.give(commands.Accept(option=CallOption(recorder=second)))
    assert [effect for effect in out if isinstance(effect, effects.Record)] == [effects.Record(first)]


def test_early_media_is_recorded() -> None:
    """`ringing` with early media and a recorder records at once, and only once."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    ring = commands.Ring(early_media=True, recorder=RecorderOption())
    out = [*bench.give(ring), *bench.give(commands.Accept(option=CallOption(recorder=RecorderOption())))]
    assert [effect for effect in out if isinstance(effect, effects.Record)] == [effects.Record(RecorderOption())]


def test_a_recording_that_fails_is_an_error_and_no_end() -> None:
    """A full disk is one `error` of the recorder; the call stays as it is."""
    bench = answered_incoming()
    (error,) = told(bench.give(effects.RecordingFailed("No space left on device")))
    assert isinstance(error, events.ErrorEvent)
    assert (error.sender, error.error) == ("recorder", "No space left on device")
    assert bench.core.state is Call.TALKING


def test_transcription_may_wait_for_the_answer() -> None:
    """`startWhenAnswer` keeps ringback out of ASR."""
    option = CallOption(callee="a@h", asr=TranscriptionOption(start_when_answer=True))
    bench = dialled(option)
    assert not any(isinstance(effect, effects.Listen) for effect in bench.give(sip.CallProgress("s1", 183, "x", OFFER)))
    assert any(isinstance(effect, effects.Listen) for effect in bench.give(sip.CallAnswered("s1", b"", early=True)))


def test_playback_before_the_answer_waits_for_it_in_order() -> None:
    """Commands that came early are carried out right behind `answer`."""
    bench = dialled()
    assert bench.give(commands.Tts(text="a", play_id="p"), commands.Tts(text="b", play_id="p")) == []
    out = bench.give(sip.CallAnswered("s1", OFFER))
    assert names(out) == ["answer", "trackStart"]
    said = [effect.entry.text for effect in out if isinstance(effect, effects.Say)]
    assert said == ["a", "b"]


def test_options_of_a_command_are_laid_over_the_calls() -> None:
    """Only keys that were really given override; `speaker` of the command beats both."""
    bench = answered_incoming(CallOption(tts=SynthesisOption(provider="local", speed=1.5, speaker="a")))
    out = bench.give(commands.Tts(text="x", speaker="c", option=SynthesisOption(speaker="b", volume=7)))
    (say,) = (effect for effect in out if isinstance(effect, effects.Say))
    assert say.entry.option == SynthesisOption(provider="local", speed=1.5, speaker="c", volume=7)


def test_auto_hangup_lets_the_last_frames_arrive() -> None:
    """The BYE leaves 200 ms after the last frame did."""
    bench = answered_incoming()
    bench.give(commands.Tts(text="bye", play_id="p", auto_hangup=True, end_of_stream=True))
    out = bench.give(effects.TrackPlayedOut(1))
    assert (names(out), wishes(out)) == (["trackEnd"], [])
    out = bench.wait(0.2)
    assert wishes(out) == [sip.HangUp("s1", cause=16)]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == ("system", "system")


def test_a_phone_that_hangs_up_while_parting_is_not_hung_up_again() -> None:
    """The caller was faster: no BYE of ours, and it is the caller who ended the call."""
    bench = answered_incoming()
    bench.give(commands.Tts(text="bye", auto_hangup=True, end_of_stream=True), effects.TrackPlayedOut(1))
    out = bench.give(sip.ByeReceived("s1"))
    assert wishes(out) == []
    assert last_hangup(out).reason == "caller"


def test_nothing_is_said_after_the_end() -> None:
    """Late facts and commands change nothing and tell nothing."""
    bench = answered_incoming()
    bench.give(sip.ByeReceived("s1"))
    late: list[effects.Input] = [
        commands.Tts(text="x"),
        ACCEPT,
        sip.ByeReceived("s1"),
        effects.AgentGone("x"),
        effects.TrackPlayedOut(1),
    ]
    assert bench.give(*late) == []


# -- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "last_wish"),
    [
        (answered_incoming, sip.HangUp("s1", cause=41)),
        (dialled, sip.HangUp("s1", cause=41)),
        (dialled_and_answered, sip.HangUp("s1", cause=41)),
    ],
)
def test_a_bug_in_the_shell_ends_the_call_in_order(make: Callable[[], Bench], last_wish: sip.Wish) -> None:
    """BYE or CANCEL, `trackEnd`, `hangup`: as any other end, by the system."""
    out = make().give(effects.Broken("ValueError: x"))
    assert wishes(out) == [last_wish]
    assert names(out) == ["trackEnd", "hangup"]
    assert (last_hangup(out).reason, last_hangup(out).initiator) == ("failed", "system")


def test_a_bug_before_the_answer_is_a_500() -> None:
    """The caller is told that it is our fault."""
    bench = Bench()
    bench.incoming()
    assert wishes(bench.give(effects.Broken("ValueError: x"))) == [sip.Refuse("s1", 500, cause=41)]
    assert bench.core.done


def test_the_last_words_of_a_core_that_cannot_be_asked_any_more() -> None:
    """Whatever state it is in, the agent hears of the end once."""
    bench = answered_incoming()
    assert [event.name for event in bench.core.last_words(bench.now)] == ["trackEnd", "hangup"]
    bench.give(commands.Hangup())
    assert bench.core.last_words(bench.now) == []


def test_the_ack_of_a_delayed_offer_without_an_answer_ends_the_call() -> None:
    """Nothing was agreed on and nothing will be: BYE, not a call that is deaf for ever."""
    for body in (b"", NO_AUDIO):
        bench = Bench()
        bench.incoming(b"")
        bench.attach()
        bench.give(ACCEPT)
        out = bench.give(sip.CallConfirmed("s1", body))
        assert wishes(out) == [sip.HangUp("s1", cause=65)]
        assert last_hangup(out).reason == "failed"


def test_a_re_invite_without_an_offer_is_answered_in_its_ack() -> None:
    """Our offer goes out in the 200, and audio follows what the ACK says; an ACK that says nothing changes nothing."""
    bench = answered_incoming()
    (accept,) = wishes(bench.give(sip.OfferReceived("s1", b"")))
    assert isinstance(accept, sip.AcceptOffer)
    (effect,) = bench.give(sip.OfferAnswered("s1", OFFER.replace(b"audio 4000", b"audio 4444")))
    assert isinstance(effect, effects.SetRemote)
    assert effect.media.remote == ("192.0.2.9", 4444)
    assert bench.give(sip.OfferAnswered("s1", NO_AUDIO)) == []


def test_a_bare_200_after_early_media_is_answered_with_the_early_sdp() -> None:
    """`answer` carries what the phone said, whenever it said it."""
    bench = dialled()
    bench.give(sip.CallProgress("s1", 183, "Session Progress", OFFER))
    (answer,) = told(bench.give(sip.CallAnswered("s1", b"", early=True)))
    assert isinstance(answer, events.Answered)
    assert answer.sdp == OFFER.decode()


def test_early_media_with_auto_hangup_turns_the_caller_away() -> None:
    """A spoken refusal: when the words are over, so is the call, with 603."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(
        commands.Ring(early_media=True),
        commands.Tts(text="we are closed", end_of_stream=True, auto_hangup=True),
    )
    out = bench.give(effects.TrackPlayedOut(1))
    assert wishes(out) == [sip.Refuse("s1", 603, cause=21)]
    assert names(out) == ["trackEnd", "trackEnd", "hangup"]


def test_a_call_that_ends_in_mid_speech_tells_its_silence_once() -> None:
    """Each `speaking` has exactly one `silence`, the last one when the call ends."""
    bench = answered_incoming()
    bench.give(media.SpeechStarted("s1", at=9.0))
    assert names(bench.give(sip.ByeReceived("s1"))) == ["silence", "trackEnd", "hangup"]
    bench = answered_incoming()
    bench.give(media.SpeechStarted("s1", at=9.0), media.SpeechEnded("s1", 9.0, silence_at=9.5, at=9.6))
    assert names(bench.give(sip.ByeReceived("s1"))) == ["trackEnd", "hangup"]


@pytest.mark.parametrize("name", ["Via", "v", "M", "l", "contact", "Record-route", "X:Y", ""])
def test_header_fields_of_the_dialog_cannot_be_an_agents(name: str) -> None:
    """In whatever spelling: the compact forms are the same fields."""
    bench = Bench()
    bench.attach()
    out = bench.give(commands.Invite(option=CallOption(callee="a@h", sip=SipOption(headers={name: "x"}))))
    assert names(out) == ["error", "hangup"]
