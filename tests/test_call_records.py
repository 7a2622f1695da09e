"""What calls leave behind: event files, and a record for each way a call can end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from rustpbx.settings import Config, LocalCallRecord
from rustpbx.testing.house import EPOCH
from tests.kit.house import House, open_house, server_config
from tests.test_calls import DIAL, answered, over

GOLDEN = Path(__file__).parent / "golden" / "callrecords"
SECRET = "hunter2-is-not-to-be-seen"
TTS = {"provider": "scripted", "secretKey": SECRET, "appId": SECRET}


def recorded(folder: Path, **changes: Any) -> Config:
    """A server that keeps event files, recordings and records below a folder."""
    return server_config(
        recorder_path=str(folder / "rec"), callrecord=LocalCallRecord(root=str(folder / "cdr")), **changes
    )


def the_record(folder: Path) -> dict[str, Any]:
    """The one record that was written."""
    (path,) = (folder / "cdr").iterdir()
    content: dict[str, Any] = json.loads(path.read_text())
    assert path.name.endswith(f"_{content['callId'].replace('/', '_')}.json")
    return content


def lines_of(path: str) -> list[dict[str, Any]]:
    """The objects of an event file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def the_recording(folder: Path) -> Path:
    """The one recording there is."""
    (path,) = (folder / "rec").glob("mine.*")
    return path


def size_of(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def files_below(folder: Path) -> list[Path]:
    """Every file."""
    return [path for path in folder.rglob("*") if path.is_file()]


async def hang_up_by_agent(house: House) -> None:
    """The agent ends an answered call."""
    async with answered(house, tts=TTS) as (_, agent):
        await trio.sleep(1)
        await agent.send("hangup")
        await over(agent)


async def hang_up_with_words(house: House) -> None:
    """The agent ends it for a reason of its own."""
    async with answered(house, tts=TTS) as (_, agent):
        await agent.send("hangup", reason="max call time reached")
        await over(agent)


async def phone_hangs_up(house: House) -> None:
    """The caller ends an answered call."""
    async with answered(house, tts=TTS) as (call, agent):
        call.hang_up((("Reason", 'Q.850;cause=16;text="Normal call clearing"'),))
        await over(agent)


async def agent_rejects(house: House) -> None:
    """The agent refuses an incoming call."""
    call = await house.phone.dial(DIAL)
    async with house.incoming() as (agent, _):
        await agent.send("reject", reason="Busy here", code=486)
        await over(agent)
    await call.ended()


async def caller_cancels(house: House) -> None:
    """The caller gives up before the answer."""
    call = await house.phone.dial(DIAL)
    async with house.incoming() as (agent, _):
        await agent.send("ringing")
        await call.progressed()
        call.hang_up()
        await over(agent)


async def nobody_accepts(house: House) -> None:
    """The agent is there and says nothing until the time is up."""
    call = await house.phone.dial(DIAL)
    async with house.incoming() as (agent, _):
        await over(agent)
    await call.ended()


async def nobody_comes(house: House) -> None:
    """The webhook answers, and no agent connects."""
    call = await house.phone.dial(DIAL)
    await call.ended()


async def callee_hangs_up(house: House) -> None:
    """A call of the agent's: the callee ends it."""
    async with house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri, "sip": {"username": "u", "password": SECRET}})
        call = await house.phone.ring()
        call.ringing()
        call.answer()
        await agent.until("answer")
        call.hang_up()
        await over(agent)


async def callee_is_busy(house: House) -> None:
    """A call of the agent's is refused."""
    async with house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri, "extra": {"order": "17"}})
        (await house.phone.ring()).reject(486, "Busy Here")
        await over(agent)


async def agent_cancels(house: House) -> None:
    """The agent gives up before the answer."""
    async with house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri})
        call = await house.phone.ring()
        call.ringing()
        await agent.until("ringing")
        await agent.send("hangup")
        await over(agent)


async def agent_vanishes(house: House) -> None:
    """The agent's socket drops in the middle of the call."""
    async with answered(house, tts=TTS) as (call, _):
        await trio.sleep(1)
    await call.ended()


async def set_up_fails(house: House) -> None:
    """A call to an address that is none."""
    async with house.agent() as agent:
        await agent.send("invite", option={"callee": "not an address"})
        await over(agent)


