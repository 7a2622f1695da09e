"""The dial policy over whole calls: what an agent is told, and what each rule counts."""

from __future__ import annotations

import attrs
import pytest
import trio

from rustpbx.embed.call import CallEndedError
from rustpbx.settings import Config, DialConfig, DialRule
from tests.kit.house import PHONE, House, server_config
from tests.test_calls import over, quiet_house

TOKENS = ("token-of-sales", "token-of-support")


def config(**dial: object) -> Config:
    """A server with tokens and this policy."""
    policy = DialConfig(**dial)  # type: ignore[arg-type]  # keys by name, as in a file
    return server_config(dial=policy, tokens=TOKENS)


async def refused(house: House, callee: str, path: str = "/call/sip") -> tuple[int, str]:
    """A call that the policy forbids: code and reason of its `reject`, which is followed by `hangup` alone."""
    async with house.agent(path) as agent:
        await agent.send("invite", option={"callee": callee})
        reject = await agent.until("reject")
        hangup = await over(agent)
        assert agent.names == ["reject", "hangup"]
        assert (hangup["reason"], hangup["initiator"]) == ("rejected", "system")
        return reject["code"], reject["reason"]


@pytest.mark.parametrize(
    ("callee", "reason"),
    [
        (f"sip:+1-900-555-1234@{PHONE}", "dial policy: premium-rate"),
        (f"sip:%2B881612345678@{PHONE};user=phone", "dial policy: satellite"),
        (f"sip:+4930112@{PHONE}", "dial policy: no-112"),
        (f"sip:bob@{PHONE}", "dial policy: not-allowed"),
    ],
)
async def test_a_forbidden_call_is_rejected_with_the_rules_name(callee: str, reason: str) -> None:
    """403; nothing is sent to anybody; the rule's counter moves."""
    rules = config(
        allow=(DialRule(name="germany", patterns=("+49*",)),), deny=(DialRule(name="no-112", patterns=("*112",)),)
    )
    async with quiet_house(config=attrs.evolve(rules, allow_anonymous=True)) as house:
        before = len(house.wire.transcript)
        assert await refused(house, callee) == (403, reason)
        assert len(house.wire.transcript) == before
        assert dict(house.server.registry.dial_plan.counters) == {reason.removeprefix("dial policy: "): 1}


async def test_what_the_rules_allow_rings() -> None:
    """The number is dialled as the agent wrote it."""
    germany = config(allow=(DialRule(name="germany", patterns=("+49*",)),))
    async with quiet_house(config=germany) as house, house.agent(f"/call/sip?token={TOKENS[0]}") as agent:
        await agent.send("invite", option={"callee": f"sip:+49-30-1234@{PHONE}"})
        call = await house.phone.ring()
        assert call.incoming is not None
        assert call.incoming.callee.uri.user == "+49-30-1234"
        call.reject(486)
        await over(agent)


async def test_a_token_has_so_many_calls_at_one_time() -> None:
    """The other token's calls are its own; a call that ends makes room."""
    async with quiet_house(config=config(max_calls_per_token=1)) as house:
        path = f"/call/sip?token={TOKENS[0]}"
        async with house.agent(path) as agent:
            await agent.send("invite", option={"callee": f"sip:1@{PHONE}"})
            first = await house.phone.ring()
            assert await refused(house, f"sip:2@{PHONE}", path) == (403, "dial policy: max_calls_per_token")
            async with house.agent(f"/call/sip?token={TOKENS[1]}") as other:
                await other.send("invite", option={"callee": f"sip:3@{PHONE}"})
                (await house.phone.ring()).reject(486)
                await over(other)
            assert dict(house.server.registry.dial_plan.usage) == {"token 1": 1, "token 2": 0}
            first.reject(486)
            await over(agent)
        async with house.agent(path) as agent:
            await agent.send("invite", option={"callee": f"sip:4@{PHONE}"})
            (await house.phone.ring()).reject(486)
            await over(agent)


@pytest.mark.parametrize(("key", "second"), [("max_per_minute", TOKENS[1]), ("max_per_minute_per_token", TOKENS[0])])
async def test_calls_within_a_minute_are_capped(key: str, second: str) -> None:
    """Over all, or for one token; a minute later the next one rings."""
    async with quiet_house(config=config(**{key: 1})) as house:
        for round_ in range(2):
            async with house.agent(f"/call/sip?token={TOKENS[0]}") as agent:
                await agent.send("invite", option={"callee": f"sip:1@{PHONE}"})
                (await house.phone.ring()).reject(486)
                await over(agent)
            assert await refused(house, f"sip:2@{PHONE}", f"/call/sip?token={second}") == (403, f"dial policy: {key}")
            await trio.sleep(60)
            assert house.server.registry.dial_plan.counters[key] == round_ + 1


async def test_an_embedded_program_is_under_the_policy_too() -> None:
    """Its calls are judged as an agent's are."""
    async with quiet_house(config=config()) as house:
        with pytest.raises(CallEndedError, match="403 dial policy: premium-rate") as caught:
            async with house.server.call() as call:
                await call.invite(callee=f"sip:+19005551234@{PHONE}")
        assert caught.value.code == 403
