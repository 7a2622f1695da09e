"""Opus and G.722 with baresip, which has both from libraries of its own: as caller and as callee."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rustpbx.media.sdp import parse_sdp
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, IMPATIENT, NOTHING, QUESTION, TAIL, called, calling, over
from tests.kit.agent import Agent
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.real import RealHouse, open_real_house

pytestmark = [pytest.mark.interop("baresip"), pytest.mark.real_time]

WIDE = ("opus", "G722", "PCMU")
MODULES = "module opus.so\nmodule g722.so\n"
RATE = "ausrc_srate 16000\nausrc_channels 1\n"
"""Of the file that it plays."""

SAYS = {"opus": "opus/48000/2", "G722": "G722/16000/1"}
"""How baresip names them."""


@asynccontextmanager
async def phone_and_house(
    tmp_path: Path, codecs: str, more: str = "", **ua: Any
) -> AsyncIterator[tuple[RealHouse, Baresip]]:
    """A server that prefers wide audio, and a phone that has these codecs only."""
    account = f"regint=0;audio_codecs={codecs}"
    async with (
        open_real_house(tmp_path, **{"codecs": WIDE, **ua}) as house,
        open_baresip(
            tmp_path, says=spoken(QUESTION, rate=16000), rate=16000, account=account, config=MODULES + RATE + more
        ) as phone,
    ):
        yield house, phone
        assert await house.owned() == NOTHING


def agreed(house: RealHouse, name: str) -> list[str]:
    """The formats of the description in that message."""
    return [str(rtpmap) for rtpmap in parse_sdp(house.sip.find(name).message.body).media[0].offered()]


async def talk(house: RealHouse, phone: Baresip, agent: Agent) -> None:
    """Words and keys both ways through the codec; nothing is dropped, and nothing is sent in another."""
    await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
    assert (await agent.until("asrFinal"))["text"] == QUESTION
    await agent.until("trackEnd")
    await phone.do("sndcode", "15#")
    await agent.until("dtmf", 3)
    assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list("15#")
    assert len({packet.payload_type for packet in house.rtp.sent}) == 1


@pytest.mark.rfc("7587", "7")
@pytest.mark.parametrize("codec", ["opus", "G722"])
async def test_a_phone_calls(tmp_path: Path, codec: str) -> None:
    """It offers that codec, we answer it, words are heard through both ways."""
    async with phone_and_house(tmp_path, SAYS[codec]) as (house, phone):
        async with called(house, phone) as agent:
            await talk(house, phone, agent)
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        assert agreed(house, "out 200 INVITE")[0].upper().startswith(codec.upper())


@pytest.mark.rfc("7587", "7")
@pytest.mark.parametrize("codec", ["opus", "G722"])
async def test_a_phone_is_called(tmp_path: Path, codec: str) -> None:
    """We offer all of ours, it answers the one it has."""
    async with phone_and_house(tmp_path, SAYS[codec]) as (house, phone):
        async with calling(house, phone) as agent:
            await phone.do("accept")
            await agent.until("answer")
            await talk(house, phone, agent)
            await agent.send("hangup")
            await over(agent, "system", "system")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        assert agreed(house, "out INVITE")[:3] == ["opus/48000/2", "G722/8000", "PCMU/8000"]
        assert agreed(house, "in 200 INVITE")[0].upper().startswith(codec.upper())


async def test_its_wishes_are_obeyed(tmp_path: Path) -> None:
    """A phone that wants 12 kbit/s at most, DTX and redundancy: our packets are small, and few while nobody speaks."""
    wishes = "opus_bitrate 12000\nopus_inbandfec yes\nopus_dtx yes\n"
    async with phone_and_house(tmp_path, SAYS["opus"], wishes) as (house, phone):
        async with called(house, phone, vad=IMPATIENT) as agent:
            await talk(house, phone, agent)
            heard = [event["event"] for event in agent.events].count("silence")
            await agent.until("silence", heard + 3)
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()
        sizes = [len(packet.payload) for packet in house.rtp.sent]
        assert sum(sizes) / len(sizes) <= 1.3 * 12_000 / 8 / 50
        steps = {b.rtp_time - a.rtp_time for a, b in pairwise(house.rtp.sent)}
        assert max(steps) >= 10 * 960


@pytest.mark.parametrize(("order", "first"), [("peer", "G722"), ("own", "opus")])
async def test_whose_order_decides(tmp_path: Path, order: str, first: str) -> None:
    """A phone that prefers G.722 gets it, or Opus, as configured."""
    async with phone_and_house(tmp_path, "G722/16000/1,opus/48000/2", codec_order=order) as (house, phone):
        async with called(house, phone) as agent:
            await agent.send("hangup")
            await over(agent, "system", "system")
        await phone.closed()
        assert agreed(house, "out 200 INVITE")[0].startswith(first)
