"""SRTP over whole calls in virtual time: who gets which protection, holds, new keys, and keys that nobody reads."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from rustpbx.media.events import Direction
from rustpbx.media.sdp import parse_sdp
from rustpbx.media.sdp.crypto import SrtpMode, SrtpPolicy
from rustpbx.session.protection import SrtpRules
from rustpbx.settings import SrtpWish, UaConfig
from rustpbx.sip import events as sip
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.agent import OPTION
from rustpbx.testing.house import House, Plan, server_config
from rustpbx.testing.line import AudioLine
from rustpbx.testing.phone import CallRefusedError, State
from rustpbx.testing.voice import spoken

MODES = ("off", "prefer", "require")
BOTH = [(ours, theirs) for ours in MODES for theirs in MODES]


def agreed(caller: str, callee: str) -> str | None:
    """What two sides with these modes agree on; None: nothing, the callee refuses.

    A caller that requires SRTP offers RTP/SAVP; one that prefers it, RTP/AVP with keys.
    """
    if caller == "require":
        return None if callee == "off" else "RTP/SAVP with keys"
    if "off" in (caller, callee):
        return None if callee == "require" else "RTP/AVP"
    return "RTP/AVP with keys"


@asynccontextmanager
async def house_with(ours: SrtpWish, theirs: str) -> AsyncIterator[House]:
    """A house whose server and phone have these modes; nothing is left of its calls."""
    config = server_config()
    changed = attrs.evolve(config.ua or UaConfig(), srtp=ours)
    async with House(Plan(config=attrs.evolve(config, ua=changed))).open() as house:
        house.phone.srtp = SrtpPolicy(mode=SrtpMode(theirs))
        yield house
        await house.settle()


def protection(line: AudioLine, offer: bytes) -> str:
    """What was agreed on, by the phone's side of it."""
    assert line.format is not None
    profile = parse_sdp(offer).media[0].protocol
    return f"{profile} with keys" if line.format.srtp else profile


async def talk(house: House) -> None:
    """Each hears the other."""
    await house.handset.says("good morning")
    await house.desk.hears("good morning")
    await house.desk.says("good day")
    await house.handset.hears("good day")


@pytest.mark.rfc("4568", "5.1")
@pytest.mark.parametrize(("server", "phone"), BOTH)
async def test_a_phone_calls(server: SrtpWish, phone: str) -> None:
    """Of every pair of wishes: protected, plain, or 488; where they agree, both hear each other."""
    async with house_with(server, phone) as house:
        call = await house.handset.dials()
        expected = agreed(phone, server)
        if expected is None:
            with pytest.raises(CallRefusedError, match="488"):
                await call.answered()
            return
        await house.desk.answers()
        await talk(house)
        invite = next(one for one in house.phone.trace if one.direction == "out")
        assert protection(call.line, invite.data.partition(b"\r\n\r\n")[2]) == expected
        assert call.line.unopened == 0
        await house.desk.hangs_up()


@pytest.mark.parametrize(("server", "phone"), BOTH)
async def test_a_phone_is_called(server: SrtpWish, phone: str) -> None:
    """The same the other way round; a phone that cannot have what it wants refuses us with 488."""
    async with house_with(server, phone) as house:
        await house.desk.dials()
        call = await house.handset.rings()
        assert call.incoming is not None
        expected = agreed(server, phone)
        if expected is None:
            call.reject(488)
            assert (await house.desk.until("reject"))["code"] == 488
            return
        call.answer()
        await talk(house)
        assert protection(call.line, call.incoming.offer) == expected
        assert call.line.unopened == 0
        await house.desk.hangs_up()


# -- re-INVITEs -------------------------------------------------------------------------------------------------------


def keys_on_the_wire(house: House) -> list[bytes]:
    """Every key that passed, in order, from either side."""
    return [
        line.key
        for one in house.phone.trace
        if b"\r\n\r\nv=0" in one.data
        for line in parse_sdp(one.data.partition(b"\r\n\r\n")[2]).media[0].cryptos
    ]


@pytest.mark.rfc("4568", "7.1.4")
async def test_hold_and_resume_keep_the_keys() -> None:
    """The same keys in each offer and answer; both hear each other afterwards, and nothing was ever unreadable."""
    async with house_with("prefer", "require") as house:
        call = await house.handset.dials()
        await house.desk.answers()
        await talk(house)
        for direction in (Direction.SENDONLY, Direction.SENDRECV):
            assert isinstance(await call.re_invite(direction=direction), sip.OfferAnswered)
        await house.handset.says("still there")
        await house.desk.hears("still there")
        theirs = call._local.security.lines()
        assert len(set(keys_on_the_wire(house))) == len(theirs) + 1
        assert call.line.unopened == 0
        await house.desk.hangs_up()


@pytest.mark.rfc("4568", "7.1.4")
async def test_new_keys_of_the_phones_bring_new_keys_of_ours() -> None:
    """A phone that starts its SRTP anew expects ours to do so; whatever had been agreed before is not used again."""
    async with house_with("prefer", "require") as house:
        call = await house.handset.dials()
        await house.desk.answers()
        await talk(house)
        assert call.line.format is not None
        before = call.line.format.srtp
        assert isinstance(await call.re_invite(new_keys=True), sip.OfferAnswered)
        after = call.line.format.srtp
        assert before is not None
        assert after is not None
        assert len({before.send, before.receive, after.send, after.receive}) == 4
        await house.handset.says("with new keys")
        await house.desk.hears("with new keys")
        await house.desk.says("mine are new too")
        await house.handset.hears("mine are new too")
        await house.desk.hangs_up()


