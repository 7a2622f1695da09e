"""Every misfortune, one after the other, over whole calls in virtual time; `tests.kit.sweeps` says what must hold."""

from __future__ import annotations

import attrs
import pytest
import trio

from rustpbx.session.tables import Attachment, Call
from rustpbx.settings import HandlerConfig, UaConfig
from rustpbx.sip import events as sip
from rustpbx.testing.house import AGENT, SERVER, House, Plan, server_config
from rustpbx.testing.matching import request, response
from rustpbx.testing.speech import ScriptedSpeech, ScriptedSynthesizer, Trouble, dies, refuses, stalls
from rustpbx.testing.wire import Link
from tests.kit.agent import Agent
from tests.kit.rounds import while_it_lasts
from tests.kit.soak import DOOMED, STAGE, SoakError, cancel_sweep, soak_call
from tests.kit.sweeps import (
    Direction,
    Side,
    Story,
    check_order,
    connected,
    story,
    when_stepped,
    whole_call,
)
from tests.test_calls import SCRIPTED, answered

BOTH_WAYS = pytest.mark.parametrize("direction", ["in", "out"])
EITHER_SIDE = pytest.mark.parametrize("hangs_up", ["phone", "agent"])

ENDINGS = {
    ("in", "phone"): (("caller", "caller"), "us"),
    ("in", "agent"): (("system", "system"), "ByeReceived"),
    ("out", "phone"): (("callee", "callee"), "us"),
    ("out", "agent"): (("system", "system"), "ByeReceived"),
}
"""How a call ends that goes its way: what the agent is told (reason, initiator), and what the phone sees."""

# -- the order of events --------------------------------------------------------------------------------------------

START, END = {"event": "trackStart", "trackId": "a"}, {"event": "trackEnd", "trackId": "a"}
HANGUP, ANSWER, REJECT = {"event": "hangup"}, {"event": "answer"}, {"event": "reject"}


@pytest.mark.parametrize(
    "events",
    [
        [],
        [HANGUP, START],
        [HANGUP, HANGUP],
        [START, HANGUP],
        [END, HANGUP],
        [START, START, END, HANGUP],
        [START, END, END, HANGUP],
        [START, END, {"event": "interruption", "trackId": "a"}, HANGUP],
        [{"event": "asrFinal"}, START, END, HANGUP],
        [ANSWER, ANSWER, HANGUP],
        [ANSWER, REJECT, HANGUP],
        [ANSWER, {"event": "ringing"}, HANGUP],
    ],
)
def test_what_is_out_of_order_is_noticed(events: list[dict[str, str]]) -> None:
    """The judge of all sweeps refuses each kind of disorder, and lets an ordinary call pass."""
    with pytest.raises(AssertionError):
        check_order(events, complete=True)
    check_order([START, ANSWER, {"event": "asrFinal"}, END, HANGUP], complete=True)
    check_order([START, ANSWER], complete=False)


# -- messages that are lost -----------------------------------------------------------------------------------------

MESSAGES = {
    "INVITE": request("INVITE"),
    "100": response(100, "INVITE"),
    "180": response(180, "INVITE"),
    "200": response(200, "INVITE"),
    "ACK": request("ACK"),
    "BYE": request("BYE"),
    "200 of BYE": response(200, "BYE"),
}


@BOTH_WAYS
@EITHER_SIDE
@pytest.mark.parametrize("message", MESSAGES)
async def test_a_message_lost_once_is_sent_again(direction: Direction, hangs_up: Side, message: str) -> None:
    """The call goes its way, half a second later at most (T1)."""
    async with story() as (told, house):
        rule = house.wire.lose(MESSAGES[message])
        began = trio.current_time()
        await whole_call(told, direction, hangs_up)
        assert rule.hits == 1
        assert trio.current_time() - began in (1.5, 2.0)
        assert (told.ending, told.phones_end) == ENDINGS[direction, hangs_up]
        assert "answer" in told.names


