"""Both agents, tested with the pytest plugin: a phone calls, and the words are in the sound. No network, no waiting.

pytest examples
"""

import agent_embedded
import agent_websocket
import pytest


@pytest.mark.rustpbx(agent=agent_websocket.talk)
async def test_the_agent_over_the_websocket_greets_and_repeats(phone):
    await phone.dials()
    await phone.hears("Hello, please say something.")
    await phone.says("good morning")
    await phone.hears("You said: good morning")
    phone.hangs_up()


@pytest.mark.rustpbx(embedded=agent_embedded.answer_calls)
async def test_the_embedded_agent_talks_with_two_phones_at_once(server, phone):
    other = await server.new_phone("bob", "10.0.0.4")
    await phone.dials()
    await other.dials()
    await phone.hears("Hello, please say something.")
    await other.hears("Hello, please say something.")
    await phone.says("one")
    await other.says("two")
    await phone.hears("You said: one")
    await other.hears("You said: two")
    phone.hangs_up()
    other.hangs_up()
