"""Recordings of calls: how two sides become one file. Its disk is reached in `shell/`."""
