"""`python -m benchmarks [NAMES] [--quick] [--pin] [--json FILE] [--list]`: measure, print, write JSON."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.bench import BenchError, Group, Run, say

FOLDER = Path("build/bench")

PROMISED = {
    "peers": "JSON over HTTP/1.1 against mosec and FastAPI with uvicorn (`make bench-peers` has them all)",
    "binary": "binary tensors of the Open Inference Protocol against a bare echo",
    "saturation": "a wide model, saturated, against an in-process loop",
    "footprint": "memory and processor of an idle server, start-up, --help",
    "grpc": "ModelInfer over gRPC against Triton and an echo of grpcio.aio",
    "replicas": "two replicas against one, JSON",
    "swap": "a new version of a model under full load: failures, p99, time",
    "restart": "twenty restarts at 70 % load, with and without HAProxy: failures, p99",
    "kill": "kill -9 of one of two replicas at 70 % load: what is lost, time until it is replaced",
    "worker_kill": "kill -9 of one of two busy workers at 70 % load: what is lost, time until it is noticed",
    "channel": "a batch to a worker and back, against two copies of it",
    "forest": "user code in Python, a random forest as JSON, against mosec and LitServe",
    "r_services": "user code in R, predict.lm as JSON, against plumber",
    "init_once": "initialise in every call, in the first call, or before any: Python and R",
    "fetching": "64 items that each wait 50 ms for another service, in one request",
    "batched": "a FastAPI application with and without paceline.batched",
    "load_client": "the client of `paceline bench`: requests/s against wrk's, how late it sends",
    "capacity": "paceline bench --find-capacity against a fine sweep: rate, time",
    "classical": "scikit-learn, LightGBM and XGBoost: served as ONNX against the library's own call",
    "keras_cnn": "a Keras network: served as ONNX against predict, and against its SavedModel",
    "gate": "false accepts of the accuracy gate: candidates whose drop is just above the one allowed",
    "int8_wide": "8-bit integers: a network of two layers of 2048, ONNX Runtime and OpenVINO, pruned as well",
    "int8_minilm": "8-bit integers: all-MiniLM-L6-v2, fused as well, ONNX Runtime and OpenVINO",
    "overload": "goodput, rejections, memory and health at 2x, 5x and 10x capacity",
}
"""What `make bench` runs."""

DECISIONS = {
    "parsers": "httptools against httpunk: speed and strictness",
    "json_codecs": "msgspec, orjson and the standard library on tensors in JSON",
}
"""What a note in docs/decisions/ stands on; run by name."""

_ELSEWHERE = {
    "peers": "peers.promised:small",
    "forest": "peers.promised:forest",
    "int8_wide": "quantize:measure_wide",
    "int8_minilm": "quantize:measure_encoder",
}
"""What is not `measure` of a module of that name."""


def main(arguments: list[str] | None = None) -> int:
    """Run the groups; 0: all measured and every target reached, 1: a target missed, 2: not measured."""
    options = _options(arguments)
    if options.list:
        for name, text in {**PROMISED, **DECISIONS}.items():
            print(f"{name:<12} {text}{'' if name in PROMISED else ' (by name only)'}")
        return 0
    run = Run(options.quick, options.pin, FOLDER)
    facts = report.machine()
    print(report.heading(run, facts), flush=True)
    groups: dict[str, Group] = {}
    broken = 0
    for name in options.names or PROMISED:
        say(f"{name}: {({**PROMISED, **DECISIONS})[name]}")
        try:
            groups[name] = _measured(name, run)
        except BenchError as error:
            say(f"{name}: not measured: {error}")
            broken += 1
            continue
        print(f"\n{report.show(groups[name])}", flush=True)
        report.write(run, options.json, groups, facts)
    if groups:
        print(f"\nreport: {options.json}")
    missed = [check for group in groups.values() for check in group.checks if not check.ok]
    return 2 if broken else int(bool(missed))


def _measured(name: str, run: Run) -> Group:
    module, _, function = _ELSEWHERE.get(name, f"{name}:measure").partition(":")
    group: Group = getattr(importlib.import_module(f"benchmarks.{module}"), function)(run)
    return group


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.partition(": ")[2])
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"of {', '.join([*PROMISED, *DECISIONS])}")
    parser.add_argument("--quick", action="store_true", help="short and few rounds: does everything work?")
    parser.add_argument("--pin", action="store_true", help="servers on core 0, clients on core 1")
    parser.add_argument("--json", type=Path, default=FOLDER / "report.json", metavar="FILE")
    parser.add_argument("--list", action="store_true", help="say what can be measured")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in {**PROMISED, **DECISIONS}]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join([*PROMISED, *DECISIONS])}")
    return options


if __name__ == "__main__":
    sys.exit(main())
