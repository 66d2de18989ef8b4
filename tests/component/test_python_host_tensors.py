"""Code that takes tensors: declared or shown by an example, by position or by name, and judged on its way out."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from paceline.core.errors import ModelFailed, ModelLoadError
from support.hosts import Hosted, hosted

pytestmark = pytest.mark.slow


def signature(host: Hosted) -> list[tuple[str, str, tuple[int, ...]]]:
    found = host.service.signature_of(host.worker)
    return [(spec.name, spec.datatype.label, spec.shape) for spec in (*found.inputs, *found.outputs)]


def test_declared_tensors_come_as_read_only_arrays(tmp_path: Path):
    code = """
    import numpy as np
    inputs = {"image": ("FP32", [-1, 2, 3])}
    outputs = {"sum": (np.float64, [-1]), "writeable": ("BOOL", [-1])}
    def predict(images):
        return images.sum(axis=(1, 2), dtype=float), np.full(len(images), images.flags.writeable)
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.says == ["function predict: predict on tensors"]
        assert signature(host) == [("image", "FP32", (-1, 2, 3)), ("sum", "FP64", (-1,)), ("writeable", "BOOL", (-1,))]
        total, writeable = host.run(np.ones((4, 2, 3), np.float32))
        np.testing.assert_array_equal(total, [6.0] * 4)
        np.testing.assert_array_equal(writeable, [False] * 4)


def test_several_inputs_come_by_name_and_outputs_that_are_not_declared_are_learned(tmp_path: Path):
    code = """
    class Model:
        inputs = {"a": ("INT64", [-1, 2]), "b": ("FP32", [-1, 2]), "text": ("BYTES", [-1])}
        def setup(self): self.factor = 10
        def predict(self, text, b, a):
            return {"sum": a + b, "texts": [each + b"!" for each in text]}
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert signature(host)[3:] == [("sum", "FP64", (-1, 2)), ("texts", "BYTES", (-1,))]
        texts = np.array([b"x", b"yz"], object)
        total, marked = host.run(np.full((2, 2), 3), np.full((2, 2), 0.5, np.float32), texts)
        np.testing.assert_array_equal(total, np.full((2, 2), 3.5))
        assert marked.tolist() == [b"x!", b"yz!"]


def test_an_example_that_is_an_array_declares_the_input(tmp_path: Path):
    code = """
    import numpy as np
    class Model:
        def predict(self, image: np.ndarray): return 2 * image
        def example(self): return np.ones((2, 3), np.float32)
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert signature(host) == [("image", "FP32", (-1, 2, 3)), ("output", "FP32", (-1, 2, 3))]
        assert host.examples == [[[1.0] * 3] * 2]
        (doubled,) = host.run(np.full((5, 2, 3), 4, np.float32))
        np.testing.assert_array_equal(doubled, np.full((5, 2, 3), 8, np.float32))


def test_an_example_that_is_a_list_leaves_it_at_items(tmp_path: Path):
    code = """
    import numpy as np
    def predict(rows: np.ndarray): return rows.sum(axis=1)
    def example(): return [[1, 2]]
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.service.signature_of(host.worker).items
        assert host.examples == [[1, 2]]
        assert host.predict([3, 4]) == [7]


@pytest.mark.parametrize("rows", [1, 8, 64])
def test_large_tensors_there_and_back(tmp_path: Path, rows: int):
    code = """
    inputs = {"image": ("FP32", [-1, 3, 224, 224])}
    def predict(images): return images
    """
    images = np.random.default_rng(0).standard_normal((rows, 3, 224, 224)).astype(np.float32)
    with hosted(tmp_path, dedent(code)) as host:
        for sign in (1, -1, 1):
            (back,) = host.run(sign * images)
            np.testing.assert_array_equal(back, sign * images)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("x, x", "predict: expected 1 outputs (y); got 2"),
        ("{'z': x}", "predict: expected the outputs y; got z"),
        ("None", "predict: output 'y': expected an array, got NoneType of object"),
        ("x.astype(complex)", "predict: output 'y': expected an array, got ndarray of complex128"),
        ("x + 0.5", "predict: output 'y': expected INT64, got float64"),
    ],
)
def test_fault_55_outputs_that_are_none_are_told(tmp_path: Path, result: str, said: str):
    code = f"inputs = {{'x': ('INT64', [-1])}}\noutputs = {{'y': ('INT64', [-1])}}\ndef predict(x): return {result}\n"
    with hosted(tmp_path, code) as host:
        with pytest.raises(ModelFailed) as caught:
            host.run(np.arange(3))
        assert (caught.value.message, caught.value.code) == (said, "bad_model_output")


def test_outputs_are_cast_where_only_digits_are_lost(tmp_path: Path):
    code = """
    inputs = {"x": ("FP32", [-1])}
    outputs = {"y": ("FP32", [-1])}
    def predict(x): return list(x.astype(float) / 3)
    """
    with hosted(tmp_path, dedent(code)) as host:
        (y,) = host.run(np.ones(2, np.float32))
        assert y.dtype == np.float32


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def example(): return np.ones(3)\n", "example: x: expected one row, of shape [2], got [3]"),
        ("def example(): return {'y': np.ones(2)}\n", "example: expected an array for each of x"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(tmp_path: Path, code: str, said: str):
    declared = "import numpy as np\ninputs = {'x': ('FP32', [-1, 2])}\ndef predict(x): return x\n"
    with pytest.raises(ModelLoadError) as caught, hosted(tmp_path, declared + code):
        pass
    assert said in str(caught.value)


def test_outputs_that_nobody_can_learn_are_asked_for(tmp_path: Path):
    code = "inputs = {'x': ('FP32', [-1, 2])}\ndef predict(x): raise ValueError('no zeros')\n"
    with pytest.raises(ModelLoadError) as caught, hosted(tmp_path, code):
        pass
    assert "outputs are not declared, and predict raised on zeros: ValueError: no zeros" in str(caught.value)
    assert "example()" in (caught.value.hint or "")
