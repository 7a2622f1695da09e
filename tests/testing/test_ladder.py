"""The drawing of a call, character by character."""

from __future__ import annotations

from rustpbx.sip.ladder import WIDTH
from rustpbx.testing.ladder import ladder
from rustpbx.testing.wire import Carried, Fate
from tests.kit.house import AGENT, PHONE, SERVER, open_house
from tests.test_calls import DIAL

ONE, OTHER = ("10.0.0.2", 5060), ("10.0.0.1", 5060)
INVITE = b"INVITE sip:b@b SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n"


def carried(at: float, *, back: bool, data: bytes, fate: Fate = Fate.DELIVERED) -> Carried:
    """A datagram from the phone, or back to it."""
    source, destination = (OTHER, ONE) if back else (ONE, OTHER)
    return Carried(at, source, destination, data, fate)


def test_a_call_is_drawn() -> None:
    """Arrows with method, status and CSeq; a lost message, a repeated one, media as a count, and nothing too wide."""
    audio = bytes([0x80]) + bytes(171)
    drawn = ladder(
        [
            carried(10.0, back=False, data=INVITE, fate=Fate.LOST),
            carried(10.5, back=False, data=INVITE),
            carried(10.52, back=True, data=b"SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n"),
            *[carried(10.6, back=back, data=audio) for back in (True, False, True)],
            carried(12.0, back=True, data=b"BYE sip:a@a SIP/2.0\r\nCSeq: 2 BYE\r\n\r\n"),
            carried(12.1, back=False, data=b"\r\n\r\n"),
        ],
        {"10.0.0.2": "phone"},
    )
    assert drawn.splitlines() == [
        "                           phone                                  10.0.0.1",
        "   0.000                      |--------- INVITE (1) sdp lost --------x|",
        "   0.500                      |--------- INVITE (1) sdp again ------->|",
        "   0.520                      |<--------- 200 OK (1 INVITE) ----------|",
        "                              |.............. RTP x 2 < ..............|",
        "                              |.............. RTP x 1 > ..............|",
        "   2.000                      |<-------------- BYE (2) ---------------|",
    ]


def test_four_hosts_fit_the_page() -> None:
    """Between neighbours and across lanes; a word that is too long is cut, what a message belongs to is not."""
    hosts = [(f"10.0.0.{number}", 5060) for number in (1, 2, 3, 4)]
    word = b"SUBSCRIBEANDPUBLISHANDMORE"
    drawn = ladder(
        [
            Carried(0.0, hosts[0], hosts[1], INVITE, Fate.DELIVERED),
            Carried(0.0004, hosts[1], hosts[2], INVITE, Fate.DELIVERED),
            Carried(0.5, hosts[2], hosts[3], word + b" sip:b@b SIP/2.0\r\nCSeq: 1 " + word + b"\r\n\r\n", Fate.CUT),
            Carried(1.25, hosts[3], hosts[0], b"SIP/2.0 486 Busy Here\r\nCSeq: 1 INVITE\r\n\r\n", Fate.DELIVERED),
        ],
        {"10.0.0.1": "phone", "10.0.0.4": "server with a much too long name"},
    )
    names, *arrows = drawn.splitlines()
    assert names.split() == ["phone", "10.0.0.2", "10.0.0.3", "server", "with", "a", "much", "too", "lon"]
    assert arrows == [
        "   0.000               |----- INVITE (1) sdp ---->|                          |                          |",
        "   0.000               |                          |----- INVITE (1) sdp ---->|                          |",
        "   0.500               |                          |                          |- SUBSCRIBEANDPU (1) cut x|",
        "   1.250               |<-------------------------- 486 Busy Here (1 INVITE) ---------------------------|",
    ]
    assert max(map(len, drawn.splitlines())) <= WIDTH


async def test_a_real_call_fits_the_page() -> None:
    """The transcript of a whole call has its messages in order and no line is wider than the page."""
    async with open_house() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("reject", code=486, reason="busy")
            await agent.ended()
        await call.ended()
        lines = ladder(house.wire.transcript, {PHONE: "phone", SERVER: "server", AGENT: "agent"}).splitlines()
    assert max(map(len, lines)) <= WIDTH
    shown = [text for line in lines for text in ("INVITE", "100", "486", "ACK") if text in line]
    assert list(dict.fromkeys(shown)) == ["INVITE", "100", "486", "ACK"]


def test_an_empty_transcript_is_an_empty_drawing() -> None:
    """Nothing carried, nothing drawn."""
    assert ladder([]).strip() == ""
