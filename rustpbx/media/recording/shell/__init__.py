"""Recordings on a disk: the file that grows with a call, and the one that it becomes."""
