"""What does converting bring to scikit-learn, LightGBM and XGBoost? One row at a time.

A forest of 100 trees, a scaled logistic regression, LightGBM and XGBoost with 100 trees each, on 30 columns of
measurements. Called in this process, one call after the other: the library's own `predict_proba`, with its number of
threads and with one, of which the faster counts; and the instance that the server runs of the converted model. Served,
asked by one connection: the model's own file in a worker, and the converted one, each timed by the server itself:
`infer` of `Server-Timing`. Between requests a server sleeps, and comes back to cold caches; so the library's own call
is timed as well in a process that is woken for each.
"""

from __future__ import annotations

import json
import re
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.bench import BenchError, Group, Run, Table, interleaved, say
from benchmarks.processes import Server, paceline
from benchmarks.woken import microseconds, set_threads

_NEEDED: Final = ("sklearn", "skl2onnx", "joblib", "lightgbm", "xgboost", "treelite")
_INFER = re.compile(rb"infer;dur=([\d.]+)")
_MOST_BYTES = 1 << 16
_WITHIN = 1e-5
_TREES = 100


@dataclass(frozen=True)
class Model:
    """One of the four.

    Attributes:
        file: that it is kept in, as its library does.
        converter: module of `paceline.optimize.formats`.
        least: times faster that was promised.
    """

    title: str
    file: str
    converter: str
    least: float


MODELS: Final = {
    "forest": Model(f"forest of {_TREES} trees", "forest.joblib", "sklearn", 20),
    "logistic": Model("scaled logistic regression", "logistic.joblib", "sklearn", 10),
    "lightgbm": Model(f"LightGBM, {_TREES} trees", "lightgbm.txt", "lightgbm", 10),
    "xgboost": Model(f"XGBoost, {_TREES} trees", "xgboost.ubj", "xgboost", 10),
}


def measure(run: Run) -> Group:
    """Each model in each way, in turn."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BenchError(f"{', '.join(missing)}: not installed here; pip install 'paceline[convert,lightgbm,xgboost]'")
    group = Group("Classical models, one row at a time: the library's own call, served as it is, served as ONNX")
    rows = []
    for name, model in MODELS.items():
        say(f"  {model.title}")
        times, error = _measured(run, name, model)
        group.samples[name] = times
        own = min(median(times["own"]), median(times["one thread"]))
        woken = min(median(times["woken"]), median(times["woken, one thread"]))
        run_s, inside = median(times["run"]), median(times["converted"])
        ratios = (own / run_s, own / inside, woken / inside)
        rows.append([model.title, *(median(times[way]) for way in times), *ratios, f"{error:.1e}"])
        for what, ratio in zip(("own / run", "own / served", "own, woken / served"), ratios, strict=True):
            group.check(f"{model.title}: {what}", ratio, model.least, "x")
        group.check(f"{model.title}: largest difference of a probability", error, _WITHIN, most=True)
    ways = ("own call us", "one thread us", "own, woken us", "one thread, woken us")
    ours = ("converted, run us", "served as it is us", "converted, served us")
    columns = ("model", *ways, *ours, "own / run", "own / served", "own, woken / served", "difference")
    group.tables.append(Table(f"one row of 30 columns, median of {run.rounds} rounds", columns, rows))
    group.notes = [
        ", ".join(f"{each} {metadata.version(each)}" for each in ("scikit-learn", "lightgbm", "onnxruntime"))
    ]
    return group


def _measured(run: Run, name: str, model: Model) -> tuple[dict[str, list[float]], float]:
    """Microseconds by way and round; and how far the converted model's probabilities are from the library's."""
    import joblib

    folder = run.models / "classical"
    folder.mkdir(parents=True, exist_ok=True)
    rows, fitted = _trained(name, folder / model.file)
    both = folder / f"{name}_and_rows.joblib"
    joblib.dump((fitted, rows), both)
    converted, error = _converted(folder, model, rows)
    seconds = run.either(1.0, 0.2)
    with ExitStack() as stack:
        flags = ("--instances", "1", "--threads", "1", "--allow-pickle")
        served, fast = (stack.enter_context(paceline(run, file, flags)) for file in (folder / model.file, converted))
        cases: dict[str, Callable[[], float]] = {
            "own": partial(_own, fitted, rows, seconds, None),
            "one thread": partial(_own, fitted, rows, seconds, 1),
            "woken": partial(microseconds, both, None, seconds),
            "woken, one thread": partial(microseconds, both, 1, seconds),
            "run": partial(_run, converted, rows, seconds),
            "served": partial(_asked, served, rows, seconds),
            "converted": partial(_asked, fast, rows, seconds),
        }
        return interleaved(cases, run.rounds), error


def _own(fitted: Any, rows: Any, seconds: float, threads: int | None) -> float:
    """The library's own call."""
    set_threads(fitted, threads)
    return _timed(fitted.predict_proba, [row[None] for row in rows], seconds)


