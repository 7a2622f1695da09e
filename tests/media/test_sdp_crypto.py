"""SDES (RFC 4568): a=crypto lines, and offer and answer about them."""

from __future__ import annotations

import base64

import attrs
import pytest

from rustpbx.media.events import SrtpKey, SrtpKeys, SrtpSuite
from rustpbx.media.sdp import (
    LocalMedia,
    NegotiationError,
    SessionDescription,
    accept_answer,
    answer,
    encode_sdp,
    offer,
    parse_sdp,
)
from rustpbx.media.sdp.crypto import Crypto, Security, SrtpMode, parse_crypto

CM_80, CM_32, CM_256, CM_256_32, GCM, GCM_256 = SrtpSuite
OFF, PREFER, REQUIRE = SrtpMode
OURS = tuple(SrtpKey(suite, bytes([number]) * suite.key_size) for number, suite in enumerate(SrtpSuite, 1))
OFFERED = (CM_80, CM_256)


def local(mode: SrtpMode) -> LocalMedia:
    """Our side."""
    security = Security(mode=mode, keys=OURS, offered=OFFERED)
    return LocalMedia(host="192.0.2.10", port=12_000, ssrc=77, session_id=42, security=security)


def our_key(suite: SrtpSuite) -> SrtpKey:
    """Our key of a suite."""
    return next(key for key in OURS if key.suite is suite)


def key_text(size: int = 30) -> str:
    """A key of the peer's in base64."""
    return base64.b64encode(bytes(range(100, 100 + size))).decode()


def line(tag: int = 1, suite: str = "AES_CM_128_HMAC_SHA1_80", size: int = 30, more: str = "") -> str:
    """A line of the peer's."""
    return f"a=crypto:{tag} {suite} inline:{key_text(size)}{more}"


def their_key(suite: SrtpSuite = CM_80) -> SrtpKey:
    """What `line` says."""
    return SrtpKey(suite, bytes(range(100, 100 + suite.key_size)))


def phone(*lines: str) -> SessionDescription:
    """A description with these media lines."""
    head = ["v=0", "o=- 9 1 IN IP4 192.0.2.20", "s=-", "c=IN IP4 192.0.2.20", "t=0 0"]
    return parse_sdp("\r\n".join([*head, *lines]).encode())


def cryptos(description: SessionDescription, at: int = 0) -> list[str]:
    """The a=crypto lines as they are sent."""
    return [
        text
        for text in encode_sdp(attrs.evolve(description, media=description.media[at : at + 1])).decode().split("\r\n")
        if "crypto" in text
    ]


# -- lines ----------------------------------------------------------------------------------------------------------

EXAMPLE = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
KEY = b"YS___semctl () {\t220;}\n}\nunles"


@pytest.mark.rfc("4568", "9.1")
@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}", Crypto(1, "AES_CM_128_HMAC_SHA1_80", KEY)),
        (
            f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}|2^20|1:4",
            Crypto(1, "AES_CM_128_HMAC_SHA1_80", KEY, 2**20, (1, 4)),
        ),
        (f"2 AES_CM_128_HMAC_SHA1_32 inline:{EXAMPLE}|1:32", Crypto(2, "AES_CM_128_HMAC_SHA1_32", KEY, None, (1, 32))),
        (f"1 F8_128_HMAC_SHA1_80 inline:{EXAMPLE}|1066", Crypto(1, "F8_128_HMAC_SHA1_80", KEY, 1066)),
        (
            f"7 AES_CM_128_HMAC_SHA1_80 INLINE:{EXAMPLE}  KDR=1 -X=y ",
            Crypto(7, "AES_CM_128_HMAC_SHA1_80", KEY, parameters=("KDR=1", "-X=y")),
        ),
        (f"1\tX inline:{base64.b64encode(b'12345').decode()}", Crypto(1, "X", b"12345")),
        ("1 X inline:MTIzNDU", Crypto(1, "X", b"12345")),
    ],
)
def test_lines_are_read_and_written(text: str, read: Crypto) -> None:
    """Lifetimes, MKIs and parameters; padding may be missing. What is written reads the same."""
    assert parse_crypto(text) == read
    assert parse_crypto(str(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1 AES_CM_128_HMAC_SHA1_80",
        f"one AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}",
        f"1234567890 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}",
        f"1 AES_CM_128_HMAC_SHA1_80 uri:{EXAMPLE}",
        "1 AES_CM_128_HMAC_SHA1_80 inline:",
        "1 AES_CM_128_HMAC_SHA1_80 inline:A",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE[:-1]}!",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{'A' * 200}",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}|2^200",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}|1:4|2^20",
        f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}|2^20|1:4;inline:{EXAMPLE}|2^20|2:4",
    ],
)
def test_lines_that_are_not_understood_stay_text(text: str) -> None:
    """Not of the form, or with several keys: no error, and the description is written as it came."""
    assert parse_crypto(text) is None
    remote = phone("m=audio 4000 RTP/AVP 0", f"a=crypto:{text}")
    assert remote.media[0].cryptos == ()
    assert cryptos(remote) == [f"a=crypto:{text}"]


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (line(), their_key()),
        (line(suite="AES_CM_128_HMAC_SHA1_32"), their_key(CM_32)),
        (line(suite="AES_256_CM_HMAC_SHA1_80", size=46), their_key(CM_256)),
        (line(suite="AES_CM_256_HMAC_SHA1_80", size=46), their_key(CM_256)),
        (line(suite="AES_256_CM_HMAC_SHA1_32", size=46), their_key(CM_256_32)),
        (line(suite="AEAD_AES_128_GCM", size=28), their_key(GCM)),
        (line(suite="AEAD_AES_256_GCM", size=44), their_key(GCM_256)),
        (line(suite="aes_cm_128_hmac_sha1_80"), their_key()),
        (line(more="|2^31 WSH=128 -NEW=1"), their_key()),
        (line(suite="F8_128_HMAC_SHA1_80"), None),
        (line(size=29), None),
        (line(size=46), None),
        (line(suite="AEAD_AES_128_GCM", size=30), None),
        (line(more="|2^31|1:1"), None),
        (line(more=" KDR=2"), None),
        (line(more=" UNENCRYPTED_SRTP"), None),
        (line(more=" UNAUTHENTICATED_SRTP"), None),
        (line(more=" WSH=64 SOMETHING_NEW"), None),
    ],
)
@pytest.mark.rfc("4568", "6.3")
def test_which_lines_are_usable(text: str, usable: SrtpKey | None) -> None:
    """A known suite with a key of its size; no MKI; no parameter that would have to be obeyed."""
    read = parse_crypto(text.removeprefix("a=crypto:"))
    assert read is not None
    assert read.usable() == usable


