"""Calls as Trio tasks: each call's nursery, its tracks, and the registry that owns them all."""