@attrs.frozen
class Lost:
    """What becomes of a call all of whose messages of a kind are lost, both ways."""

    ending: tuple[str, str] | None
    phone: str
    answered: bool = True
    talk: float = 1.0


NEVER_ARRIVES = Lost(None, "CallRefused 408", answered=False)
NO_ANSWER = Lost(("callee", "callee"), "no call", answered=False)
BY_THE_AGENT = ("system", "system")

LOST: dict[tuple[Direction, Side, str], Lost] = {
    **{("in", side, "INVITE"): NEVER_ARRIVES for side in ("phone", "agent")},
    **{("out", side, "INVITE"): NO_ANSWER for side in ("phone", "agent")},
    # Our 200 is never acknowledged: BYE after 64*T1 (13.3.1.4). The agent may have hung up before, which waits for it.
    ("in", "phone", "200"): Lost(("failed", "system"), "ByeReceived"),
    ("in", "agent", "200"): Lost(BY_THE_AGENT, "ByeReceived"),
    # The phone's 200 is: it gives up, and we are still ringing when its BYE comes.
    **{("out", side, "200"): Lost(("callee", "callee"), "CallLost", answered=False) for side in ("phone", "agent")},
    **{("in", side, "ACK"): Lost(("failed", "system"), "ByeReceived", talk=50.0) for side in ("phone", "agent")},
    **{("out", side, "ACK"): Lost(("callee", "callee"), "CallLost", talk=50.0) for side in ("phone", "agent")},
    # Nobody tells the other side, until that loses its patience.
    **{(way, side, "BYE"): Lost(BY_THE_AGENT, "us") for way in ("in", "out") for side in ("phone", "agent")},
}
"""The others go their way: provisional responses are not vital, and who has said BYE does not need an answer."""


@BOTH_WAYS
@EITHER_SIDE
@pytest.mark.parametrize("message", MESSAGES)
async def test_a_message_that_never_arrives(direction: Direction, hangs_up: Side, message: str) -> None:
    """The call ends on both sides as the RFC has it, or goes its way if it can do without the message."""
    expected = LOST.get((direction, hangs_up, message)) or Lost(*ENDINGS[direction, hangs_up])
    async with story() as (told, house):
        rule = house.wire.lose(MESSAGES[message], count=None)
        await whole_call(told, direction, hangs_up, expected.talk)
        assert rule.hits >= 1
        assert Lost(told.ending, told.phones_end, "answer" in told.names, expected.talk) == expected


@BOTH_WAYS
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "link",
    [
        Link(loss=0.1),
        Link(loss=0.3),
        Link(reorder=0.5, reorder_by=0.7),
        Link(duplication=0.5),
        Link(delay=0.2, jitter=0.3, loss=0.1, duplication=0.1, reorder=0.3),
    ],
    ids=["10 % lost", "30 % lost", "out of order", "twice", "all of it"],
)
async def test_bad_weather(link: Link, seed: int, direction: Direction) -> None:
    """With whatever is lost, late, doubled: the call goes through, and both sides know of its end."""
    side: Side = "phone" if seed % 2 else "agent"
    async with story(Plan(signalling_only=True, seed=seed, link=link)) as (told, _):
        await whole_call(told, direction, side)
        assert "answer" in told.names
        assert told.ending is not None
        assert told.phones_end != "still up"


@pytest.mark.parametrize("loss", [0.1, 0.3])
async def test_bad_weather_for_the_audio_too(loss: float) -> None:
    """What is said in a call with losses is played to its end, and the call with it."""
    async with story(Plan(seed=3, link=Link(loss=loss, jitter=0.05, reorder=0.1))) as (told, _):
        await whole_call(told, "in", "agent", talk=2.0)
        assert told.names.count("trackEnd") == told.names.count("trackStart") == 2


# -- the webhook ----------------------------------------------------------------------------------------------------


