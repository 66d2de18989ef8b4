"""`python -m benchmarks.article [--quick] [--out FOLDER]`: replay the experiment, print and write.

Rules:
- The article's users: 1, 5 and 20 of them, and so many rows for the model alone.
- A quick run shows that everything works. Its exit code says so, and nothing about targets.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.article import load, writing
from benchmarks.article.experiment import USERS, Experiment
from benchmarks.article.network import FEW_STEPS, STEPS, network
from benchmarks.article.results import Results
from benchmarks.article.setups import COMPARED, Served, SetUp, chosen, cores, devices
from benchmarks.bench import BenchError, Run, say

FOLDER = Path("build/bench/article")

_ROUNDS = {"device": 3, "network": 2}  # one is enough for the readings that the article contradicts


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: measured, and every target reached unless it was a quick run, 1: a target missed, 2: not measured."""
    options = _options(arguments)
    run = Run(options.quick, pin=False, folder=options.out)
    facts = report.machine()
    begun = time.monotonic()
    found: list[Results] = []
    text = ""
    try:
        set_ups = chosen(options.set_ups)
        for served in _models(run, options.models):
            found.append(_measured(run, served, set_ups, options))
            text = writing.write(options.out, run, facts, found)
    except BenchError as error:
        say(f"not measured: {error}")
        return 2
    print(text)
    say(f"{options.out / 'report.md'}; took {time.monotonic() - begun:.0f} s")
    missed = [check for results in found for check in results.checks() if check.ok is False]
    return int(bool(missed) and not run.quick)


def _measured(run: Run, served: Served, set_ups: Sequence[SetUp], options: argparse.Namespace) -> Results:
    say(f"{served.key}: {served.title}")
    users = options.users or (USERS if served.waits or not run.quick else (USERS[0], USERS[-1]))
    experiment = Experiment(run, served, set_ups, users, _window(run, served, options))
    rounds = options.rounds or run.either(_ROUNDS.get(served.key, 1), 1)
    for turn in range(rounds):
        say(f"  round {turn + 1}/{rounds}")
        experiment.round(turn)
    return experiment.results


def _window(run: Run, served: Served, options: argparse.Namespace) -> load.Window:
    """Twenty users of one worker, who all begin at once, need two rounds of six seconds to spread out."""
    full, quick = ((12.0, 90.0), (8.0, 15.0)) if served.waits else ((12.0, 30.0), (2.0, 5.0))
    warm_s, counted_s = run.either(full, quick)
    return load.Window(min(warm_s, options.seconds or warm_s), options.seconds or counted_s)


def _models(run: Run, keys: Sequence[str]) -> list[Served]:
    every = devices()
    if "network" in keys:
        path = network(run.folder / "models", run.either(STEPS, FEW_STEPS)).resolve()
        title = f"network, {cores()} cores{', few steps' * run.quick}"
        model = {"kind": "network", "path": str(path)}
        every.append(Served("network", title, model, waits=False, judged=not run.quick))
    known = {served.key: served for served in every}
    if unknown := [key for key in keys if key not in known]:
        raise BenchError(f"unknown model {unknown[0]!r}; there are {', '.join(known)}, network")
    return [known[key] for key in keys]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.article", description=__doc__.partition(": ")[2])
    parser.add_argument("--quick", action="store_true", help="few requests: does everything work?")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--set-ups", type=_words, default=COMPARED, metavar="a,b,...")
    parser.add_argument("--models", type=_words, metavar="device,...", help="device, exclusive, concurrent, network")
    parser.add_argument("--users", type=lambda text: [int(word) for word in _words(text)], metavar="1,5,...")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="S", help="that count, of each round")
    options = parser.parse_args(arguments)
    if not options.models:
        every = ("device", "network", "exclusive", "concurrent")
        options.models = ("device", "network") if options.quick else every
    return options


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    sys.exit(main())
