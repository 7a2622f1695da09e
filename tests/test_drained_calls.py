"""`after: "drained"` in whole calls: the last word is heard before the call ends, or goes to somebody else."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from rustpbx.testing.house import House
from tests.test_refer_calls import T, bridge, refer, talking

LAST = "goodbye my friend"


async def says(house: House, **fields: Any) -> None:
    """The agent's last words."""
    await house.desk.send("tts", text=LAST, playId="last", **fields)


@pytest.mark.parametrize("fields", [{}, {"endOfStream": True}, {"streaming": True}, {"autoHangup": True}], ids=str)
async def test_a_hangup_waits_for_the_last_word(fields: dict[str, bool]) -> None:
    """All of it is heard, open or closed; then BYE with the agent's own reason and header fields."""
    async with talking() as (house, _):
        await says(house, **fields)
        await house.desk.send("hangup", reason="done", after="drained", headers={"X-Why": "because"})
        hangup = await house.desk.is_hung_up()
        assert (hangup["reason"], hangup["initiator"]) == ("done", "system")
        assert house.desk.names[-5:] == ["answer", "trackStart", "trackEnd", "trackEnd", "hangup"]
        ending = await house.handset.call.ended()
        assert house.handset.heard == LAST
        assert b"X-Why: because" in next(t.data for t in house.phone.trace if t.data.startswith(b"BYE"))
        assert ending.at <= trio.current_time()


async def test_a_hangup_with_nothing_to_wait_for_ends_the_call_soon() -> None:
    """A fifth of a second is left for what the phone has still to play."""
    async with talking() as (house, _):
        began = trio.current_time()
        await house.desk.send("hangup", after="drained")
        await house.desk.is_hung_up()
        assert round(trio.current_time() - began, 1) == 0.2


async def test_words_before_the_answer_are_waited_for() -> None:
    """Invited, spoken to, hung up, all in one burst: the phone hears it."""
    async with House().open() as house:
        await house.desk.dials()
        await says(house)
        await house.desk.send("hangup", after="drained")
        await house.handset.answers()
        await house.handset.hears(LAST)
        assert (await house.desk.is_hung_up())["reason"] == "system"
        await house.settle()


async def test_a_transfer_waits_for_the_last_word() -> None:
    """Nobody is called before it; then as always."""
    async with talking() as (house, carol):
        await says(house)
        await house.desk.send("refer", caller="sip:bot@h", callee=carol.phone.uri, after="drained")
        await house.handset.hears("goodbye")
        assert not carol.phone.calls
        await carol.answers()
        assert house.handset.heard == LAST
        assert "interruption" not in house.desk.names
        await house.desk.hangs_up()


async def test_what_is_said_behind_it_is_an_error_and_an_interruption_ends_the_wait() -> None:
    """No text after the last one; who is cut short is hung up at once."""
    async with talking() as (house, _):
        await says(house)
        await house.desk.send("hangup", after="drained")
        await house.desk.send("tts", text="and one more thing")
        assert (await house.desk.until("error"))["error"] == "tts is not possible: a hangup waits for the last word"
        await trio.sleep(0.3)
        await house.desk.send("interrupt")
        await house.desk.is_hung_up()
        assert house.desk.names[-4:] == ["interruption", "trackEnd", "trackEnd", "hangup"]


async def test_the_next_command_takes_the_place_of_the_one_that_waits() -> None:
    """A hangup without `after` does not wait, and a transfer that is done at once is not followed by a hangup."""
    async with talking() as (house, carol):
        await says(house)
        await house.desk.send("hangup", after="drained")
        await bridge(house, carol)
        await house.desk.send("hangup", reason="now")
        assert (await house.desk.is_hung_up())["reason"] == "now"


async def test_a_loop_has_no_last_word() -> None:
    """Music on hold is not waited for."""
    async with talking() as (house, carol):
        await refer(house, moh="http://10.0.0.3:9001/music.wav")
        await carol.rings()
        await house.desk.send("hangup", after="drained")
        await house.desk.is_hung_up(within=5)
        assert ("trackEnd", T) in [(e["event"], e["trackId"]) for e in house.desk.events]


async def test_another_word_for_it_is_an_error() -> None:
    """Nothing else can be waited for, and the call goes on."""
    async with talking() as (house, _):
        await house.desk.send("hangup", after="lunch")
        assert (await house.desk.until("error"))["error"] == "hangup.after: 'lunch' is not drained"
        await house.desk.hangs_up()
