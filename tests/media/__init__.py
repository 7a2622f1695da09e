"""Tests of `rustpbx.media`."""