def announced_to(*urls: str) -> Plan:
    """A house whose server announces calls to these."""
    handler = HandlerConfig(type="webhook", urls=urls, timeout=8.0)
    ua = UaConfig(addr=SERVER, udp_port=5060, accept_timeout=50.0, handler=handler)
    return Plan(config=server_config(ua=ua), signalling_only=True)


GOOD, CLOSED, NOBODY = f"http://{AGENT}:9000/hook", f"http://{AGENT}:9999/", "http://nobody.test/"


@pytest.mark.parametrize(
    ("urls", "status", "silent", "delay"),
    [
        ((CLOSED,), 200, False, 0.0),
        ((NOBODY,), 200, False, 0.0),
        ((GOOD,), 500, False, 0.0),
        ((GOOD,), 404, False, 0.0),
        ((GOOD,), 200, True, 0.0),
        ((GOOD,), 200, False, 9.0),
        ((CLOSED, NOBODY), 200, False, 0.0),
    ],
    ids=["refused", "no such host", "500", "404", "silent", "too slow", "both"],
)
async def test_a_webhook_that_fails(urls: tuple[str, ...], status: int, silent: bool, delay: float) -> None:
    """The phone is told that nobody is there (503), as soon as that is certain."""
    async with story(announced_to(*urls)) as (told, house):
        house.webhook.status, house.webhook.silent, house.webhook.delay = status, silent, delay
        began = trio.current_time()
        told.call = await house.phone.dial(house.uri)
        await told.call.ended()
        assert told.phones_end == "CallRefused 503"
        assert trio.current_time() - began <= 8.0


@pytest.mark.parametrize("urls", [(GOOD,), (CLOSED, GOOD), (NOBODY, CLOSED, GOOD)])
async def test_a_slow_webhook_and_one_behind_bad_ones(urls: tuple[str, ...]) -> None:
    """The call goes its way: the agent comes before the webhook answers, or by the next URL."""
    async with story(announced_to(*urls)) as (told, house):
        house.webhook.delay = 5.0
        await whole_call(told, "in", "agent")
        assert (told.ending, told.phones_end) == ENDINGS["in", "agent"]


# -- the agent's socket ---------------------------------------------------------------------------------------------


@attrs.frozen
class Drop:
    """A state of the call in which the agent's socket drops: a way there, and how the phone's call ends then."""

    direction: Direction
    phone: str
    machine: str = "session.call"
    enters: Attachment | None = None
    """Watch the attachment instead: the call is in that state already."""
    says: str | None = None
    """What the agent says in the call; with it the call has audio, and ends itself."""


DROPS: dict[Call, Drop] = {
    Call.NEW: Drop("out", "no call", "session.attachment", Attachment.ATTACHED),
    Call.INCOMING: Drop("in", "CallRefused 480", "session.attachment", Attachment.ATTACHED),
    Call.RINGING: Drop("in", "CallRefused 480"),
    Call.ANSWERING: Drop("in", "ByeReceived"),
    Call.DIALLING: Drop("out", "no call"),
    Call.EARLY: Drop("out", "CallCancelled"),
    Call.CONNECTING: Drop("stream", "no call"),
    Call.TALKING: Drop("in", "ByeReceived"),
    Call.PARTING: Drop("in", "ByeReceived", says="bye"),
    Call.ENDING: Drop("in", "ByeReceived"),
    Call.ENDED: Drop("in", "ByeReceived"),
}
"""Nobody has claimed a call in INCOMING: it waits for the next agent, here until nobody has come (480). As DIALLING
begins, the INVITE has not been sent."""


def test_each_state_has_its_drop() -> None:
    """A state that is new in the table needs a row here."""
    assert set(DROPS) == set(Call)


