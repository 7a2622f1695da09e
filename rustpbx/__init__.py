"""A voice-agent call server on Trio."""

__version__ = "0.1.0"