def test_keys_are_not_shown() -> None:
    """A description in a log or a traceback does not tell them."""
    assert "key" not in repr(parse_crypto(f"1 AES_CM_128_HMAC_SHA1_80 inline:{EXAMPLE}"))
    assert "semctl" not in repr(phone("m=audio 4 RTP/SAVP 0", f"a=crypto:1 A inline:{EXAMPLE}"))


# -- our offer -------------------------------------------------------------------------------------------------------

OUR_LINES = [
    f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(our_key(CM_80).master).decode()}",
    f"a=crypto:2 AES_256_CM_HMAC_SHA1_80 inline:{base64.b64encode(our_key(CM_256).master).decode()}",
]


@pytest.mark.rfc("4568", "5.1.1")
@pytest.mark.parametrize(
    ("mode", "profile", "lines"),
    [(OFF, "RTP/AVP", []), (PREFER, "RTP/AVP", OUR_LINES), (REQUIRE, "RTP/SAVP", OUR_LINES)],
)
def test_what_we_offer(mode: SrtpMode, profile: str, lines: list[str]) -> None:
    """Keys where SRTP is wanted; the profile insists only where it is required."""
    ours = offer(local(mode))
    assert ([media.protocol for media in ours.media], cryptos(ours)) == ([profile], lines)


@pytest.mark.rfc("4568", "5.1.3")
@pytest.mark.parametrize(
    ("mode", "lines", "suite"),
    [
        (PREFER, ["m=audio 4000 RTP/AVP 0"], None),
        (PREFER, ["m=audio 4000 RTP/AVP 0", line()], CM_80),
        (PREFER, ["m=audio 4000 RTP/SAVP 0", line()], CM_80),
        (PREFER, ["m=audio 4000 RTP/AVP 0", line(2, "AES_256_CM_HMAC_SHA1_80", 46)], CM_256),
        (REQUIRE, ["m=audio 4000 RTP/SAVP 0", line(1)], CM_80),
        (REQUIRE, ["m=audio 4000 RTP/AVP 0", line(2, "AES_CM_256_HMAC_SHA1_80", 46)], CM_256),
        (OFF, ["m=audio 4000 RTP/AVP 0"], None),
        (OFF, ["m=audio 4000 RTP/AVP 0", line()], None),
    ],
)
def test_answers_to_our_offer(mode: SrtpMode, lines: list[str], suite: SrtpSuite | None) -> None:
    """The tag chooses among our keys; without keys it is plain RTP, where that may be."""
    agreed = accept_answer(offer(local(mode)), phone(*lines))
    expected = SrtpKeys(send=our_key(suite), receive=their_key(suite)) if suite else None
    assert agreed.srtp == expected


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        (REQUIRE, ["m=audio 4000 RTP/AVP 0"]),
        (REQUIRE, ["m=audio 4000 RTP/SAVP 0"]),
        (PREFER, ["m=audio 4000 RTP/SAVP 0"]),
        (PREFER, ["m=audio 4000 RTP/AVP 0", line(3)]),
        (PREFER, ["m=audio 4000 RTP/AVP 0", line(2)]),
        (PREFER, ["m=audio 4000 RTP/AVP 0", line(1, size=20)]),
        (PREFER, ["m=audio 4000 RTP/AVP 0", "a=crypto:1 nonsense"]),
        (REQUIRE, ["m=audio 4000 RTP/SAVP 0", line(1, more="|1:4")]),
        (OFF, ["m=audio 4000 RTP/SAVP 0", line(1)]),
    ],
)
def test_answers_that_agree_on_nothing(mode: SrtpMode, lines: list[str]) -> None:
    """Another tag or suite, a key that is none, no key where there must be one: an error, never half a protection."""
    with pytest.raises(NegotiationError, match="keys that"):
        accept_answer(offer(local(mode)), phone(*lines))


