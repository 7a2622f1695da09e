"""Phone calls phone: every way a call can go, over the in-memory wire in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from rustpbx.errors import RustpbxError
from rustpbx.media.codec.g711 import LAWS
from rustpbx.media.events import Codec, Direction
from rustpbx.sip.events import ByeReceived, CallCancelled, CallProgress, CallRefused, OfferAnswered, OfferRefused
from rustpbx.testing.phone import CallRefusedError, Phone, PhoneCall, State, open_phone
from rustpbx.testing.speech import tone
from rustpbx.testing.wire import Link, Wire, open_wire

ALICE, BOB = "10.0.0.1", "10.0.0.2"


@asynccontextmanager
async def two_phones(wire: Wire) -> AsyncIterator[tuple[Phone, Phone]]:
    """Alice and Bob, on hosts of their own."""
    async with (
        open_phone(wire.host(ALICE), ALICE, 5060, user="alice") as alice,
        open_phone(wire.host(BOB), BOB, 5060, user="bob") as bob,
    ):
        yield alice, bob


async def connect(alice: Phone, bob: Phone) -> tuple[PhoneCall, PhoneCall]:
    """A call that is up: Alice dialled, Bob answered."""
    out = await alice.dial(bob.uri)
    into = await bob.ring()
    into.ringing()
    await out.progressed()
    into.answer()
    await out.answered()
    await into.answered()
    return out, into


def sound(pcm: np.ndarray) -> np.ndarray:
    """From the first frame with sound on."""
    first = int(np.flatnonzero(np.abs(pcm.astype(np.int32)) > 500)[0]) // 160 * 160
    return pcm[first:]


async def test_dialled_rung_answered_and_hung_up() -> None:
    """The plain call: 180 seen, audio agreed at both ends, the caller's BYE ends both, nothing stays bound."""
    async with open_wire() as wire:
        async with two_phones(wire) as (alice, bob):
            out, into = await connect(alice, bob)
            assert (out.state, into.state) == (State.TALKING, State.TALKING)
            assert [fact.status for fact in out.facts if isinstance(fact, CallProgress)] == [180]
            assert out.line.format is not None
            assert into.line.format is not None
            assert out.line.format.remote == (BOB, into.line.port)
            assert into.line.format.remote == (ALICE, out.line.port)
            assert into.incoming is not None
            assert str(into.incoming.caller.uri) == alice.uri
            out.hang_up()
            ending = await into.ended()
            assert isinstance(ending.cause, ByeReceived)
            assert (await out.ended()).by_us
            methods = [t.data.split(b" ")[0] for t in alice.trace]
            assert methods[0] == b"INVITE"
            assert b"ACK" in methods
            assert methods.count(b"BYE") == 1
        assert wire.bound == []


async def test_the_callee_hangs_up() -> None:
    """BYE from the other side."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out, into = await connect(alice, bob)
        into.hang_up()
        assert isinstance((await out.ended()).cause, ByeReceived)


@pytest.mark.parametrize("codec", list(LAWS))
async def test_speech_arrives_sample_by_sample(codec: Codec) -> None:
    """Both talk at once; each hears the other's samples exactly, through G.711 and nothing else."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out = await alice.dial(bob.uri, codecs=(codec,))
        into = await bob.ring()
        into.answer()
        assert (await out.answered()).codec is codec
        await into.answered()
        ours, theirs = tone(1.0), tone(0.7, hertz=900)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.say, ours)
            nursery.start_soon(into.say, theirs)
        await into.line.hush(0.2)
        await out.line.hush(0.2)
        law = LAWS[codec]
        assert np.array_equal(sound(into.hear())[: len(ours)], law.decode(law.encode(ours)))
        assert np.array_equal(sound(out.hear())[: len(theirs)], law.decode(law.encode(theirs)))


async def test_rejected() -> None:
    """A busy phone: the caller sees the status and its reason, both calls are over."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out = await alice.dial(bob.uri)
        into = await bob.ring()
        into.reject(486)
        with pytest.raises(CallRefusedError, match="486 Busy Here") as caught:
            await out.answered()
        assert caught.value.status == 486
        assert isinstance((await out.ended()).cause, CallRefused)
        assert (into.state, (await into.ended()).by_us) == (State.ENDED, True)


async def test_cancelled() -> None:
    """The caller gives up while it rings."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out = await alice.dial(bob.uri)
        into = await bob.ring()
        into.ringing()
        await out.progressed()
        out.cancel()
        assert isinstance((await into.ended()).cause, CallCancelled)
        with pytest.raises(RustpbxError, match="by ourselves"):
            await out.answered()


