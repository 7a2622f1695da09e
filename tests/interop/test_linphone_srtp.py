"""SRTP with Linphone, whose suites are those of AES in counter mode, 256 bits included."""

from __future__ import annotations

from pathlib import Path

import pytest

from rustpbx.media.sdp import parse_sdp
from rustpbx.testing.voice import spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, over, resembles
from tests.kit.linphone import open_linphone
from tests.kit.real import RealHouse, open_real_house

pytestmark = [pytest.mark.interop("linphonec"), pytest.mark.real_time]

SUITES = [
    "AES_CM_128_HMAC_SHA1_80",
    "AES_CM_128_HMAC_SHA1_32",
    "AES_256_CM_HMAC_SHA1_80",
    "AES_256_CM_HMAC_SHA1_32",
]


def insists(suite: str) -> str:
    """The configuration of a phone that has calls under this suite only."""
    return f"media_encryption=srtp\nmedia_encryption_mandatory=1\nsrtp_crypto_suites={suite}\n"


def nothing_was_rejected(house: RealHouse) -> bool:
    """Whether all RTP that came sealed was opened. The end of a key is sent three times, as the same packet: replays.

    Of its reports some are not: it counts them anew after a hold, and under the suites with short tags gives them one
    too, against RFC 4568 section 6.2.2.
    """
    return house.server.plane.counters["srtp_rejected"] == 0


@pytest.mark.parametrize("suite", SUITES)
async def test_linphone_calls(tmp_path: Path, suite: str) -> None:
    """Words and keys both ways, before and after a hold."""
    async with (
        open_real_house(tmp_path, srtp="require") as house,
        open_linphone(tmp_path, spoken(QUESTION), insists(suite)) as phone,
    ):
        await phone.type(f"call {house.uri}")
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            await phone.type("pause")
            await house.sip.until("in ACK", 2)
            await phone.type("resume")
            await house.sip.until("in ACK", 3)
            await phone.type("47")
            await agent.until("dtmf", 2)
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("trackEnd", 2)
            await phone.type("terminate")
            await over(agent, "caller", "caller")
        await phone.until("ended")
        assert resembles(phone.heard(), 2 * (ANSWER + TAIL))
        answers = [parse_sdp(house.sip.find("out 200 INVITE", count).message.body).media[0] for count in (1, 2, 3)]
        assert {(media.protocol, media.cryptos[0].suite) for media in answers} == {("RTP/SAVP", suite)}
        assert nothing_was_rejected(house)
        assert await house.owned() == NOTHING


@pytest.mark.parametrize("suite", [SUITES[0], SUITES[2]])
async def test_linphone_is_called(tmp_path: Path, suite: str) -> None:
    """It takes the suite that it has from our offer, and each hears the other."""
    async with (
        open_real_house(tmp_path, srtp="require", srtp_suites=tuple(SUITES)) as house,
        open_linphone(tmp_path, spoken(QUESTION), insists(suite)) as phone,
    ):
        async with house.agent() as agent:
            await agent.send("invite", option={"callee": phone.uri, **SPEECH})
            await agent.until("ringing")
            await phone.type("answer")
            await agent.until("answer")
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.send("tts", text=ANSWER, endOfStream=True, autoHangup=True)
            await over(agent, "system", "system")
        await phone.until("ended")
        assert resembles(phone.heard(), ANSWER)
        theirs = parse_sdp(house.sip.find("in 200 INVITE").message.body).media[0]
        assert [crypto.suite for crypto in theirs.cryptos] == [suite]
        assert nothing_was_rejected(house)
        assert await house.owned() == NOTHING