# -- our answer ------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("4568", "5.1.2")
@pytest.mark.parametrize(
    ("mode", "lines", "answered", "suite"),
    [
        (PREFER, ["m=audio 4000 RTP/SAVP 0", line(4)], ("RTP/SAVP", 4), CM_80),
        (REQUIRE, ["m=audio 4000 RTP/SAVPF 0", line(4)], ("RTP/SAVPF", 4), CM_80),
        (PREFER, ["m=audio 4000 RTP/AVP 0", line(1)], ("RTP/AVP", 1), CM_80),
        (REQUIRE, ["m=audio 4000 RTP/AVP 0", line(1)], ("RTP/AVP", 1), CM_80),
        (PREFER, ["m=audio 4000 RTP/AVP 0"], ("RTP/AVP", None), None),
        (OFF, ["m=audio 4000 RTP/AVP 0", line(1)], ("RTP/AVP", None), None),
        (
            REQUIRE,
            ["m=audio 4000 RTP/SAVP 0", line(1, "F8_128_HMAC_SHA1_80"), line(2, more="|1:1"), line(3)],
            ("RTP/SAVP", 3),
            CM_80,
        ),
        (
            REQUIRE,
            ["m=audio 4000 RTP/SAVP 0", line(1, "AEAD_AES_256_GCM", 44), line(2)],
            ("RTP/SAVP", 1),
            GCM_256,
        ),
    ],
)
def test_what_we_answer(
    mode: SrtpMode, lines: list[str], answered: tuple[str, int | None], suite: SrtpSuite | None
) -> None:
    """The offerer's profile, the first of its lines that we can use under the same tag, with a key of ours."""
    description, agreed = answer(phone(*lines), local(mode))
    profile, tag = answered
    assert description.media[0].protocol == profile
    if suite is None or tag is None:
        assert (cryptos(description), agreed.srtp) == ([], None)
        return
    assert description.media[0].cryptos == (Crypto(tag, suite.value, our_key(suite).master),)
    assert agreed.srtp == SrtpKeys(send=our_key(suite), receive=their_key(suite))


def test_a_suite_is_answered_in_the_offerers_spelling() -> None:
    """Who writes AES_CM_256 looks for it in the answer."""
    remote = phone("m=audio 4000 RTP/SAVP 0", line(1, "AES_CM_256_HMAC_SHA1_80", 46))
    assert [crypto.suite for crypto in answer(remote, local(PREFER))[0].media[0].cryptos] == ["AES_CM_256_HMAC_SHA1_80"]


@pytest.mark.parametrize(
    ("mode", "lines", "named"),
    [
        (OFF, ["m=audio 4000 RTP/SAVP 0", line(1)], "SRTP is off here"),
        (PREFER, ["m=audio 4000 RTP/SAVP 0"], "no SRTP with keys"),
        (PREFER, ["m=audio 4000 RTP/SAVP 0", line(1, size=12)], "no SRTP with keys"),
        (REQUIRE, ["m=audio 4000 RTP/AVP 0"], "no SRTP with keys"),
        (REQUIRE, ["m=audio 4000 RTP/AVP 0", line(1, more="|1:4")], "no SRTP with keys"),
        (REQUIRE, ["m=audio 4000 RTP/SAVP 18", line(1)], "no audio that we speak"),
    ],
)
def test_offers_that_are_refused(mode: SrtpMode, lines: list[str], named: str) -> None:
    """488, and the text says why."""
    with pytest.raises(NegotiationError, match=named) as caught:
        answer(phone(*lines), local(mode))
    assert caught.value.reply == 488


@pytest.mark.parametrize(("mode", "ports"), [(OFF, [12_000, 0]), (PREFER, [0, 12_000]), (REQUIRE, [0, 12_000])])
def test_a_stream_of_each_kind(mode: SrtpMode, ports: list[int]) -> None:
    """Of a plain and a protected stream, as phones offer them that do not insist, we take the one that we like."""
    remote = phone("m=audio 4000 RTP/AVP 0", "m=audio 4002 RTP/SAVP 0", line(1))
    description, agreed = answer(remote, local(mode))
    assert [media.port for media in description.media] == ports
    assert (agreed.srtp is None) == (mode is OFF)


def test_a_protected_stream_on_hold_does_not_beat_a_live_one() -> None:
    """Port 0 is the last choice."""
    remote = phone("m=audio 0 RTP/SAVP 0", line(1), "m=audio 4000 RTP/AVP 0")
    assert answer(remote, local(PREFER))[1].srtp is None
