"""Whatever arrives during a call, the endpoint neither raises nor loses the call it has."""

from __future__ import annotations

import random

import pytest

from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Answer, CallConfirmed
from rustpbx.sip.extensions import Extensions
from tests.kit.peers_sip import ANSWER, OFFER, SDP_LINES, Lone, invite, reply, request, titles

SEEDS = (
    invite(),
    invite(record_routes=("sip:p.example.com;lr",), lines=(*SDP_LINES, ("Require", "timer"), ("Accept", "text/x"))),
    request("OPTIONS", branch="z9hG4bKo"),
    request("CANCEL", contact=None),
    request("BYE", to_tag="x", branch="z9hG4bKb", cseq=2),
    request("INFO", to_tag="x", branch="z9hG4bKi", cseq=3, lines=(("Content-Type", "application/dtmf"),), body=b"5"),
    reply(invite(), 200, body=OFFER),
    reply(invite(), 401, lines=(("WWW-Authenticate", 'Digest realm="a", nonce="b"'),)),
)


def mangle(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double and insert a few bytes."""
    text = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text[at : at + 1] = rng.randbytes(1)
            case 1:
                del text[at : at + rng.randint(1, 20)]
            case 2:
                text[at:at] = text[at : at + rng.randint(1, 40)]
            case _:
                text[at:at] = rng.choice([b"\r\n", b";", b"<", b'"', b",", b":", b"@", b"=", b"\xff", b" "])
    return bytes(text)


@pytest.mark.parametrize("seed", range(4))
def test_mangled_messages_do_no_harm(seed: int) -> None:
    """500 broken datagrams and an hour later, the call that was up is up, and nothing else is left."""
    rng = random.Random(seed)
    lone = Lone(EndpointConfig(port=5060, extensions=Extensions(session_timers="off")))  # nobody will answer a refresh
    lone.send(invite(call_id="good", branch="z9hG4bKgood"))
    leg, tag = lone.leg, lone.tag
    lone.wish(Answer(leg, ANSWER))
    lone.send(request("ACK", call_id="good", branch="z9hG4bKack", to_tag=tag))
    assert lone.facts[1:] == [CallConfirmed(leg, b"")]
    for _ in range(500):
        lone.send(mangle(encode_message(rng.choice(SEEDS)), rng))
        if rng.random() < 0.05:
            lone.wait(rng.random() * 10)
    lone.wait(3600)
    bye = request("BYE", call_id="good", branch="z9hG4bKbye", to_tag=tag, cseq=2**30)
    assert titles(lone.send(bye)) == ["200 BYE"]
    lone.wait(33)
    assert (lone.side.endpoint.counters["transactions_running"], lone.side.endpoint.counters["calls"]) == (0, 0)
