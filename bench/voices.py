"""What speech costs, and how soon it begins and stops: whole calls, with a speech service over the network.

    python -m bench.voices [--calls 100] [--seconds 6] [--rounds 3]

Each call has an ASR and a TTS stream to an emulated VoiceApi, an agent's WebSocket, and a phone that talks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import attrs

from bench.child import Child, others_seconds
from bench.judge import Verdict, at_most
from bench.ports import free_port
from bench.run import FOREIGN_BAR

CALLS = 100
FIRST_BAR = 40.0
STOP_BAR = 40.0
"""Milliseconds, 95 times of 100."""


@attrs.frozen(kw_only=True)
class Voices:
    """One measurement: ms sorted, CPU of the server in per cent of a core while all calls speak and are heard.

    `first` is from the agent's `tts` to the first packet with sound at the phone, without what the service took;
    `stop` from its `interrupt` to the last one; `barge` from the caller's first packet to the last one, by way of
    `speaking` (60 ms of padding) and an agent that answers it with `interrupt`. `foreign` is what other programs used,
    in per cent of the machine.
    """

    calls: int
    cpu: float
    first: tuple[float, ...]
    stop: tuple[float, ...]
    barge: tuple[float, ...]
    foreign: float

    @property
    def void(self) -> str | None:
        """Why this measurement does not count."""
        return f"other programs used {self.foreign:.0f} % of the machine" if self.foreign > FOREIGN_BAR else None

    def __str__(self) -> str:
        return (
            f"{self.calls} calls with ASR and TTS streams: {self.cpu / self.calls:.3f} % of a core a call; "
            f"first packet after {_spread(self.first)}, quiet after `interrupt` in {_spread(self.stop)}, "
            f"after the caller's first packet in {_spread(self.barge)}" + (f"  VOID: {self.void}" if self.void else "")
        )

    def verdicts(self) -> list[Verdict]:
        """Each bar in turn."""
        return [
            at_most(f"first packet of speech p95 at {self.calls} calls, ms", quantile(self.first, 0.95), FIRST_BAR),
            at_most(f"quiet after `interrupt` p95 at {self.calls} calls, ms", quantile(self.stop, 0.95), STOP_BAR),
        ]


def measure(calls: int = CALLS, seconds: float = 6.0, rounds: int = 3) -> Voices:
    """Bring the calls up, measure CPU for so many seconds, then the times. Raises RuntimeError if a call fails."""
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    port = free_port()
    server_command = [sys.executable, "-m", "bench.call_server"]
    with Child(server_command, ours, {"VOICEAPI_ENDPOINT": f"http://127.0.0.1:{port}"}) as server:
        http = server.hello()["http"]
        with Child([sys.executable, "-m", "bench.voice_load", str(port), str(http)], theirs) as load:
            children = {load.hello()["phones"], load.pid, server.pid, os.getpid()}
            _ask(load, call=calls)
            others, began, cpu = others_seconds(children), time.monotonic(), server.cpu()
            time.sleep(seconds)
            took, used = time.monotonic() - began, server.cpu() - cpu
            foreign = (others_seconds(children) - others) / took / len(cores)
            told = _ask(load, probe=rounds)
            whole = time.monotonic() - began
            foreign = max(foreign, (others_seconds(children) - others) / whole / len(cores))
    return Voices(
        calls=calls,
        cpu=100 * used / took,
        first=tuple(sorted(told["first"])),
        stop=tuple(sorted(told["stop"])),
        barge=tuple(sorted(told["barge"])),
        foreign=max(0.0, 100 * foreign),
    )


def _ask(load: Child, **question: int) -> dict[str, list[float]]:
    answer: dict[str, list[float]] = load.ask(**question)
    if "problem" in answer:
        raise RuntimeError(str(answer["problem"]))
    return answer


def quantile(ordered: tuple[float, ...], share: float) -> float:
    """The value that this share of them does not exceed; infinite where nothing was measured."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def _spread(ordered: tuple[float, ...]) -> str:
    return f"{quantile(ordered, 0.5):.0f} ms (p95 {quantile(ordered, 0.95):.0f})"


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="bench.voices", description="what speech costs, and how soon it begins")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long CPU is counted")
    parser.add_argument("--rounds", type=int, default=3, help="probes of each call")
    options = parser.parse_args()
    return show(measure(options.calls, options.seconds, options.rounds))


def show(voices: Voices) -> int:
    """Print what came out; the exit status: 0 all bars held, 1 one was missed, 3 the figures are worthless."""
    verdicts = voices.verdicts()
    print(voices, *verdicts, sep="\n")
    if voices.void:
        return 3
    return 0 if all(verdict.held for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