async def transferred_and_over(house: House) -> None:
    """The caller is transferred, talks, and hangs up: a record within the record."""
    target = await house.new_phone("target", "10.0.0.9")
    async with answered(house, tts=TTS) as (call, agent):
        options = {"sip": {"username": "u", "password": SECRET}}
        await agent.send("refer", caller="sip:bot@10.0.0.1", callee="sip:target@10.0.0.9:5060", options=options)
        await target.rings()
        await target.answers()
        await agent.until("answer")
        await trio.sleep(1)
        call.hang_up()
        await over(agent)


WAYS = (
    *(
        hang_up_by_agent,
        hang_up_with_words,
        phone_hangs_up,
        agent_rejects,
        caller_cancels,
        nobody_accepts,
        nobody_comes,
    ),
    *(callee_hangs_up, callee_is_busy, agent_cancels, agent_vanishes, set_up_fails, transferred_and_over),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_each_way_a_call_ends_has_its_record(way: Any, tmp_path: Path) -> None:
    """The record of each end, word for word; no secret is in any file that the call left."""
    async with open_house(config=recorded(tmp_path)) as house:
        await way(house)
    record = the_record(tmp_path)
    text = json.dumps(record, indent=1, ensure_ascii=False).replace(str(tmp_path), "/srv") + "\n"
    golden = GOLDEN / f"{way.__name__}.json"
    if os.environ.get("WRITE_GOLDENS"):  # to renew them, and to look at the difference
        golden.write_text(text)
    assert text == golden.read_text()
    assert [path for path in files_below(tmp_path) if SECRET in path.read_text(errors="replace")] == []


async def test_the_event_file_has_every_command_and_event_in_order(tmp_path: Path) -> None:
    """One JSON object a line, its content a JSON string, with its time; pings are among them, secrets are not."""
    async with open_house(config=recorded(tmp_path)) as house, answered(house, tts=TTS) as (_, agent):
        await agent.send("tts", text="hello", option={"provider": "scripted", "secretKey": SECRET})
        await agent.until("trackStart", 2)
        await agent.send("history", speaker="user", text="hi")
        await agent.until("addHistory")
        await agent.send("hangup")
        await over(agent)
    record = the_record(tmp_path)
    lines = lines_of(record["dumpEventFile"])
    contents = [(line["type"], json.loads(line["content"])) for line in lines]
    events = [content for kind, content in contents if kind == "event"]
    assert [event for event in events if event["event"] not in ("ping", "metrics")] == agent.events
    assert "ping" in [event["event"] for event in events]
    assert [content["command"] for kind, content in contents if kind == "command"] == [
        "accept",
        "tts",
        "history",
        "hangup",
    ]
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert lines[0]["timestamp"] >= EPOCH * 1000
    kinds = [content.get("event") or content["command"] for _, content in contents]
    assert kinds.index("history") < kinds.index("addHistory")
    assert kinds[-1] == "hangup"


async def test_no_event_file_where_the_agent_wants_none(tmp_path: Path) -> None:
    """`dump=false`: nothing is written of what is said, and the record names no file."""
    async with open_house(config=recorded(tmp_path)) as house, house.agent("/call/sip?dump=false") as agent:
        await agent.send("invite", option={"callee": "not an address"})
        await over(agent)
    assert "dumpEventFile" not in the_record(tmp_path)
    assert [path.suffix for path in files_below(tmp_path)] == [".json"]


@pytest.mark.parametrize("kind", ["wav", "mp3"])
async def test_the_record_is_written_when_its_recording_is_whole(kind: str, tmp_path: Path) -> None:
    """Its path is a file, and that file has its size, in the format that was asked for."""
    option = {"recorderFile": "mine", "format": kind}
    async with open_house(config=recorded(tmp_path)) as house, answered(house, recorder=option) as (_, agent):
        await trio.sleep(2)
        await agent.send("hangup")
        await over(agent)
    record = the_record(tmp_path)
    (media,) = record["recorder"]
    path = the_recording(tmp_path)
    assert (media["path"], media["size"]) == (str(path), size_of(path))
    assert path.suffix == f".{kind}"
    assert media["trackId"] == record["callId"]
    assert "extra" not in media
