"""Connections that wait for a text: taken, replaced, given up, and never a reason for lost words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.speech.base import Utterance
from rustpbx.speech.registry import SpeechServices, SynthesizerOptions, make_synthesizer
from rustpbx.speech.spares import KEPT
from rustpbx.testing.services.service import Conversation
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from tests.kit.services import HOST, PORT, say, serving

TEXT = Utterance(text="Hello", rate=16000)
SAMPLES = round(0.06 * len(TEXT.text) * TEXT.rate)


@pytest.fixture(autouse=True)
def _endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEAPI_ENDPOINT", f"http://{HOST}:{PORT}/")


@asynccontextmanager
async def keeping(service: EmulatedVoiceApi) -> AsyncIterator[SpeechServices]:
    """The service, and a server that keeps spare connections to it."""
    async with serving(service) as services, trio.open_nursery() as nursery:
        await nursery.start(services.spares.run)
        yield services
        nursery.cancel_scope.cancel()


async def spoken(services: SpeechServices, utterance: Utterance = TEXT) -> int:
    """Samples that come of a text."""
    chunks = await say(make_synthesizer(SynthesizerOptions(provider="voiceapi"), services), utterance)
    return sum(chunk.pcm.size for chunk in chunks)


def texts(service: EmulatedVoiceApi) -> list[list[object]]:
    """What each connection was told."""
    return [list(conversation.heard) for conversation in service.conversations]


async def test_the_next_text_finds_a_connection_that_stands() -> None:
    """Nothing is opened for the second text but the connection for the third."""
    service = EmulatedVoiceApi()
    async with keeping(service) as services:
        assert await spoken(services) == SAMPLES
        await trio.sleep(1)
        assert texts(service) == [["Hello"], []]
        assert await spoken(services) == SAMPLES
        await trio.sleep(1)
        assert texts(service) == [["Hello"], ["Hello"], []]
        assert [conversation.closed for conversation in service.conversations] == [1000, 1000, None]


async def test_another_voice_is_another_connection() -> None:
    """What the URL says cannot be changed later: a waiting connection serves its own kind of text only."""
    service = EmulatedVoiceApi()
    async with keeping(service) as services:
        await spoken(services)
        await trio.sleep(1)
        await spoken(services, Utterance(text="Hello", rate=16000, speaker="3"))
        speakers = [conversation.asked.query["sid"] for conversation in service.conversations if conversation.heard]
    assert speakers == ["0", "3"]


async def test_a_connection_that_nobody_wants_is_closed() -> None:
    """After its time, in peace."""
    service = EmulatedVoiceApi()
    async with keeping(service) as services:
        await spoken(services)
        await trio.sleep(KEPT + 1)
        assert [conversation.closed for conversation in service.conversations] == [1000, 1000]
        assert await spoken(services) == SAMPLES


async def test_a_connection_that_has_died_is_replaced_without_an_error() -> None:
    """The service has restarted meanwhile: seen before the text is sent."""
    service = EmulatedVoiceApi()
    async with keeping(service) as services:
        await spoken(services)
        await trio.sleep(1)
        await service.conversations[1].drop()
        await trio.sleep(1)
        assert await spoken(services) == SAMPLES


class Forgetful(EmulatedVoiceApi):
    """Drops a connection that has waited when its text comes, as a middlebox does that has forgotten it."""

    async def converse(self, conversation: Conversation) -> None:
        """As it always does, or not at all."""
        if len(self.conversations) == 2:
            await conversation.receive()
            await conversation.drop()
        else:
            await super().converse(conversation)


async def test_a_connection_that_turns_out_to_be_dead_is_tried_again() -> None:
    """Dead only once the text is on its way: it is said on a new connection."""
    service = Forgetful()
    async with keeping(service) as services:
        await spoken(services)
        await trio.sleep(1)
        assert await spoken(services) == SAMPLES
    assert sum(heard == ["Hello"] for heard in texts(service)) == 3


async def test_a_cut_text_drops_its_connection_at_once() -> None:
    """Cancelled in the middle of its audio: the service is not left to talk to nobody."""
    service = EmulatedVoiceApi(delay=0.1)
    async with keeping(service) as services:
        await spoken(services)
        await trio.sleep(1)
        with trio.move_on_after(0.25):
            await spoken(services, Utterance(text="Hello " * 20, rate=16000))
        await trio.sleep(0.2)
        taken = service.conversations[1]
        assert (len(taken.heard), taken.closed) == (1, 1006)


async def test_a_service_that_has_gone_leaves_nothing_behind() -> None:
    """It refuses from now on: the waiting connection is used up, then the refusal is an error as ever."""
    service = EmulatedVoiceApi()
    async with keeping(service) as services:
        await spoken(services)
        await trio.sleep(1)
        service.drop_after = 0
        with pytest.raises(SpeechError, match="voiceapi dropped the connection"):
            await spoken(services)