def _run(path: Path, rows: Any, seconds: float) -> float:
    """The instance that the server runs."""
    from paceline.runtimes.base import load

    model = load(path)
    (instance,) = model.instances(1, 1)
    kind = model.signature.inputs[0].datatype.dtype
    return _timed(instance.run, [(row[None].astype(kind),) for row in rows], seconds)


def _timed(call: Callable[[Any], Any], rows: list[Any], seconds: float) -> float:
    """Microseconds of a call, the median."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        call(rows[len(took) % len(rows)])
        took.append(time.perf_counter() - begun)
    return median(took) * 1e6


def _asked(server: Server, rows: Any, seconds: float) -> float:
    """Microseconds inside the server, the median."""
    head = b"POST /predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    bodies = [json.dumps(row.tolist()).encode() for row in rows]
    requests = [head % len(body) + body for body in bodies]
    took: list[float] = []
    until = time.perf_counter() + seconds
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.perf_counter() < until:
            connection.sendall(requests[len(took) % len(requests)])
            answer = connection.recv(_MOST_BYTES)  # small: it comes in one piece
            found = _INFER.search(answer)
            if found is None:
                raise BenchError(f"no infer in Server-Timing: {answer!r}")
            took.append(float(found[1]) * 1e3)
    return median(took)


def _trained(name: str, path: Path) -> tuple[Any, Any]:
    """Rows, and an estimator that was fitted on them, which is in the file, too."""
    import joblib
    from sklearn import datasets, ensemble, linear_model, pipeline, preprocessing

    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
    rows, classes = datasets.load_breast_cancer(return_X_y=True)
    if name in ("lightgbm", "xgboost"):
        library = import_module(name)
        fitted: Any = library.LGBMClassifier(n_estimators=_TREES, verbose=-1) if name == "lightgbm" else (
            library.XGBClassifier(n_estimators=_TREES)
        )  # fmt: skip
        fitted.fit(rows, classes)
        (fitted.booster_ if name == "lightgbm" else fitted).save_model(str(path))
        return rows, fitted
    fitted = (
        ensemble.RandomForestClassifier(_TREES, random_state=0)
        if name == "forest"
        else pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    )
    joblib.dump(fitted.fit(rows, classes), path)
    return rows, fitted


def _converted(folder: Path, model: Model, rows: Any) -> tuple[Path, float]:
    from paceline.optimize.data.rows import Rows

    Rows({"input": rows}).save(folder / "rows.npz")
    step = import_module(f"paceline.optimize.formats.{model.converter}").convert
    made = step(model=folder / model.file, rows=folder / "rows.npz", folder=folder, allow_pickle=True)
    path = (folder / made.file).rename(folder / f"{Path(model.file).stem}.onnx")
    if made.equality.rows_apart:
        raise BenchError(f"{model.title}: {made.equality.rows_apart} rows are answered otherwise")
    return path, float(np.float64(made.equality.largest_error))
