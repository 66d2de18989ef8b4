"""What do the first users pay for a service that takes seconds to initialise? Python and R.

The example in examples/init_once, initialised in every call, in the first call, and before any (`setup`, `init`), with
one worker and one client. The chart of the calls is written beside the report; the tutorial shows a copy.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks import charts
from benchmarks.bench import BenchError, Group, Run, Table, interleaved, say
from benchmarks.processes import Server, paceline

LEAST = 6.0
CALLS = 8
HOWS = ("in every call", "in the first call", "before any call")
CHART = "init-once.svg"
_EXAMPLES = (Path(__file__).parents[1] / "examples").resolve()
_SERVICES = Path(__file__).parent / "services"
_SETUPS = {
    "Python": (_SERVICES / "init_every_call.py", _SERVICES / "init_first_call.py", _EXAMPLES / "init_once/service.py"),
    "R": (_SERVICES / "init_every_call.R", _SERVICES / "init_first_call.R", _EXAMPLES / "init_once/model.R"),
}


@dataclass(frozen=True)
class Calls:
    """The first calls of a server's life.

    Attributes:
        ready_s: from its start until it says that it is ready.
        ms: of each call, in order.
    """

    ready_s: float
    ms: list[float]

    @property
    def later_ms(self) -> float:
        """Median of all but the first."""
        return median(self.ms[1:])


def measure(run: Run) -> Group:
    """Every language that is there, initialised at each of the three moments."""
    languages = ["Python"] + (["R"] if shutil.which("Rscript") else [])
    if "R" not in languages:
        say("  no R: Python alone")
    cases = {
        f"{language}: {how}": lambda code=code: _one(run, code)
        for language in languages
        for how, code in zip(HOWS, _SETUPS[language], strict=True)
    }
    # Each server's first call is a sample of its own, and the slow ones take long enough to be steady.
    found = {name: _typical(each) for name, each in interleaved(cases, run.either(3, 1)).items()}
    group = Group("the first calls of a service that takes seconds to initialise")
    rows = [[name, calls.ready_s, calls.ms[0], calls.later_ms, max(calls.ms)] for name, calls in found.items()]
    columns = ("initialised", "s to ready", "first call ms", "later ms", "slowest ms")
    group.tables.append(Table("calls one after the other (the round with the median first call)", columns, rows))
    for language in languages:
        _check(group, language, found[f"{language}: {HOWS[1]}"], found[f"{language}: {HOWS[2]}"])
    group.samples = {name: asdict(calls) for name, calls in found.items()}
    group.notes = [f"one worker, one client; chart: {_draw(run, languages, found)}"]
    return group


def _check(group: Group, language: str, lazy: Calls, eager: Calls) -> None:
    group.check(f"{language}, without warm-up: the first call, in later calls", lazy.ms[0] / lazy.later_ms, LEAST, "x")
    ratio = lazy.ms[0] / max(eager.ms)
    group.check(f"{language}, with warm-up: that first call, in the slowest call of a user", ratio, LEAST, "x")


def _typical(turns: list[Calls]) -> Calls:
    """The turn whose first call is the median."""
    return sorted(turns, key=lambda calls: calls.ms[0])[len(turns) // 2]


def _one(run: Run, code: Path) -> Calls:
    with paceline(run, code, ("--instances", "1"), env={"EXAMPLES": str(_EXAMPLES)}) as server:
        return Calls(server.ready_s, [_ask(server, turn) for turn in range(run.either(CALLS, 3))])


def _ask(server: Server, turn: int) -> float:
    body = json.dumps({"from": turn, "to": 300 + turn}).encode()
    begun = time.perf_counter()
    answer, _ = server.post("/predict", body, {"content-type": "application/json"})
    took_ms = (time.perf_counter() - begun) * 1e3
    if not 0 < json.loads(answer) < 100:
        raise BenchError(f"no number of minutes: {answer[:200]!r}")
    return took_ms


def _draw(run: Run, languages: list[str], found: dict[str, Calls]) -> Path:
    panels = [charts.Panel(language, {how: found[f"{language}: {how}"].ms for how in HOWS}) for language in languages]
    path = run.folder / CHART
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(charts.calls("Response time of the first calls, by when the service initialises", panels))
    return path