async def test_a_reinvite_may_not_take_the_protection_away() -> None:
    """Where SRTP is required a re-INVITE without it is refused with 488, and the call goes on as it was."""
    async with house_with("require", "require") as house:
        call = await house.handset.dials()
        await house.desk.answers()
        house.phone.srtp = SrtpPolicy(mode=SrtpMode.OFF)
        security = call._local.security
        refused = await call.re_invite(new_keys=True)
        assert isinstance(refused, sip.OfferRefused)
        assert refused.status == 488
        assert call._local.security == security
        await talk(house)
        await house.desk.hangs_up()


# -- whose rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "expected"), [("off", "RTP/AVP"), ("require", "RTP/SAVP with keys")])
async def test_an_agent_may_ask_for_one_call(asked: str, expected: str) -> None:
    """`sip.srtp` of an `invite` wins over the server's rule."""
    async with house_with("prefer", "prefer") as house:
        await house.desk.dials(option={**OPTION, "sip": {"srtp": asked}})
        call = await house.handset.answers()
        assert call.incoming is not None
        assert protection(call.line, call.incoming.offer) == expected
        await house.desk.hangs_up()


async def test_what_an_agent_asks_for_must_exist() -> None:
    """Another word is an error that names the key and the words there are."""
    async with house_with("off", "off") as house:
        await house.desk.dials(option={**OPTION, "sip": {"srtp": "always"}})
        error = await house.desk.until("error")
        assert error["error"] == "option.sip.srtp: 'always' is none of off, prefer, require"
        await house.desk.ended()


@pytest.mark.parametrize(("user", "mode"), [("1001", SrtpMode.REQUIRE), ("1002", SrtpMode.PREFER)])
def test_an_account_may_have_its_own_rule(user: str, mode: SrtpMode) -> None:
    """Calls to and from the account go by it; so do calls to its server, and no others."""
    rules = SrtpRules.of("prefer", ["AES_CM_128_HMAC_SHA1_80"], [("sip:pbx.test:5070", "1001", "require")], bytes)
    ours, elsewhere = parse_uri(f"sip:{user}@PBX.test"), parse_uri("sip:bob@elsewhere.test")
    assert rules.incoming(ours).mode is mode
    assert rules.outgoing(ours, elsewhere, None).mode is mode
    assert rules.outgoing(elsewhere, parse_uri("sip:+4930@pbx.test"), None).mode is SrtpMode.REQUIRE
    assert rules.outgoing(ours, elsewhere, SrtpMode.OFF).mode is SrtpMode.OFF
    assert rules.outgoing(elsewhere, elsewhere, None).mode is SrtpMode.PREFER


# -- who reads the keys -----------------------------------------------------------------------------------------------


async def test_nobody_reads_the_keys(caplog: pytest.LogCaptureFixture) -> None:
    """They are on the wire between server and phone, and nowhere else: no log, trace, event or webhook has one."""
    caplog.set_level(logging.DEBUG)
    async with house_with("prefer", "require") as house:
        call = await house.handset.dials()
        notice = await house.desk.is_called()
        await house.desk.send("accept", option={})
        await house.desk.until("answer")
        await talk_silently(call.line)
        await house.desk.hangs_up()
        trace = house.server.registry.trace(notice["dialogId"])
        assert trace is not None
        shown = "\n".join(
            [json.dumps(notice), json.dumps(house.desk.events), caplog.text, repr(call.line.format)]
            + [message.text for message in trace.messages]
            + [record.getMessage() for record in caplog.records]
        )
        wire = keys_on_the_wire(house)
    assert len(wire) >= 3
    texts = [line.partition(" inline:")[2] for one in house.phone.trace for line in one.data.decode().split("\r\n")]
    keys = {text for text in texts if text}
    assert len(keys) == len(set(wire))
    assert [key for key in keys if key in shown] == []
    assert shown.count("inline:***") >= 6
    assert "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:***" in notice["offer"]


async def talk_silently(line: AudioLine) -> None:
    """Let some packets pass."""
    before = line.packets_sent
    await line.until(lambda: line.packets_sent > before + 10)


async def test_keys_in_the_clear_are_said_once_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """Over UDP whoever reads the signalling can open the audio: a warning in the log, and the call goes on."""
    async with house_with("prefer", "require") as house:
        call = await house.handset.dials()
        await house.desk.answers()
        await call.re_invite(direction=Direction.SENDONLY)
        await house.desk.hangs_up()
    text = "SRTP keys go out in the clear, by UDP: whoever reads the signalling can hear the call"
    said = [(one.levelname, one.getMessage().partition(": ")[2]) for one in caplog.records if text in one.getMessage()]
    assert said == [("WARNING", text)] * 2  # once by each side: the phone is a stack of the same kind


# -- what comes early -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", ["off", "prefer"])
async def test_what_a_callee_says_before_its_200_arrives_is_heard(theirs: str) -> None:
    """Its first word is over before its 200 comes, 0.3 s late: it was kept, and is opened and heard."""
    async with house_with("prefer", theirs) as house, trio.open_nursery() as nursery:
        await house.desk.dials()
        call = await house.handset.rings()
        body = call._answer_offer(call._offer())
        nursery.start_soon(call.say, spoken("hi"))
        await trio.sleep(0.3)
        assert call.line.packets_sent >= 15
        house.phone.wish(sip.Answer(call.leg, body))
        call.state = State.TALKING
        await house.desk.until("answer")
        await house.desk.hears("hi")
        await house.desk.hangs_up()
