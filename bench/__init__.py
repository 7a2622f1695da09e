"""Measurements of the real server on the real clock, with the load made by another process."""