async def test_nobody_there() -> None:
    """An INVITE into the void is 408 after 64*T1: 32 seconds."""
    async with open_wire() as wire, two_phones(wire) as (alice, _):
        start = trio.current_time()
        out = await alice.dial("sip:carol@10.0.0.9:5060")
        with pytest.raises(CallRefusedError, match="408"):
            await out.answered()
        assert trio.current_time() - start == pytest.approx(32, abs=0.5)


async def test_keys() -> None:
    """DTMF by RFC 4733 reaches the other side once per key."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out, into = await connect(alice, bob)
        for digit in "18#":
            await out.press(digit)
        await out.say(tone(0.1))
        await into.line.sound()
        assert into.line.digits == list("18#")


async def test_early_media() -> None:
    """183 with SDP: the caller hears before the answer."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out = await alice.dial(bob.uri)
        into = await bob.ring()
        into.ringing(183, early_media=True)
        assert (await out.progressed()).status == 183
        async with trio.open_nursery() as nursery:
            nursery.start_soon(into.say, tone(0.3))
            await out.line.hush(0.2)
        assert out.state is State.DIALLING
        into.answer()
        await out.answered()


async def test_hold_and_resume() -> None:
    """A re-INVITE changes the direction: on hold nothing comes, resumed it does."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out, into = await connect(alice, bob)
        assert isinstance(await out.re_invite(direction=Direction.SENDONLY), OfferAnswered)
        assert into.line.format is not None
        assert into.line.format.direction is Direction.RECVONLY
        sent = into.line.packets_sent
        with trio.move_on_after(1):
            await into.say(tone(0.2))
        assert into.line.packets_sent == sent
        await out.re_invite(direction=Direction.SENDRECV)
        await into.say(tone(0.2))
        await out.line.sound()


async def test_moved_to_another_port_and_codec() -> None:
    """A re-INVITE moves the audio: it goes on at the new port in the new codec."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out, into = await connect(alice, bob)
        old = out.line.port
        await out.re_invite(port=0, codecs=(Codec.PCMA,))
        assert out.line.port != old
        assert into.line.format is not None
        assert into.line.format.remote == (ALICE, out.line.port)
        assert into.line.format.codec is Codec.PCMA
        moved_at = trio.current_time()
        await into.say(tone(0.2))
        assert await out.line.sound(moved_at) > moved_at
        assert {c.destination for c in wire.transcript if c.at > moved_at + 0.05 and c.source[0] == BOB} == {
            (ALICE, out.line.port)
        }


async def test_a_call_on_a_bad_line() -> None:
    """With a fifth of everything lost, SIP repeats itself until the call stands, and ends at both ends."""
    async with open_wire(seed=1) as wire, two_phones(wire) as (alice, bob):
        wire.all_links(Link(loss=0.2, delay=0.04, jitter=0.02, duplication=0.05, reorder=0.05))
        out, into = await connect(alice, bob)
        await out.say(tone(1.0))
        await into.line.sound()
        out.hang_up()
        assert isinstance((await into.ended()).cause, ByeReceived)


async def test_an_offer_refused_changes_nothing() -> None:
    """A re-INVITE the peer cannot take is refused and the call goes on as before."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        out = await alice.dial(bob.uri, codecs=(Codec.PCMU,))
        into = await bob.ring()
        into.answer(codecs=(Codec.PCMU,))
        await out.answered()
        await into.answered()
        before = out.line.format
        assert isinstance(await out.re_invite(codecs=(Codec.PCMA,)), OfferRefused)
        assert out.line.format == before
        await out.say(tone(0.2))
        await into.line.sound()


async def test_more_calls_than_anybody_takes() -> None:
    """The seventeenth call that waits is told that the phone is busy."""
    async with open_wire() as wire, two_phones(wire) as (alice, bob):
        calls = [await alice.dial(bob.uri) for _ in range(17)]
        with pytest.raises(CallRefusedError, match="486"):
            await calls[16].answered()
        assert [call.state for call in calls[:16]] == [State.DIALLING] * 16


async def test_a_phone_without_battery() -> None:
    """Leaving the block says no BYE: the other side notices nothing but silence."""
    async with open_wire() as wire, open_phone(wire.host(BOB), BOB, 5060, user="bob") as bob:
        async with open_phone(wire.host(ALICE), ALICE, 5060, user="alice") as alice:
            _, into = await connect(alice, bob)
        assert into.state is State.TALKING
        assert [address for address in wire.bound if address[0] == ALICE] == []
