"""Transfers by a second call of ours, to baresip: answered, busy, not answered, and who hangs up first."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from rustpbx.shell.network import RealNetwork
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, TAIL, called, over, resembles
from tests.kit.agent import Agent
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.files import File, serve_files, wav
from tests.kit.real import LOOPBACK, free_port, open_real_house
from tests.kit.recordings import BREATH

pytestmark = [pytest.mark.interop("baresip"), pytest.mark.real_time]

MUSIC = "la la"
BEFORE = 150
"""Packets that the phone has got before the transfer, or fewer."""
TWICE = BEFORE + 3 * len(spoken(MUSIC)) // 160
"""So many in all, and it has heard the music twice."""
ALL = TWICE + (len(spoken(ANSWER + TAIL)) + len(BREATH)) // 160 + BEFORE
"""So many, and it has heard Carol."""


@asynccontextmanager
async def talking(tmp_path: Path, account: str = "regint=0") -> AsyncIterator[tuple[Baresip, Baresip, Agent, str]]:
    """A phone that an agent talks with, a second one, and the URL of some music; the server has nothing at the end."""
    port = free_port(socket.SOCK_STREAM)
    async with (
        open_real_house(tmp_path) as house,
        open_baresip(tmp_path, says=spoken(QUESTION)) as phone,
        open_baresip(tmp_path, user="carol", account=account, says=spoken(ANSWER + TAIL)) as carol,
        trio.open_nursery() as nursery,
    ):
        files = {"/music.wav": File(wav(spoken(MUSIC)))}
        nursery.start_soon(serve_files, RealNetwork(), (LOOPBACK, port), files)
        async with called(house, phone) as agent:
            yield phone, carol, agent, f"http://{LOOPBACK}:{port}/music.wav"
        assert await house.owned() == NOTHING
        nursery.cancel_scope.cancel()


async def refer(agent: Agent, carol: Baresip, **options: object) -> None:
    """Transfer the phone to Carol."""
    await agent.send("refer", caller="sip:bot@rustpbx.test", callee=carol.uri, options=options)


async def test_music_and_then_a_person(tmp_path: Path) -> None:
    """The phone has recorded the music, twice at least, and behind it what Carol says; Carol hangs up for both."""
    async with talking(tmp_path) as (phone, carol, agent, music):
        await agent.until("asrFinal")  # the two have been on the line for a while
        await refer(agent, carol, moh=music)
        await carol.until("CALL_INCOMING")
        await phone.hears_packets(TWICE)
        await carol.do("accept")
        await agent.until("answer", 2)
        await phone.hears_packets(ALL)
        await carol.do("hangup")
        await over_with_both(agent, "refer", "system")
        await phone.closed()
        await carol.closed()
        text = heard_text(phone.heard())
        assert text.count(MUSIC) >= 2, text
        assert text.endswith(ANSWER + TAIL) or resembles(phone.heard()[-len(spoken(ANSWER + TAIL)) :], ANSWER), text


async def over_with_both(agent: Agent, reason: str, initiator: str) -> None:
    """Both legs have ended: the call's own `hangup` is the last."""
    await agent.ended()
    legs = [(e["refer"], e["reason"], e["initiator"]) for e in agent.events if e["event"] == "hangup"]
    assert legs == [(True, "callee", "callee"), (False, reason, initiator)]


async def test_the_caller_hangs_up_first(tmp_path: Path) -> None:
    """Carol gets our BYE."""
    async with talking(tmp_path, "regint=0;answermode=auto") as (phone, carol, agent, _):
        await refer(agent, carol)
        await agent.until("answer", 2)
        await phone.do("hangup")
        await carol.closed()
        await over(agent, "caller", "caller")


async def test_a_busy_person(tmp_path: Path) -> None:
    """486, and the agent has its caller back."""
    async with talking(tmp_path) as (_, carol, agent, _music):
        await refer(agent, carol)
        await carol.until("CALL_INCOMING")
        await carol.do("hangup")
        assert (await agent.until("reject"))["code"] == 486
        await agent.send("tts", text="busy", endOfStream=True)
        await agent.until("trackEnd")
        await agent.send("hangup")
        await over(agent, "system", "system")


async def test_nobody_answers(tmp_path: Path) -> None:
    """After the timeout: 408, Carol's phone stops ringing, the caller is the agent's."""
    async with talking(tmp_path) as (_, carol, agent, _music):
        await refer(agent, carol, timeout=1)
        await carol.until("CALL_INCOMING")
        assert (await agent.until("reject"))["code"] == 408
        await carol.closed()
        await agent.send("hangup")
        await over(agent, "system", "system")
