"""For the speech tests: an `Offload` whose workers are scripted, and words compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


class ScriptedOffload:
    """Answers each job with the next of `answers` after `seconds`; an exception is raised. `asked` are the jobs."""

    def __init__(self, *answers: object, seconds: float = 0.0) -> None:
        self.answers = list(answers)
        self.seconds = seconds
        self.asked: list[tuple[str, str, tuple[object, ...]]] = []

    async def thread(self, work: Callable[[], T]) -> T:
        """Run it here."""
        return work()

    async def worker(self, pool: str, job: Callable[..., T], *args: object) -> T:
        """The next answer."""
        self.asked.append((pool, job.__name__, args))
        await trio.sleep(self.seconds)
        answer: Any = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return] # the script's author knows the type


def words(text: str) -> list[str]:
    """A text's words without case and punctuation."""
    return re.findall(r"[a-z0-9']+", text.lower())
