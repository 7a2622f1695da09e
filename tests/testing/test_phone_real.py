"""The same phone over real sockets on loopback."""

import numpy as np
import pytest
import trio

from rustpbx.media.codec.g711 import LAWS
from rustpbx.media.events import Codec, Pcm
from rustpbx.shell.network import RealNetwork
from rustpbx.sip.events import ByeReceived
from rustpbx.testing.phone import open_phone
from rustpbx.testing.speech import tone

HOST = "127.0.0.1"


def sound(pcm: Pcm) -> Pcm:
    """From the first frame with sound on."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 500)
    return pcm[int(loud[0]) // 160 * 160 :] if len(loud) else pcm[:0]


@pytest.mark.real_time
async def test_a_call_over_loopback() -> None:
    """Dialled, answered, talked both ways, keys pressed, hung up: over the operating system's UDP."""
    network = RealNetwork()
    async with open_phone(network, HOST, user="alice") as alice, open_phone(network, HOST, user="bob") as bob:
        out = await alice.dial(bob.uri)
        into = await bob.ring()
        into.ringing()
        await out.progressed()
        into.answer()
        await out.answered()
        await into.answered()
        said = tone(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.say, said)
            nursery.start_soon(into.say, tone(0.3, hertz=900))
        await into.line.until(lambda: len(sound(into.hear())) >= len(said))
        await out.line.sound()
        law = LAWS[Codec.PCMU]
        assert np.array_equal(sound(into.hear())[: len(said)], law.decode(law.encode(said)))
        await out.press("7")
        await into.line.until(lambda: into.line.digits == ["7"])
        into.hang_up()
        assert isinstance((await out.ended()).cause, ByeReceived)
