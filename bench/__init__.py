"""Measurements of the real server on the real clock, with the load made by another process."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the server has it; read when numpy is imported
