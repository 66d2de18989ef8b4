"""What does it cost that user code runs in a process of its own?

The hop alone, without HTTP and without a queue: a batch to a worker that returns it, and back, one at a time. Beside it
two copies of as many bytes, and the same hop as `multiprocessing` has it: a pipe and pickle.

Rules:
- Everything is in one process but the workers, and takes turns.
- "Two copies" go into arrays that exist; "two new arrays" is what `array.copy()` does, as whoever needs a copy.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench import Group, Run, Table, interleaved
from paceline.workers.service import Options, ServiceModel, Source
from paceline.workers.worker import Worker

_SERVICES = Path(__file__).parent / "services"
_SHAPE = (8, 3, 224, 224)
_ITEM = b'{"age": 37, "city": "Oslo", "scores": [0.25, 0.5, 1.0]}'
_TIMES = "two copies", "two new arrays"


def measure(run: Run) -> Group:
    """Tensors and items."""
    group = Group("the hop to a worker and back")
    calls = run.either(300, 50)
    with ExitStack() as stack:
        cases = {
            **_tensor_cases(stack.enter_context(_worker("echo_tensor.py"))),
            "a pipe and pickle": partial(stack.enter_context(_pickling()), _image()),
            **_item_cases(stack.enter_context(_worker("echo_items.py"))),
        }
        timed = {name: partial(_typical_us, work, calls) for name, work in cases.items()}
        found = {name: median(each) for name, each in interleaved(timed, run.either(15, 3)).items()}
    names = [*_TIMES, "the hop", "a pipe and pickle"]
    rows = [(name, found[name], *(f"{found[name] / found[base]:.2f}x" for base in _TIMES)) for name in names]
    title = f"{list(_SHAPE)} FP32, {_image().nbytes / 1e6:.1f} MB (medians)"
    group.tables.append(Table(title, ("", "us", *(f"times {name}" for name in _TIMES)), rows))
    rows = [(name, found[name]) for name in ("one item", "64 items")]
    group.tables.append(Table("items of JSON (medians)", ("", "us"), rows))
    group.check(
        "a tensor there and back, in pairs of copies", found["the hop"] / found["two copies"], 2, "x", most=True
    )
    group.check("an item there and back", found["one item"], 500, " us", most=True)
    group.samples = found
    group.notes = ["a copy of a few MB stays in the cache of its core; the hop moves them to the other core and back"]
    return group


def _image() -> np.ndarray:
    return np.random.default_rng(8).random(_SHAPE, np.float32)


def _tensor_cases(worker: Worker) -> dict[str, Callable[[], Any]]:
    image = _image()
    one, other = np.empty_like(image), np.empty_like(image)
    (returned,) = worker.run((image,))
    assert np.array_equal(returned, image)

    def two_copies() -> None:
        np.copyto(one, image)
        np.copyto(other, one)

    return {
        "two copies": two_copies,
        "two new arrays": lambda: image.copy().copy(),
        "the hop": lambda: worker.run((image,)),
    }


def _item_cases(worker: Worker) -> dict[str, Callable[[], Any]]:
    column = np.empty(64, object)
    column[:] = [_ITEM] * 64
    return {"one item": lambda: worker.run((column[:1],)), "64 items": lambda: worker.run((column,))}


@contextmanager
def _worker(name: str) -> Iterator[Worker]:
    service = ServiceModel(Source(_SERVICES / name), name, Options())
    worker = service.worker(1)
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def _pickling() -> Iterator[Callable[[Any], Any]]:
    """A process that returns what it gets, as `multiprocessing` connects one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_return, args=(theirs,), daemon=True)
    process.start()

    def hop(value: Any) -> Any:
        ours.send(value)
        return ours.recv()

    try:
        yield hop
    finally:
        process.kill()
        process.join()


def _return(connection: multiprocessing.connection.Connection[Any, Any]) -> None:
    while True:
        connection.send(connection.recv())


def _typical_us(work: Callable[[], Any], calls: int) -> float:
    """Median of many calls: one that was interrupted tells nothing."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times) * 1e6
