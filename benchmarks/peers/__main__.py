"""`python -m benchmarks.peers [--peers ...] [--models ...] [--out FOLDER]`: Paceline beside other servers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Run, say
from benchmarks.peers import writing
from benchmarks.peers.catalogue import SETUPS, chosen
from benchmarks.peers.model import MODELS
from benchmarks.peers.rounds import Plan, measure_all

FOLDER = Path("build/bench")
CONNECTIONS = (1, 8, 32, 128)
ROUNDS, SECONDS = 2, 1.0


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; 1: nothing ran, or a peer that was asked for by name failed."""
    options = _options(arguments)
    run = Run(options.quick, options.pin, FOLDER)
    try:
        setups = chosen(options.peers)
    except KeyError as error:
        say(error.args[0])
        return 2
    plan = Plan(setups, options.models, options.connections, options.rounds, options.seconds, options.here)
    facts = report.machine()
    results = measure_all(run, plan, lambda found: writing.write(options.out, run, plan, found, facts))
    print(writing.write(options.out, run, plan, results, facts), flush=True)
    say(f"report: {options.out}/report.md, report.json, ratios.svg")
    missing = any(results.missing(setup) for setup in setups)
    return int(not results.samples or (bool(options.peers) and missing))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__.partition(": ")[2])
    parser.add_argument("--peers", type=_names, default=[], metavar="NAMES", help=f"of {', '.join(SETUPS)}; all")
    parser.add_argument("--models", type=_models, default=list(MODELS), metavar="NAMES", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--connections", type=_numbers, default=CONNECTIONS, metavar="NUMBERS", help="1,8,32,128")
    parser.add_argument("--rounds", type=_at_least_one, default=None, help=f"{ROUNDS} unless given; 1 with --quick")
    parser.add_argument("--seconds", type=_at_least_one, default=SECONDS, help="of each measurement; 1")
    parser.add_argument("--quick", action="store_true", help="one round: does everything work?")
    parser.add_argument("--pin", action="store_true", help="servers on core 0, clients on core 1")
    parser.add_argument("--here", action="store_true", help="run the peers in this environment; install nothing")
    parser.add_argument("--out", type=Path, default=FOLDER / "peers", metavar="FOLDER", help=f"{FOLDER / 'peers'}")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    return options


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _models(text: str) -> list[str]:
    names = _names(text)
    for name in names:
        if name not in MODELS:
            raise argparse.ArgumentTypeError(f"unknown model {name!r}; there are {', '.join(MODELS)}")
    return names


def _numbers(text: str) -> list[int]:
    return [_at_least_one(each) for each in _names(text)]


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
