"""Keys in signalling that others can read are said, once a call."""

from __future__ import annotations

import pytest

from rustpbx.sip.exposure import MOST, Exposure
from rustpbx.sip.hop import Hop, Transport

OFFER = b"INVITE sip:a@b SIP/2.0\r\n\r\nv=0\r\nm=audio 4 RTP/SAVP 0\r\na=crypto:1 X inline:abcd\r\n"
FAR = ("192.0.2.7", 5060)


@pytest.mark.parametrize(
    ("data", "transport", "address", "said"),
    [
        (OFFER, Transport.UDP, FAR, True),
        (OFFER, Transport.TCP, FAR, True),
        (OFFER, Transport.WS, ("2001:db8::1", 80), True),
        (OFFER, Transport.TLS, FAR, False),
        (OFFER, Transport.WSS, FAR, False),
        (OFFER, Transport.UDP, ("127.0.0.1", 5060), False),
        (OFFER, Transport.UDP, ("::1", 5060), False),
        (OFFER.replace(b"a=crypto", b"a=other"), Transport.UDP, FAR, False),
    ],
)
def test_what_is_said(
    data: bytes, transport: Transport, address: tuple[str, int], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys over anything but TLS to another machine; a second message of the call says nothing more."""
    exposure = Exposure()
    for _ in range(3):
        exposure.look(data, Hop(transport, address), "a")
    texts = [record.getMessage() for record in caplog.records]
    expected = f"call a: SRTP keys go out in the clear, by {transport}: whoever reads the signalling can hear the call"
    assert texts == ([expected] if said else [])


def test_each_call_is_said_and_few_are_remembered(caplog: pytest.LogCaptureFixture) -> None:
    """The memory of those told is bounded: after a thousand others a call may be told again."""
    exposure = Exposure()
    for call in [str(number) for number in range(MOST + 1)] + ["0"]:
        exposure.look(OFFER, Hop(Transport.UDP, FAR), call)
    assert len(exposure._told) == MOST
    assert any(record.getMessage().startswith("call 1: ") for record in caplog.records)
