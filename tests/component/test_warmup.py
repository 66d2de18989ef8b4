"""How a model is set up: the split of the cores, the wishes of the operator, the budget, the file of examples."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T

from paceline.core.errors import ConfigError, ModelFailed
from paceline.core.tensors import DataType, Signature, Tensors, TensorSpec
from paceline.engine import timing, warmup
from paceline.engine.examples import from_file
from paceline.engine.warmup import Prepared, Wishes, prepare
from paceline.runtimes.base import Instance, load
from support import models

FLOATS = Signature((TensorSpec("x", DataType.FP32, (-1, 2)),), (TensorSpec("y", DataType.FP32, (-1, 2)),), batched=True)


class Paced:
    """A model whose runs take `service(rows, threads)` seconds; as the real ones, it leaves the interpreter meanwhile.

    Attributes:
        running: batches that run now; alone: fail when there is more than one.
    """

    platform = "test"
    signature = FLOATS

    def __init__(self, service: Callable[[int, int], float], *, alone: bool = False) -> None:
        self._service = service
        self._alone = alone
        self._busy = threading.Semaphore(1 if alone else 1000)

    def instances(self, count: int, threads: int) -> list[Instance]:
        return [_PacedInstance(self, threads) for _ in range(count)]

    def run(self, inputs: Tensors, threads: int) -> Tensors:
        if not self._busy.acquire(blocking=False):
            raise ModelFailed("two at once")
        try:
            time.sleep(self._service(len(inputs[0]), threads))
            return inputs
        finally:
            self._busy.release()


class _PacedInstance:
    def __init__(self, model: Paced, threads: int) -> None:
        self._model = model
        self._threads = threads

    def run(self, inputs: Tensors) -> Tensors:
        return self._model.run(inputs, self._threads)


def split(ready: Prepared) -> tuple[int, int]:
    return len(ready.instances), ready.threads


# -- the split of the cores -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("cores", [2, 4])
def test_threads_are_given_to_a_model_that_uses_them(cores: int) -> None:
    model = Paced(lambda rows, threads: 0.024 / threads**1.3)
    ready = prepare(model, cores, Wishes(max_batch_rows=1, budget_s=0.5))
    assert split(ready) == (1, cores)
    assert ready.reasons["instances"].startswith("measured: ")
    assert ready.reasons["threads"] == f"1 x {cores} <= {cores} cores"


@pytest.mark.slow
@pytest.mark.parametrize("cores", [2, 4])
def test_instances_are_given_to_a_model_that_does_not(cores: int) -> None:
    model = Paced(lambda rows, threads: 0.008)
    ready = prepare(model, cores, Wishes(max_batch_rows=1, budget_s=0.5))
    assert split(ready) == (cores, 1)
    assert f"1 x {cores}: " in ready.reasons["instances"], "what else was measured is told"


def test_one_core_leaves_no_choice() -> None:
    ready = prepare(Paced(lambda rows, threads: 0.002), 1, Wishes(max_batch_rows=1, budget_s=0.02))
    assert split(ready) == (1, 1)
    assert ready.reasons["instances"] == "one core"


@pytest.mark.parametrize("cores", [2, 4])
def test_a_tiny_model_runs_on_the_event_loop(tmp_path: Path, cores: int) -> None:
    ready = prepare(load(models.gather(tmp_path / "m.onnx")), cores, Wishes(budget_s=0.05))
    assert split(ready) == (1, 1)
    assert ready.reasons["instances"].endswith("us: it runs on the event loop")


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_a_real_model_never_gets_more_threads_than_cores(tmp_path: Path, cores: int) -> None:
    path = models.mlp(tmp_path / "m.onnx", sizes=(64, 1024, 1024, 10))
    ready = prepare(load(path), cores, Wishes(budget_s=0.2))
    count, threads = split(ready)
    assert count * threads <= cores
    assert ready.profile
    assert ready.profile[-1][0] <= ready.max_batch_rows


def test_a_model_that_cannot_run_twice_at_once_does_not_hang_the_warm_up() -> None:
    model = Paced(lambda rows, threads: 0.002, alone=True)
    ready = prepare(model, 2, Wishes(max_batch_rows=1, budget_s=0.02))
    assert split(ready) == (1, 2)


def test_an_instance_that_does_not_come_back_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    calls = []

    def service(rows: int, threads: int) -> float:
        calls.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            stuck.wait(20.0)
        return 0.002

    monkeypatch.setattr(timing, "_PATIENCE_S", 0.02)
    ready = prepare(Paced(service), 2, Wishes(max_batch_rows=1, budget_s=0.02))
    stuck.set()
    assert ready.instances
    assert len(set(calls)) > 1, "it was tried"


def test_batches_that_are_too_long_to_compare_get_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "_TOO_LONG_TO_COMPARE_S", 0.005)
    ready = prepare(Paced(lambda rows, threads: 0.01), 4, Wishes(max_batch_rows=1, budget_s=0.02))
    assert split(ready) == (1, 4)
    assert ready.reasons["instances"] == "not measured: a batch takes 0.0 s on one core"


# -- wishes and budget ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "expected", "threads_because"),
    [
        ({"instances": 2}, (2, 2), "as configured"),
        ({"threads": 4}, (1, 4), "as configured"),
        ({"threads": 1}, (1, 1), "as configured"),  # it is so short that it runs on the event loop
        ({"threads": 3}, (1, 3), "as configured"),
        ({"instances": 3, "threads": 1}, (3, 1), "as configured"),
        ({"instances": 4, "threads": 2}, (4, 2), "as configured: 4 x 2 is more than the 4 cores"),
        ({"threads": 8}, (1, 8), "as configured: 1 x 8 is more than the 4 cores"),
    ],
)
def test_wishes_are_respected_and_too_many_threads_are_said_so(
    tmp_path: Path, wishes: dict[str, Any], expected: tuple[int, int], threads_because: str
) -> None:
    loaded = load(models.mlp(tmp_path / "m.onnx"))
    ready = prepare(loaded, 4, Wishes(**wishes, max_batch_rows=8, budget_s=0.02))
    assert split(ready) == expected
    assert ready.max_batch_rows == 8
    assert ready.reasons["instances"] == ready.reasons["max_batch_size"] == "as configured"
    assert ready.reasons["threads"] == threads_because


def test_a_wish_for_one_row_is_a_wish(tmp_path: Path) -> None:
    ready = prepare(load(models.mlp(tmp_path / "m.onnx")), 1, Wishes(max_batch_rows=1, budget_s=0.02))
    assert ready.max_batch_rows == 1
    assert ready.reasons["max_batch_size"] == "as configured"


@pytest.mark.slow
def test_the_budget_ends_the_measuring() -> None:
    started = time.monotonic()
    ready = prepare(Paced(lambda rows, threads: 0.01 * rows), 2, Wishes(budget_s=0.1))
    # Each thing is measured once whatever the budget; nothing is measured at sizes that do not fit.
    assert time.monotonic() - started < 5
    assert ready.max_batch_rows < 16


class Counting(Paced):
    """Notes the rows of each run."""

    def __init__(self, service: Callable[[int, int], float]) -> None:
        super().__init__(service)
        self.runs: list[int] = []

    def run(self, inputs: Tensors, threads: int) -> Tensors:
        self.runs.append(len(inputs[0]))
        return super().run(inputs, threads)


class Mixing(Counting):
    """Every row depends on all."""

    def run(self, inputs: Tensors, threads: int) -> Tensors:
        (x,) = super().run(inputs, threads)
        return (x - x.mean(axis=0, keepdims=True),)


@pytest.mark.parametrize("kind", [Counting, Mixing])
def test_a_model_whose_single_run_is_over_the_budget_runs_four_times(
    monkeypatch: pytest.MonkeyPatch, kind: type[Counting]
) -> None:
    monkeypatch.setattr(warmup, "_TOO_LONG_TO_COMPARE_S", 0.01)
    model = kind(lambda rows, threads: 0.03)
    ready = prepare(model, 2, Wishes(budget_s=0.02))
    assert model.runs == [3, 2, 1, 1]
    assert split(ready) == (1, 2)
    assert [rows for rows, _ in ready.profile] == [1]
    assert 0.03 <= ready.profile[0][1] < 0.3
    assert ready.signature.batched == (kind is Counting)


@pytest.mark.slow
def test_sizes_that_there_was_no_time_for_keep_their_proportion() -> None:
    model = Paced(lambda rows, threads: 0.002 * (1 + rows) / threads**1.3)
    ready = prepare(model, 2, Wishes(max_batch_rows=4, budget_s=0.4))
    assert [rows for rows, _ in ready.profile] == [1, 2, 4]
    assert ready.profile[2][1] > 1.8 * ready.profile[0][1]


def test_a_model_that_accepts_no_made_up_input_asks_for_examples(tmp_path: Path) -> None:
    loaded = load(models.gather(tmp_path / "m.onnx", rows=1))
    assert prepare(loaded, 1, Wishes(budget_s=0.02), (np.array([0, 0]),)).signature.batched

    class Picky(Paced):
        def run(self, inputs: Tensors, threads: int) -> Tensors:
            raise ModelFailed("the model raised an error", detail="not this one")

    with pytest.raises(ModelFailed, match="accepted none of the inputs tried: not this one") as caught:
        prepare(Picky(lambda rows, threads: 0.0), 1, Wishes(budget_s=0.02))
    assert caught.value.hint == "pass --examples FILE with inputs that it accepts"


# -- the file of examples -------------------------------------------------------------------------------------


TWO = Signature(
    (TensorSpec("a", DataType.FP32, (-1, 2)), TensorSpec("n", DataType.INT64, (-1,))),
    (TensorSpec("y", DataType.FP32, (-1, 2)),),
    batched=True,
)
TEXT = Signature((TensorSpec("t", DataType.BYTES, (-1, 1)),), (TensorSpec("y", DataType.FP32, (-1,)),), batched=True)


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("one.json", "[1, 2]", [[1.0, 2.0]]),
        ("one.json", '{"x": [1, 2]}', [[1.0, 2.0]]),
        ("all.json", "[[1, 2], [3, 4.5]]", [[1.0, 2.0], [3.0, 4.5]]),
        ("all.json", '[{"x": [1, 2]}, {"x": [3, 4]}]', [[1.0, 2.0], [3.0, 4.0]]),
        ("all.jsonl", "[1, 2]\n\n[3, 4]\n", [[1.0, 2.0], [3.0, 4.0]]),
        ("all.jsonl", '{"x": [1, 2]}\n{"x": [3, 4]}\n', [[1.0, 2.0], [3.0, 4.0]]),
        ("one.jsonl", '{"x": [1, 2]}\n', [[1.0, 2.0]]),
    ],
)
def test_examples_in_json(tmp_path: Path, name: str, text: str, rows: list[list[float]]) -> None:
    path = tmp_path / name
    path.write_text(text)
    (x,) = from_file(path, FLOATS)
    assert x.dtype == np.float32
    assert x.tolist() == rows


def test_examples_of_several_inputs(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"n": 7, "a": [1, 2]}\n{"a": [3, 4], "n": 8}\n')
    a, n = from_file(tmp_path / "e.jsonl", TWO)
    assert (a.tolist(), n.tolist(), n.dtype) == ([[1.0, 2.0], [3.0, 4.0]], [7, 8], np.int64)
    np.savez(tmp_path / "e.npz", n=np.array([7, 8], np.int32), a=np.array([[1, 2], [3, 4]]))
    again = from_file(tmp_path / "e.npz", TWO)
    assert [array.tolist() for array in again] == [a.tolist(), n.tolist()]
    assert [array.dtype for array in again] == [a.dtype, n.dtype]


def test_examples_of_text(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('["caf\u00e9"]\n["b"]\n', encoding="utf-8")
    np.savez(tmp_path / "e.npz", t=np.array([["caf\u00e9"], ["b"]]))
    for name in ("e.jsonl", "e.npz"):
        (t,) = from_file(tmp_path / name, TEXT)
        assert (t.dtype, t.tolist()) == (np.dtype(object), [["caf\u00e9"], ["b"]])


def test_examples_of_bf16_are_numbers(tmp_path: Path) -> None:
    loaded = load(models.identity(tmp_path / "m.onnx", T.BFLOAT16, ("N", 2)))
    (tmp_path / "e.json").write_text("[[1.0, -2.5]]")
    given = from_file(tmp_path / "e.json", loaded.signature)
    assert given[0].tolist() == [[0x3F80, 0xC020]]
    assert prepare(loaded, 1, Wishes(budget_s=0.02), given).signature.batched


def test_examples_of_a_model_without_rows(tmp_path: Path) -> None:
    loaded = load(models.total(tmp_path / "m.onnx"))
    for text in ("[1, 2, 3, 4]", '{"x": [1, 2, 3, 4]}', '{"x": [1, 2, 3, 4]}\n{"x": [5, 6, 7, 8]}'):
        (tmp_path / "e.json").write_text(text)
        given = from_file(tmp_path / "e.json", loaded.signature)
        assert given[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert prepare(loaded, 1, Wishes(budget_s=0.02), given).example[0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_model_fixed_at_one_row_takes_the_first_example(tmp_path: Path) -> None:
    loaded = load(models.identity(tmp_path / "m.onnx", T.FLOAT, (1, 2)))
    (tmp_path / "e.json").write_text("[[1, 2], [3, 4]]")
    assert from_file(tmp_path / "e.json", loaded.signature)[0].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.json", b"", "holds no item"),
        ("e.json", b"[]", "holds no item"),
        ("e.json", b"{not json", "Expecting property name"),
        ("e.json", b"\xff\xfe", "codec can't decode"),
        ("e.json", b"[[1, 2], [3]]", "inhomogeneous"),
        ("e.json", b"[1, 2, 3]", r"Expected \[-1,2\], got \[1,3\]"),
        ("e.json", b'["a", "b"]', "'x' is FP32"),
        ("e.json", b'{"z": [1, 2]}', "item 0 has no 'x'"),
        ("e.jsonl", b'{"x": [1, 2]}\n{"y": [1, 2]}', "item 1 has no 'x'"),
        ("e.npz", b"no archive", "."),
        ("e.npz", {"z": np.ones((1, 2))}, r"missing required input\(s\) \['x'\]"),
        ("e.npz", {"x": np.ones((1, 2)), "z": np.ones(1)}, "unexpected inference input"),
        ("e.npz", {"x": np.ones((0, 2))}, "holds no item"),
        ("e.npz", {"x": np.array([[{}, {}]])}, "allow_pickle"),
        ("missing.json", None, "No such file"),
        ("missing.npz", None, "No such file"),
    ],
)
def test_a_wrong_file_of_examples_is_a_configuration_error(
    tmp_path: Path, name: str, content: bytes | dict[str, np.ndarray] | None, said: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(ConfigError, match=said) as caught:
        from_file(path, FLOATS)
    assert str(caught.value).startswith(f"examples: {path}: ")
    assert caught.value.hint


@pytest.mark.parametrize("value", ["1.5", "9223372036854775808", '"1"', "true"])
def test_examples_do_not_wrap_or_lose_their_fraction(tmp_path: Path, value: str) -> None:
    (tmp_path / "e.json").write_text(f'{{"a": [1, 2], "n": {value}}}')
    with pytest.raises(ConfigError, match="'n' is INT64"):
        from_file(tmp_path / "e.json", TWO)
