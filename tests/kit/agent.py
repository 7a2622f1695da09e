"""An agent on the wire and a webhook receiver, as the tests import them."""

from rustpbx.testing.agent import Agent, connect_agent
from rustpbx.testing.webhook import Webhook

__all__ = ["Agent", "Webhook", "connect_agent"]
