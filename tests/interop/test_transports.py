"""Calls by TCP, TLS and WebSocket with programs that are not ours: sipp, baresip, and a client of another library."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket

from rustpbx.shell.network import RealNetwork
from rustpbx.sip.hop import Transport
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.connections import Streams
from rustpbx.testing.phone import open_phone
from rustpbx.testing.voice import heard_text, spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, echoed, over, sipp_answers, sipp_calls
from tests.kit.baresip import open_baresip
from tests.kit.certificates import authority, make_files, make_tls
from tests.kit.real import LOOPBACK, open_real_house
from tests.kit.sipp import CALLEE, CALLER, INVITED, audio, expect
from tests.kit.stacks import options, text_of

pytestmark = pytest.mark.real_time


def both_certificates(folder: Path) -> tuple[dict[str, Any], str]:
    """What the server's `[ua]` and what baresip's configuration need for TLS, both of one authority."""
    folder.mkdir()
    files = make_files(folder, LOOPBACK)
    issued = authority().issue_cert(LOOPBACK)
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "baresip.pem")
    ua = {"ssl_certificate": files.certificate, "ssl_private_key": files.private_key, "ssl_ca": files.ca}
    return ua, f"sip_certificate {folder}/baresip.pem\nsip_cafile {files.ca}\n"


@pytest.mark.interop("baresip")
@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
async def test_baresip_calls_by_a_connection(tmp_path: Path, transport: Transport) -> None:
    """Words both ways, and the phone's BYE by the same connection."""
    ua, config = both_certificates(tmp_path / "tls")
    ua |= {"tcp_port": 0, "tls_port": 0}
    async with (
        open_real_house(tmp_path, **ua) as house,
        open_baresip(tmp_path, says=spoken(QUESTION), config=config) as phone,
    ):
        await phone.do("dial", house.uri_by(transport))
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            await phone.do("hangup")
            await over(agent, "caller", "caller")
        await phone.closed()
        assert heard_text(phone.heard()).startswith(ANSWER)
        assert await house.owned() == NOTHING
        assert {passed.transport for passed in house.sip.messages} == {transport}


@pytest.mark.interop("baresip")
@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
async def test_baresip_is_called_by_a_connection(tmp_path: Path, transport: Transport) -> None:
    """Its certificate is checked, our BYE comes by the same connection. baresip has TLS one port above the others."""
    ua, config = both_certificates(tmp_path / "tls")
    async with (
        open_real_house(tmp_path, **ua, tcp_port=0, tls_port=0) as house,
        open_baresip(tmp_path, says=spoken(QUESTION), config=config) as phone,
        house.agent() as agent,
    ):
        port = phone.address[1] + (transport is Transport.TLS)
        callee = f"sip:{phone.user}@{LOOPBACK}:{port};transport={transport.param}"
        await agent.send("invite", option={"callee": callee, **SPEECH})
        await phone.until("CALL_INCOMING")
        await phone.do("accept")
        await agent.until("answer")
        assert (await agent.until("asrFinal"))["text"] == QUESTION
        await agent.send("hangup")
        await over(agent, "system", "system")
        await phone.closed()
        assert await house.owned() == NOTHING
        assert {passed.transport for passed in house.sip.messages} == {transport}


@pytest.mark.interop("sipp")
async def test_sipp_calls_by_tcp(tmp_path: Path) -> None:
    """One connection for the call; sipp sends its BYE by it."""
    steps = (CALLER.invite(body=audio()), expect(200), CALLER.request("ACK"), *CALLER.hangs_up())
    async with sipp_calls(tmp_path, *steps, tcp=True) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await over(agent, "caller", "caller")
    assert {passed.transport for passed in house.sip.messages} == {Transport.TCP}


@pytest.mark.interop("sipp")
async def test_sipp_is_called_by_tcp(tmp_path: Path) -> None:
    """INVITE, 180, 200, ACK, BYE over a connection that we open; what it echoes is heard."""
    ringing, answer = CALLEE.answers("180 Ringing"), CALLEE.answers("200 OK", body=audio())
    steps = (expect("INVITE", INVITED), ringing, answer, expect("ACK"), *CALLEE.is_hung_up())
    async with sipp_answers(tmp_path, *steps, options=("-rtp_echo",), tcp=True) as (house, agent):
        await agent.until("answer")
        await echoed(agent)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert {passed.transport for passed in house.sip.messages} == {Transport.TCP}


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS, Transport.WS, Transport.WSS])
async def test_our_phone_calls_on_real_sockets(tmp_path: Path, transport: Transport) -> None:
    """What the tests in virtual time prove holds on loopback: the handshakes, the words, the BYE."""
    folder = tmp_path / "tls"
    ua, _ = both_certificates(folder)
    ports: dict[str, Any] = {"tcp_port": 0, "tls_port": 0, "ws_port": 0, "wss_port": 0}
    streams = Streams(ports={Transport.TCP: 0}, tls=make_tls(folder / "phone", LOOPBACK))
    async with (
        open_real_house(tmp_path, **ua, **ports) as house,
        open_phone(RealNetwork(), LOOPBACK, streams=streams) as phone,
    ):
        uri = house.uri_by(transport)
        call = await phone.dial(uri.replace("sip:", "sips:") if transport is Transport.WSS else uri)
        async with house.incoming() as agent:
            await agent.send("accept", option=SPEECH)
            await call.answered()
            await agent.send("hangup")
            assert (await agent.ended())[-1] == "hangup"
        await call.ended()
        assert {traced.peer.transport for traced in phone.trace} == {transport}


async def test_a_websocket_client_of_another_library(tmp_path: Path) -> None:
    """trio-websocket as a browser has it: the subprotocol, a text message, an answer to the Via that leads nowhere."""
    async with open_real_house(tmp_path, ws_port=0) as house:
        assert house.server.stack is not None
        host, port = house.server.stack.listening[Transport.WS]
        async with trio_websocket.open_websocket(host, port, "/", use_ssl=False, subprotocols=["sip"]) as web:
            await web.send_message(text_of(options(via="x.invalid").replace("/TCP", "/WS")).decode())
            answered = parse_message(str(await web.get_message()).encode())
            assert answered.cseq.method == "OPTIONS"


@pytest.mark.interop("openssl")
@pytest.mark.parametrize(("version", "speaks"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
async def test_openssl_finds_no_old_tls_and_no_unasked_alpn(tmp_path: Path, version: str, speaks: bool) -> None:
    """Another TLS stack: 1.2 and 1.3 are spoken, 1.1 is not, and no application protocol is chosen."""
    ua, _ = both_certificates(tmp_path / "tls")
    async with open_real_house(tmp_path, **ua, tls_port=0) as house:
        assert house.server.stack is not None
        host, port = house.server.stack.listening[Transport.TLS]
        asked = ["-connect", f"{host}:{port}", "-CAfile", ua["ssl_ca"], "-alpn", "sip", version]
        command = ["openssl", "s_client", *asked]
        done = await trio.run_process(command, stdin=b"", capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        heard = done.stdout.decode()
        agreed = "Cipher is" in heard and "Cipher is (NONE)" not in heard
        assert (agreed, "ALPN protocol: " in heard) == (speaks, False)
