"""Whole calls by TCP, TLS and WebSocket: words both ways, and the transport where agents and people look for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from rustpbx.settings import Config
from rustpbx.sip.hop import Transport
from rustpbx.sip.shell.connections import Streams
from rustpbx.testing.house import House, Plan
from rustpbx.testing.script import ScriptError
from rustpbx.testing.speech import SCRIPTED
from tests.kit.certificates import make_files, make_tls
from tests.kit.house import PHONE, SERVER, server_config

SPEECH: dict[str, Any] = {"tts": {"provider": SCRIPTED}, "asr": {"provider": SCRIPTED}}
PORTS = {"tcp_port": 5060, "tls_port": 5061, "ws_port": 5080, "wss_port": 5081}


def config_with(folder: Path) -> Config:
    """The server of the house, on every transport."""
    config = server_config()
    files = make_files(folder, SERVER)
    assert config.ua is not None
    ua: dict[str, Any] = {"ssl_certificate": files.certificate, "ssl_private_key": files.private_key, **PORTS}
    return attrs.evolve(config, ua=attrs.evolve(config.ua, **ua, ssl_ca=files.ca))


def plan_with(folder: Path) -> Plan:
    """A house with every transport, and a phone that can be called by TCP and TLS too."""
    streams = Streams(ports={Transport.TCP: 5060, Transport.TLS: 5061}, tls=make_tls(folder / "phone", PHONE))
    return Plan(config=config_with(folder), phone_streams=streams)


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
async def test_a_phone_calls_by_each_transport_and_both_are_heard(transport: str, tmp_path: Path) -> None:
    """The agent's words reach the phone and the phone's the agent; the trace says how they came."""
    async with House(plan_with(tmp_path)).open() as house:
        phone, desk = house.handset, house.desk
        await phone.dials(house.uri_by(transport))
        await desk.answers()
        await desk.says("good morning")
        await phone.hears("good morning")
        await phone.says("hello")
        await desk.hears("hello")
        phone.hangs_up()
        await desk.is_hung_up()
        assert {traced.peer.transport.lower() for traced in house.phone.trace} == {transport}
        await house.settle()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_an_agent_calls_a_phone_by_each_transport(transport: str, tmp_path: Path) -> None:
    """`;transport=` of the callee decides, and the certificate of the phone is checked."""
    async with House(plan_with(tmp_path)).open() as house:
        port = {"tcp": 5060, "tls": 5061}[transport]
        await house.desk.dials(f"sip:phone@{PHONE}:{port};transport={transport}")
        await house.handset.answers()
        await house.handset.says("hello")
        await house.desk.hears("hello")
        await house.desk.hangs_up()
        await house.handset.is_hung_up()
        assert {traced.peer.transport.lower() for traced in house.phone.trace} == {transport}


async def test_a_port_that_is_not_open_is_named() -> None:
    """A test that dials by TCP says what the server needs for it."""
    house = House()
    with pytest.raises(ScriptError, match="set tcp_port"):
        house.uri_by("tcp")
