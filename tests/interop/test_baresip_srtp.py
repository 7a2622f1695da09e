"""SRTP with baresip, by TLS and by UDP: as caller and as callee, insisting or not, with each suite that it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rustpbx.media.sdp import SessionDescription, parse_sdp
from rustpbx.sip.hop import Transport
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, IMPATIENT, NOTHING, QUESTION, SPEECH, TAIL, documented, held, over
from tests.interop.test_transports import both_certificates
from tests.kit.agent import Agent
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.real import RealHouse, open_real_house

pytestmark = [pytest.mark.interop("baresip"), pytest.mark.real_time]

SUITES = ["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_128_GCM", "AEAD_AES_256_GCM"]
"""What baresip 1.0 has."""


@asynccontextmanager
async def phone_and_house(tmp_path: Path, mediaenc: str, **ua: Any) -> AsyncIterator[tuple[RealHouse, Baresip]]:
    """A server and a phone with that rule for its media, both with certificates of one authority."""
    files, config = both_certificates(tmp_path / "tls")
    account = f"regint=0;mediaenc={mediaenc}" if mediaenc else "regint=0"
    async with (
        open_real_house(tmp_path, **files, tls_port=0, **ua) as house,
        open_baresip(tmp_path, says=spoken(QUESTION), account=account, config=f"{config}module srtp.so\n") as phone,
    ):
        yield house, phone
        assert await house.owned() == NOTHING


def sdp(house: RealHouse, name: str, count: int = 1) -> SessionDescription:
    """The description in that message."""
    return parse_sdp(house.sip.find(name, count).message.body)


async def talk(house: RealHouse, phone: Baresip, agent: Agent) -> None:
    """Words both ways and keys from the phone; every packet of ours was sealed, every one of the phone's was opened."""
    await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
    assert (await agent.until("asrFinal"))["text"] == QUESTION
    await agent.until("trackEnd")
    await phone.do("sndcode", "15#")
    await agent.until("dtmf", 3)
    assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list("15#")


def protected(house: RealHouse) -> bool:
    """Whether all that we sent had a tag, and all that came was opened; False if all was plain.

    But for a few reports: baresip sends RTCP APP packets before it has set up its SRTP.
    """
    counters = house.server.plane.counters
    assert {name for name, count in counters.items() if count and "srt" in name} <= {"srtcp_rejected"}
    assert counters["srtcp_rejected"] <= 5
    sizes = {len(packet.payload) for packet in house.rtp.sent}
    assert len(sizes) == 1
    return sizes != {160}


@pytest.mark.parametrize(
    ("transport", "mediaenc", "srtp", "agreed"),
    [
        (Transport.TLS, "srtp-mand", "prefer", ("RTP/SAVP", True)),
        (Transport.TLS, "srtp-mandf", "require", ("RTP/SAVPF", True)),
        (Transport.UDP, "srtp-mand", "require", ("RTP/SAVP", True)),
        (Transport.TLS, "srtp", "prefer", ("RTP/AVP", True)),
        (Transport.TLS, "srtp", "require", ("RTP/AVP", True)),
        (Transport.UDP, "srtp", "off", ("RTP/AVP", False)),
        (Transport.TLS, "", "prefer", ("RTP/AVP", False)),
    ],
)
async def test_baresip_calls(
    tmp_path: Path, transport: Transport, mediaenc: str, srtp: str, agreed: tuple[str, bool]
) -> None:
    """Words and keys are heard through; it is SRTP where both want it."""
    async with phone_and_house(tmp_path, mediaenc, srtp=srtp) as (house, phone):
        await phone.do("dial", house.uri_by(transport))
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            await talk(house, phone, agent)
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        ours = sdp(house, "out 200 INVITE").media[0]
        assert (ours.protocol, bool(ours.cryptos)) == agreed
        assert protected(house) == agreed[1]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("mediaenc", "srtp"), [("srtp-mand", "require"), ("srtp", "prefer")])
async def test_baresip_is_called(tmp_path: Path, suite: str, mediaenc: str, srtp: str) -> None:
    """Each suite that it has, offered alone; by TLS."""
    async with (
        phone_and_house(tmp_path, mediaenc, srtp=srtp, srtp_suites=(suite,)) as (house, phone),
        house.agent() as agent,
    ):
        callee = f"sip:{phone.user}@{phone.address[0]}:{phone.address[1] + 1};transport=tls"
        await agent.send("invite", option={"callee": callee, **SPEECH})
        await agent.until("ringing")
        await phone.do("accept")
        await agent.until("answer")
        await talk(house, phone, agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        theirs = sdp(house, "in 200 INVITE").media[0]
        assert [crypto.suite for crypto in theirs.cryptos] == [suite]
        assert protected(house)


@pytest.mark.parametrize(
    ("mediaenc", "srtp", "ends"),
    [("srtp-mand", "off", "in"), ("", "require", "in"), ("srtp-mand", "off", "out"), ("", "require", "out")],
)
async def test_no_call_where_one_insists_and_the_other_cannot(
    tmp_path: Path, mediaenc: str, srtp: str, ends: str
) -> None:
    """488 from whoever is called; no audio passes."""
    async with phone_and_house(tmp_path, mediaenc, srtp=srtp) as (house, phone):
        if ends == "in":
            await phone.do("dial", house.uri)
            assert (await phone.closed())["param"] == "488 Not Acceptable Here"
        else:
            async with house.agent() as agent:
                await agent.send("invite", option={"callee": phone.uri, **SPEECH})
                assert (await agent.until("reject"))["code"] == 488
                await agent.ended()
        assert house.rtp.sent == []


async def test_the_trunk_of_the_documentation(tmp_path: Path) -> None:
    """The keys that docs/sip.md tells to set, but for port, address and files: a call out and a call in."""
    told = documented("A trunk by TLS with SRTP").ua
    assert told is not None
    assert told.tls_port is not None
    ua = {"srtp": told.srtp, "srtp_suites": told.srtp_suites}
    async with phone_and_house(tmp_path, "srtp-mand", **ua) as (house, phone):
        async with house.agent() as agent:
            callee = f"sip:{phone.user}@{phone.address[0]}:{phone.address[1] + 1};transport=tls"
            await agent.send("invite", option={"callee": callee, **SPEECH})
            await agent.until("ringing")
            await phone.do("accept")
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.send("hangup")
            await over(agent, "system", "system")
        await phone.closed()
        await phone.do("dial", house.uri_by(Transport.TLS))
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.send("hangup")
            await over(agent, "system", "system")
        await phone.closed(2)
        assert protected(house)
        assert {passed.transport for passed in house.sip.messages} == {Transport.TLS}


async def test_baresip_holds_and_resumes(tmp_path: Path) -> None:
    """Its re-INVITEs repeat its key, and our answers ours; afterwards each opens what the other sends."""
    async with phone_and_house(tmp_path, "srtp-mand", srtp="require") as (house, phone):
        await phone.do("dial", house.uri_by(Transport.TLS))
        async with house.incoming() as agent:
            await agent.send("accept", option={**SPEECH, "vad": IMPATIENT})
            await agent.until("answer")
            await agent.until("asrFinal")
            await held(phone, agent)
            await phone.do("resume")
            await phone.until("CALL_REMOTE_SDP", 3)
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("trackEnd")
            await phone.do("sndcode", "7")
            assert (await agent.until("dtmf"))["digit"] == "7"
            await phone.hears_packets(len(house.rtp.sent))  # its recording ends with the hold
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()
        assert protected(house)
        keys = [sdp(house, "out 200 INVITE", count).media[0].cryptos[0].key for count in (1, 2, 3)]
        assert len(set(keys)) == 1