@pytest.mark.parametrize("how", ["socket", "attachment"])
@pytest.mark.parametrize("state", list(Call), ids=lambda state: state.name)
async def test_the_agents_socket_drops_in_each_state(state: Call, how: str) -> None:
    """As the call enters the state, the socket breaks, or the call hears of it at that very moment: both sides end."""
    drop = DROPS[state]
    async with story(Plan(signalling_only=drop.says is None)) as (told, house), trio.open_nursery() as nursery:

        def act() -> None:
            told.agent_vanished = True
            if how == "socket" and told.agent is not None:
                nursery.start_soon(_drops, told.agent)
            for call in list(house.server.registry.calls.values()):
                if how == "attachment" and call.attachment is not None:
                    call.attachment.lost("dropped by the test")

        with when_stepped(drop.machine, drop.enters or state, act) as moments:
            if drop.says is None:
                await whole_call(told, drop.direction, "agent", talk=0.5)
            else:
                await _says_goodbye(told, house, drop.says)
        assert len(moments) == 1
        assert told.phones_end == drop.phone


async def _drops(agent: Agent) -> None:
    """Break the socket, as soon as the agent has its end of it."""
    with trio.fail_after(1):
        for _ in while_it_lasts(lambda: not connected(agent)):
            await trio.lowlevel.checkpoint()
    await agent.drop()


async def _says_goodbye(told: Story, house: House, text: str) -> None:
    told.call = await house.phone.dial(house.uri)
    told.agent = house.new_agent()
    await told.agent.answers()
    await told.agent.send("tts", text=text, endOfStream=True, autoHangup=True)
    await told.call.ended()


@BOTH_WAYS
async def test_the_socket_drops_at_any_moment(direction: Direction) -> None:
    """Every 50 ms of a call, whatever is under way then: the phone's call ends, and nothing is left."""
    for moment in range(2, 42, 3):
        async with story() as (told, _), trio.open_nursery() as nursery:

            async def drop(after: float, told: Story = told) -> None:
                await trio.sleep(after)
                if told.agent is not None:
                    told.agent_vanished = True
                    await told.agent.drop()

            nursery.start_soon(drop, moment * 0.05)
            await whole_call(told, direction, "phone")
            assert told.phones_end != "still up"


async def test_the_socket_drops_while_the_phone_does_not_answer() -> None:
    """No CANCEL before a provisional response (9.1): the INVITE runs into its time limit, and nothing is left."""
    async with story() as (told, house):
        house.wire.lose(MESSAGES["INVITE"], count=None)
        agent = told.agent = house.new_agent()
        await agent.dials()
        await trio.sleep(3)
        told.agent_vanished = True
        await agent.drop()
        await trio.sleep(1)
        assert house.server.registry.calls == {}
        assert house.leftovers()["transactions"] == 1


async def test_the_next_agent_takes_a_call_that_nobody_has_claimed() -> None:
    """The first one's socket drops before it said anything; the second accepts, and the call goes its way."""
    async with story() as (told, house):
        call = told.call = await house.phone.dial(house.uri)
        first, second = house.new_agent(), house.new_agent()
        notice = await first.is_called()
        await first.drop()
        await trio.sleep(0.1)
        told.agent = second
        await second.connects(f"/call/sip?id={notice['dialogId']}")
        await second.send("accept", option=SCRIPTED)
        await call.answered()
        call.hang_up()
        await second.ended()
        assert told.ending == ("caller", "caller")


# -- speech ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [refuses(), stalls(), stalls(0.3), dies(0.2), dies(0.0)], ids=str)
async def test_a_synthesizer_in_trouble(trouble: Trouble) -> None:
    """The playback ends, with one `error` at most, and the call goes on: the next text is heard."""
    speech = ScriptedSpeech(synthesizer=ScriptedSynthesizer(failures={"first": trouble}))
    async with story(Plan(speech=speech)) as (told, house):
        call = told.call = await house.phone.dial(house.uri)
        agent = told.agent = house.new_agent()
        await agent.answers()
        await agent.send("tts", text="first", playId="1", endOfStream=True)
        await agent.until("trackEnd", within=60)
        await agent.says("second")
        assert agent.names.count("error") == 1
        await agent.hangs_up()
        assert isinstance((await call.ended()).cause, sip.ByeReceived)


