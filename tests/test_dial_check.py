"""`dial-check`: the decision, the rule, the number, the servers, and an exit status for scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rustpbx import cli
from rustpbx.dial_check import find_servers, parse_target
from rustpbx.settings import UaConfig
from rustpbx.shell.records import Srv
from rustpbx.testing.wire import open_wire

CONF = """\
tokens = ["token-of-sales", "token-of-support"]
[ua]
addr = "127.0.0.1"
[[ua.register_users]]
server = "sip.example.com"
username = "1001"
[dial]
country_code = "49"
deny = [{ name = "no-mobiles", patterns = ["+4915*"] }]
allow = [{ name = "germany", patterns = ["+49*"] }]
max_per_minute = 60
max_calls_per_token = 5
"""


Printed = Callable[[], tuple[list[str], str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """What was printed since the last time: lines on standard output, text on standard error."""

    def take() -> tuple[list[str], str]:
        captured = capsys.readouterr()
        return captured.out.splitlines(), captured.err

    return take


@pytest.fixture
def conf(tmp_path: Path) -> str:
    """A configuration with an account, rules and caps."""
    path = tmp_path / "c.toml"
    path.write_text(CONF)
    return str(path)


@pytest.mark.parametrize(
    ("uri", "status", "decision", "number"),
    [
        ("sip:030-123456@192.0.2.1", 0, "allowed by the rule 'germany'", "+4930123456"),
        ("sip:+4915112345@192.0.2.1", 1, "denied by the rule 'no-mobiles'", "+4915112345"),
        ("sip:0900123456@192.0.2.1", 1, "denied by the rule 'premium-rate'", "+49900123456"),
        ("sip:bob@192.0.2.1", 1, "denied by the rule 'not-allowed'", "none, this is a name"),
    ],
)
def test_a_decision(conf: str, printed: Printed, uri: str, *, status: int, decision: str, number: str) -> None:
    """Five lines, and 0 or 1."""
    assert cli.main(["dial-check", uri, "--conf", conf, "--token", "token-of-support"], {}) == status
    assert printed() == (
        [
            f"{uri}: {decision}",
            f"  number: {number}",
            "  shipped rules (premium rate, satellite): hold",
            "  caps for token 2: 60 calls a minute over all, 5 calls at one time",
            "  servers: udp:192.0.2.1:5060",
        ],
        "",
    )


def test_without_a_configuration_and_with_a_number_alone(printed: Printed) -> None:
    """The defaults: calls can leave the machine, so that the shipped rules hold."""
    assert cli.main(["dial-check", "+1 900 555-1234"], {}) == 1
    assert printed()[0] == [
        "tel:+1-900-555-1234: denied by the rule 'premium-rate'",
        "  number: +19005551234",
        "  shipped rules (premium rate, satellite): hold",
        "  caps for clients without a token: none",
        "  servers: none: a number alone names no server",
    ]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["http://example.com/"], "not a SIP address"),
        (["sip:a@b@c"], "not a sip URI"),
        (["mailto:bob@example.com"], "a mailto: address cannot be dialled"),
        (["urn:service:sos"], "not a sip URI"),
        (["sip:bob@192.0.2.1", "--token", "token-of-nobody"], "the token is none of `tokens`"),
    ],
)
def test_bad_input(argv: list[str], problem: str, conf: str, printed: Printed) -> None:
    """2, and what is wrong with it on standard error; the token is not repeated."""
    assert cli.main(["--conf", conf, "dial-check", *argv], {}) == 2
    out, err = printed()
    assert (out, problem in err, "token-of-nobody" in err) == ([], True, False)


@pytest.mark.parametrize(
    ("ua", "uri", "servers"),
    [
        (UaConfig(addr="10.0.0.1"), "sip:bob@pbx.test", "udp:10.0.0.8:5070, udp:10.0.0.9:5060"),
        (UaConfig(addr="::1"), "sip:bob@pbx.test", "udp:[2001:db8::9]:5060"),
        (UaConfig(addr="10.0.0.1", tcp_port=5060), "sip:bob@one.test;transport=tcp", "tcp:10.0.0.8:5060"),
        (UaConfig(addr="10.0.0.1"), "sip:bob@nowhere.test", "none: cannot resolve nowhere.test"),
        (None, "sip:bob@pbx.test", "none: no SIP is configured"),
    ],
)
async def test_the_servers_in_their_order(ua: UaConfig | None, uri: str, servers: str) -> None:
    """As a call would try them: SRV, addresses of our family, or why there is none."""
    async with open_wire() as wire:
        wire.zone.add("_sip._udp.pbx.test", Srv(1, 0, 5070, "one.test"), Srv(2, 0, 5060, "two.test"))
        wire.names |= {"one.test": ("10.0.0.8",), "two.test": ("10.0.0.9", "2001:db8::9")}
        assert (await find_servers(ua, parse_target(uri), wire.host("10.0.0.1"))).startswith(servers)
