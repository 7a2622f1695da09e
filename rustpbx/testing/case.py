"""One test of the pytest plugin as a run: its options, its house in virtual time, and what it tells when it fails."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs
import trio

from rustpbx.testing.ladder import ladder
from rustpbx.testing.run import StuckError, run_real, run_virtual
from rustpbx.testing.script import LeftoverError, ScriptError

if TYPE_CHECKING:  # a test without a house does not pay for the server's import
    from rustpbx.settings import Config
    from rustpbx.testing.house import AgentProgram, EmbeddedAgent, House, Plan, SocketAgent
    from rustpbx.testing.registrar import Registrar
    from rustpbx.testing.wire import Link

__all__ = ["Case", "LeftoverError", "Options", "ScriptError", "StuckError"]

Body = Callable[[], Awaitable[object]]

_HANDLES = Path("/proc/self/fd")
_PACKAGE = str(Path(__file__).parents[1])


@attrs.frozen(kw_only=True)
class Options:
    """What `@pytest.mark.rustpbx(...)` can say; the mark nearest to the test wins, option by option.

    `agent`, `program` and `embedded` are agents under test (see `rustpbx.testing.house`). `link` is the weather,
    `config` the server's configuration. `seed` replaces that of the run. `limit` is in seconds of virtual time,
    `real_limit` in real ones. Speech services are scripted for `providers` ((): for all). Without `check`, what the
    test leaves behind is its own affair. `signalling_only` is a server without audio. With `real_time` the test runs on
    the real clock, and there is no house. `registrar` is one for the configuration's accounts.
    """

    agent: SocketAgent | None = None
    program: AgentProgram | None = None
    embedded: EmbeddedAgent | None = None
    link: Link | None = None
    config: Config | None = None
    registrar: Registrar | None = None
    seed: int | None = None
    limit: float = 300.0
    real_limit: float = 60.0
    providers: tuple[str, ...] = ()
    check: bool = True
    signalling_only: bool = False
    real_time: bool = False

    @classmethod
    def merged(cls, *layers: Mapping[str, Any]) -> Options:
        """Options out of layers, of which later ones win. Raises TypeError naming an option that there is not."""
        given = {name: value for layer in layers for name, value in layer.items()}
        known = [field.name for field in attrs.fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise TypeError(f"mark rustpbx: there is no option {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(**given)

    def plan(self, seed: int) -> Plan:
        """The house that these options ask for."""
        from rustpbx.testing.house import Plan, server_config  # noqa: PLC0415 - see above

        return Plan(
            config=self.config or server_config(),
            seed=seed,
            link=self.link,
            registrar=self.registrar,
            providers=self.providers,
            agent=self.agent,
            program=self.program,
            embedded=self.embedded,
            signalling_only=self.signalling_only,
        )


class Case:
    """Runs one test's coroutine, in `house` if it has one. `story` is what a failure should be read with, by title."""

    def __init__(self, options: Options, seed: int, house: House | None) -> None:
        self._options = options
        self._seed = seed
        self._house = house
        self.story: tuple[tuple[str, str], ...] = ()

    def run(self, body: Body) -> None:
        """Run `body()` to its end. Raises what it raises, `StuckError`, or `LeftoverError` for what it left behind."""
        options = self._options
        handles = _open_handles()
        if options.real_time:
            if self._house is not None:
                raise TypeError("a house lives in virtual time: a test marked real_time cannot have one")
            run_real(body, seed=self._seed, limit=options.real_limit)
            return
        run_virtual(
            self._in_house if self._house is not None else _plain,
            body,
            seed=self._seed,
            limit=options.limit,
            real_limit=options.real_limit,
            explain=self._up,
        )
        if self._house is not None and options.check:
            _check_handles(handles)

    async def _in_house(self, body: Body) -> None:
        assert self._house is not None  # noqa: S101 - the caller has looked
        failure: BaseException | None = None
        try:
            async with self._house.open() as house:
                try:
                    await body()
                    if self._options.check:
                        await house.settle()
                except BaseException as problem:  # pytest's own are no Exceptions; kept until the house is closed
                    self._note(house)
                    if isinstance(problem, trio.Cancelled | KeyboardInterrupt):
                        raise
                    failure = problem
        except BaseExceptionGroup as group:
            failure = failure or _only(group)
        if failure is not None:
            raise failure

    def _up(self) -> list[str]:
        """The calls that are up, for a test that is stuck."""
        house = self._house
        return house.calls() if house is not None and house.is_open else []

    def _note(self, house: House) -> None:
        """Keep what a failure should be read with, as it is now: calls, what was heard, every SIP message."""
        recognizers = house.speech.recognizers
        troubles = [heard.trouble.error or "it stalled" for heard in recognizers if heard.trouble is not None]
        lines = [
            *house.calls(),
            f"phone: {house.handset.tells()}",
            f"agent: {house.desk.tells()}",
            *(f"a recognizer failed as it was told: {trouble}" for trouble in troubles),
        ]
        self.story = (("call", "\n".join(lines)), ("ladder", ladder(house.wire.transcript, house.names)))


async def _plain(body: Body) -> None:
    await body()


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception in nested groups of one; a group of several stays."""
    problem: BaseException = group
    while isinstance(problem, BaseExceptionGroup) and len(problem.exceptions) == 1:
        problem = problem.exceptions[0]
    return problem


def at_the_script(problem: BaseException) -> BaseException:
    """The exception with its traceback cut to the test's side: where the script says what was not met."""
    frames: list[TracebackType] = []
    step = problem.__traceback__
    while step is not None:
        frames.append(step)
        step = step.tb_next
    while frames and frames[-1].tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames.pop()
    below: TracebackType | None = None
    for frame in reversed(frames):
        below = TracebackType(below, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return problem.with_traceback(below) if below is not None else problem


def _open_handles() -> dict[str, str]:
    """Sockets, pipes and the like of this process, where the system tells (Linux)."""
    if not _HANDLES.is_dir():
        return {}
    found = {}
    for handle in _HANDLES.iterdir():
        try:
            target = str(handle.readlink())
        except OSError:
            continue  # the one that was used to list them
        if not target.startswith("/"):
            found[handle.name] = target
    return found


def _check_handles(before: Mapping[str, str]) -> None:
    if _new_handles(before):
        gc.collect()  # what nobody refers to any more is closed, and nobody's fault
        left = _new_handles(before)
        if left:
            raise LeftoverError(left)


def _new_handles(before: Mapping[str, str]) -> list[str]:
    return [f"file descriptor {fd}: {what}" for fd, what in _open_handles().items() if before.get(fd) != what]
