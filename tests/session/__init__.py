"""Tests of the session: the call core, its playback, its tables in motion, and whole calls."""
