"""Browsers that speak SIP: an INVITE by WebSocket whose SDP offers ICE and DTLS-SRTP, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import numpy as np
import pytest
import trio

from rustpbx.sip import events as sip
from rustpbx.testing.browser import Browser, Habits
from rustpbx.testing.house import BROWSER, SERVER
from rustpbx.testing.phone import CallRefusedError, PhoneCall
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.agent import Agent
from tests.kit.house import House, open_house, server_config
from tests.test_calls import SCRIPTED, over

CONFIG = server_config()
assert CONFIG.ua is not None
WITH_WS = attrs.evolve(CONFIG, ua=attrs.evolve(CONFIG.ua, ws_port=5080))
URI = f"sip:800@{SERVER}:5080;transport=ws"


@asynccontextmanager
async def settled_house() -> AsyncIterator[House]:
    """A house in which nothing of a call stays."""
    async with open_house(config=WITH_WS) as house:
        yield house
        await house.settle()


@attrs.frozen
class Softphone:
    """The two halves of a page that speaks SIP, and the agent that has taken its call."""

    call: PhoneCall
    browser: Browser
    agent: Agent

    async def talks(self, words: str) -> None:
        """Heard and hearing."""
        await self.browser.say(np.concatenate([spoken(words, rate=16000), np.zeros(16000, np.int16)]))
        await self.agent.hears(words)
        await self.agent.says(words)
        await trio.sleep(0.2)
        assert words in heard_text(self.browser.hear(), 16000)


@asynccontextmanager
async def softphone(house: House, habits: Habits | None = None) -> AsyncIterator[Softphone]:
    """One whose call is answered; its media is on its way."""
    async with house.browser(habits) as browser:
        call = await house.phone.dial(URI, body=browser.offer.encode())
        async with house.incoming() as (agent, _):
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            answer = (await call.until(sip.CallAnswered)).body.decode()
            browser.accept(answer)
            await browser.connected()
            assert agent.events[2]["sdp"] == answer
            yield Softphone(call, browser, agent)


async def test_a_softphone_in_a_browser() -> None:
    """Answered with ICE and DTLS; words both ways; its BYE ends the call, and DTLS with it."""
    async with settled_house() as house, softphone(house) as phone:
        assert "UDP/TLS/RTP/SAVPF 111" in phone.agent.events[2]["sdp"]
        await phone.talks("hello by the web")
        phone.call.hang_up()
        assert (await over(phone.agent))["reason"] == "caller"
        await phone.browser.ended()


async def test_the_agent_hangs_up() -> None:
    """BYE to the phone, goodbye to the browser."""
    async with settled_house() as house, softphone(house) as phone:
        await phone.agent.send("hangup")
        await over(phone.agent)
        assert isinstance((await phone.call.ended()).cause, sip.ByeReceived)
        await phone.browser.ended()


async def test_the_browser_is_lost() -> None:
    """Signalling is there, media is not: the call ends with BYE, and an `error` that says why."""
    async with settled_house() as house, softphone(house) as phone:
        house.wire.cut(SERVER, BROWSER)
        await over(phone.agent)
        assert phone.agent.names[-3:] == ["error", "trackEnd", "hangup"]
        assert isinstance((await phone.call.ended()).cause, sip.ByeReceived)


async def test_hold_and_resume_by_re_invite() -> None:
    """Inactive: nothing is sent to the browser, on the same path and with the same keys; then it goes on."""
    async with settled_house() as house, softphone(house) as phone:
        await phone.talks("before")
        offer = phone.browser.offer
        held = offer.replace("a=sendrecv", "a=inactive").replace(" 2 IN IP4", " 3 IN IP4")
        outcome = await phone.call.re_offer(held.encode())
        assert isinstance(outcome, sip.OfferAnswered)
        assert b"a=inactive" in outcome.body
        await trio.sleep(1)
        silent = phone.browser.hear().size
        await trio.sleep(3)
        assert phone.browser.hear().size == silent
        resumed = await phone.call.re_offer(offer.encode())
        assert isinstance(resumed, sip.OfferAnswered)
        assert b"a=sendrecv" in resumed.body
        await phone.talks("and after")
        await phone.agent.send("hangup")
        await over(phone.agent)


async def test_ice_begins_anew() -> None:
    """A re-INVITE with new credentials: our answer has new ones too, media goes on, by the new path in the end."""
    async with settled_house() as house, softphone(house) as phone:
        await phone.talks("one")
        first = phone.agent.events[2]["sdp"]
        outcome = await phone.call.re_offer(phone.browser.restart().encode())
        assert isinstance(outcome, sip.OfferAnswered)
        answer = outcome.body.decode()
        assert ufrag(answer) != ufrag(first)
        assert fingerprint(answer) == fingerprint(first)
        phone.browser.accept(answer)
        await phone.talks("two")
        await trio.sleep(40)  # longer than consent to the old path could last
        await phone.talks("three")
        await phone.agent.send("hangup")
        await over(phone.agent)
        assert "error" not in phone.agent.names


def ufrag(sdp: str) -> str:
    """Whose checks count."""
    return sdp.partition("a=ice-ufrag:")[2].split()[0]


def fingerprint(sdp: str) -> str:
    """Of its certificate."""
    return sdp.partition("a=fingerprint:sha-256 ")[2].split()[0]


@pytest.mark.parametrize("what", ["another certificate", "no ICE", "no audio", "no offer at all"])
async def test_a_re_invite_that_cannot_be_answered(what: str) -> None:
    """488, and the call goes on as it was."""
    async with settled_house() as house, softphone(house) as phone:
        offer = phone.browser.offer
        digest = fingerprint(offer)
        bad = {
            "another certificate": offer.replace(digest, digest[3:] + ":AA"),
            "no ICE": offer.replace("a=ice-ufrag", "a=x-ufrag").replace("a=ice-pwd", "a=x-pwd"),
            "no audio": offer.replace("m=audio", "m=image"),
            "no offer at all": "",
        }[what]
        outcome = await phone.call.re_offer(bad.encode())
        assert isinstance(outcome, sip.OfferRefused)
        assert outcome.status == 488
        await phone.talks("as before")
        await phone.agent.send("hangup")
        await over(phone.agent)


async def test_early_media_in_a_browser() -> None:
    """A 183 with our answer brings ICE and DTLS up before the call is accepted; the 200 says the same again."""
    async with settled_house() as house, house.browser() as browser:
        call = await house.phone.dial(URI, body=browser.offer.encode())
        async with house.incoming() as (agent, _):
            await agent.send("ringing", earlyMedia=True)
            early = await call.progressed()
            assert early.status == 183
            browser.accept(early.body.decode())
            await browser.connected()
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            answered = await call.until(sip.CallAnswered)
            assert answered.body in (b"", early.body)
            await Softphone(call, browser, agent).talks("both sides now")
            call.hang_up()
            await over(agent)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("a=rtcp-mux\r\n", ""), "the audio stream has no a=rtcp-mux: RTCP on a port of its own is not possible"),
        (("111 9 0 8 110 126", "18"), "no audio that we speak in the offer of"),
    ],
)
async def test_an_invite_that_cannot_be_answered(change: tuple[str, str], reason: str) -> None:
    """488 with the reason, before any agent is asked."""
    async with settled_house() as house, house.browser() as browser:
        offer = browser.offer.replace(*change)
        assert offer != browser.offer
        call = await house.phone.dial(URI, body=offer.encode())
        with pytest.raises(CallRefusedError) as refused:
            await call.until(sip.CallAnswered)
        assert refused.value.status == 488
        (fact,) = (fact for fact in call.facts if isinstance(fact, sip.CallRefused))
        assert reason in fact.reasons.sip_text