async def test_a_stream_that_takes_not_even_its_first_piece() -> None:
    """No such provider: each piece is one `error`, not one after the other without end, and the playback is over."""
    async with story(Plan()) as (told, house):
        told.call = await house.phone.dial(house.uri)
        agent = told.agent = house.new_agent()
        await agent.answers()
        option = {"provider": "nobody"}
        await agent.send("tts", text="one", streaming=True, option=option)
        await agent.send("tts", text="two", streaming=True, option=option, endOfStream=True)
        await agent.until("trackEnd", within=5)
        assert agent.names.count("error") == 2
        await agent.says("still here")
        await agent.hangs_up()


@pytest.mark.parametrize("trouble", [refuses(), stalls(), stalls(0.5), dies(0.5)], ids=str)
async def test_a_recognizer_in_trouble(trouble: Trouble) -> None:
    """One `error` at most; speaking, keys and the end of the call are as ever."""
    async with story(Plan(speech=ScriptedSpeech(listening=trouble))) as (told, house):
        call = told.call = await house.handset.dials()
        agent = told.agent = house.new_agent()
        await agent.answers()
        await house.handset.says("hello")
        await house.handset.presses("5")
        assert (await agent.until("dtmf"))["digit"] == "5"
        await agent.says("still here")
        assert agent.names.count("error") == int(trouble.error is not None)
        call.hang_up()
        await agent.ended()
        assert told.ending == ("caller", "caller")


@pytest.mark.parametrize("direction", ["in"])
@pytest.mark.parametrize("poison", ["law_in", "law_out"])
async def test_a_poisoned_row_ends_its_call_only(direction: Direction, poison: str) -> None:
    """A stage raises for one leg: that call ends with BYE and `hangup`, the other one hears every word."""
    async with story(Plan(), errors=1) as (told, house), answered(house) as (call, agent):
        told.agent = other = house.new_agent()
        told.call = await house.phone.dial(house.uri)
        await other.answers()
        legs = list(house.server.registry.calls)
        bad = house.server.plane.leg(legs[1])
        assert bad is not None
        getattr(house.server.plane._bank, poison)[bad.slot] = 99
        await told.call.ended()
        await other.ended()
        assert (told.ending, told.phones_end) == (("failed", "system"), "ByeReceived")
        await agent.says("still here")
        assert call.ending is None
        await agent.hangs_up()


# -- the server is cancelled ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "first", "stride"),
    [(DOOMED[0], 1, 13), (DOOMED[1], 1, 13), (DOOMED[2], 4, 37), (DOOMED[3], 8, 37)],
    ids=str,
)
def test_the_server_is_cancelled_at_a_step(call: tuple[Direction, Side, bool], first: int, stride: int) -> None:
    """Wherever it stands: it says goodbye to phone and agent, and leaves no task and no port; the rest lives on.

    `make soak` does it at every step.
    """
    assert cancel_sweep(*call, first=first, stride=stride) > 200


# -- chance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(10))
def test_calls_at_random(block: int) -> None:
    """300 calls of random misfortune, agents and phones; `make soak` makes 10,000, and replays one by its seed."""
    for seed in range(30 * block, 30 * (block + 1)):
        soak_call(seed)


def test_a_random_call_that_goes_wrong_names_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the way to see it again; the same seed is the same call."""

    async def check(_: House) -> None:
        raise AssertionError("something is left")

    def carried() -> list[tuple[float, bytes]]:
        soak_call(11)
        assert STAGE.house is not None
        return [(one.at, one.data) for one in STAGE.house.wire.transcript]

    assert carried() == carried()
    monkeypatch.setattr("tests.kit.soak.check_house", check)
    with pytest.raises(SoakError, match="seed 11: replay it with `make soak ARGS='--seed 11'`"):
        soak_call(11)
