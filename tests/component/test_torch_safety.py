"""Is a PyTorch file that would run code, or touch files, refused before anything of it runs?"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'paceline[torch]'")

from paceline.core.errors import ModelLoadError, UnsafeModel  # noqa: E402
from paceline.inspection.dispatch import inspect  # noqa: E402
from paceline.runtimes.base import load  # noqa: E402
from paceline.runtimes.torch_file import check  # noqa: E402
from support import torch_models  # noqa: E402
from support.inspected import found  # noqa: E402

pytestmark = pytest.mark.slow
PROGRAM = "models/model.json"
Document = dict[str, Any]


class Payload:
    """What it holds runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._file,)


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return torch_models.exported(Plain(), torch.zeros(2, 3), to=tmp_path / "plain.pt2")


def with_program(path: Path, change: Callable[[Document], object]) -> Path:
    def changed(name: str, data: bytes) -> bytes:
        if name != PROGRAM:
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return torch_models.rewritten(path, changed)


def refused(path: Path, says: str) -> None:
    """Before anything is loaded; and whoever inspects the file is told."""
    with pytest.raises(UnsafeModel, match=says):
        load(path)
    assert inspect(path).safety != "safe"


def graph(document: Document) -> Document:
    inner: Document = document["graph_module"]["graph"]
    return inner


def test_what_is_rewritten_without_a_change_is_let_through(exported: Path):
    assert check(with_program(exported, lambda document: None)) == "exported"
    assert inspect(exported).safety == "safe"
    assert load(exported).signature.inputs[0].name == "x"


def test_a_size_that_is_code(exported: Path, tmp_path: Path):
    marker = tmp_path / "ran"
    code = f"Symbol(__import__('pathlib').Path('{marker}').touch() or 's77')"
    with_program(exported, lambda document: _size(graph(document)["tensor_values"]["x"], code))
    refused(exported, "expr_str is")
    assert not marker.exists()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "code",
    [
        "9**9**9",
        "1 << 10**10",
        "Pow(Integer(9), Integer(10000000000))",
        "FloorDiv(Pow(Pow(Add(x,y,z,w,1),8),8), Add(x,3))",
    ],
)
def test_a_size_that_takes_forever(code: str, exported: Path):
    with_program(exported, lambda document: _size(graph(document)["tensor_values"]["x"], code))
    refused(exported, "expr_str is")
    assert found(inspect(exported), "unsafe").startswith("expr_str is")


def test_a_size_that_is_code_of_a_tensor_that_is_called_like_free_text(exported: Path, tmp_path: Path):
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path('{marker}').touch()"

    def change(document: Document) -> None:
        values = graph(document)["tensor_values"]
        values["metadata"] = json.loads(json.dumps(values["x"]))
        _size(values["metadata"], code)

    with_program(exported, change)
    refused(exported, "expr_str is")
    assert not marker.exists()


def test_the_root_of_a_size_is_one_of_the_sizes_that_are_let_through(tmp_path: Path):
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.shape[0] ** 0.5 * (x.shape[0] + 2) ** -0.5

    path = torch_models.exported(Scaled(), torch.zeros(4, 3), to=tmp_path / "scaled.pt2")
    written = path.read_bytes()
    assert b"Float('0.5'" in written
    assert b"Float('-0.5'" in written
    assert inspect(path).safety == "safe"
    (answer,) = load(path).instances(1, 1)[0].run((np.ones((7, 3), np.float32),))
    np.testing.assert_allclose(answer, np.full((7, 3), 7**-0.5 / 3), rtol=1e-6)


def _size(tensor: Document, code: str) -> None:
    tensor["sizes"][0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.mylib.run.default",
        "torch.ops.load_library",
        "torch.ops.higher_order.call_torchbind",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "math.__loader__.load_module",
        "#ext:run",
        "builtins.eval",
    ],
)
def test_a_function_that_is_no_operator(target: str, exported: Path):
    with_program(exported, lambda document: graph(document)["nodes"][0].update(target=target))
    refused(exported, "target is")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("graph_module", "graph", "nodes", 0, "name"), "x=__import__('os')"),
        (("graph_module", "graph", "nodes", 0, "inputs", 0, "name"), "input=print(1),other"),
        (("graph_module", "module_call_graph", 0, "signature", "forward_arg_names"), ["x=print(1)"]),
        (("graph_module", "signature", "input_specs", 0, "parameter", "parameter_name"), 'a"); print(1); ("'),
        (("guards_code",), ["__import__('os').getcwd() == L['x']"]),
        (("range_constraints", "__import__('os')"), {"min_val": 0, "max_val": 9}),
    ],
)
def test_a_name_that_is_code(place: tuple[Any, ...], value: Any, exported: Path):
    def change(document: Any) -> None:
        for key in place[:-1]:
            document = document[key]
        document[place[-1]] = value

    with_program(exported, change)
    refused(exported, "no plain name")


@pytest.mark.parametrize(
    "structure",
    [
        '[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]',
        '[1, {"type": "builtins.dict", "context": "[\\"a=print(1)\\"]", "children_spec": []}]',
        '[1, {"type": "some.module.Type", "context": "null", "children_spec": []}]',
        "no json",
    ],
)
def test_a_container_of_somebody_s_own(structure: str, exported: Path):
    def change(document: Document) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = structure

    with_program(exported, change)
    refused(exported, "in_spec is")


def test_a_pickle_among_the_sample_inputs_is_not_unpickled(exported: Path, tmp_path: Path):
    marker = tmp_path / "ran"
    payload = BytesIO()
    torch.save(((Payload(marker),), {}), payload)
    torch_models.rewritten(exported, lambda name, data: payload.getvalue() if "sample_inputs" in name else data)
    refused(exported, "a pickle that holds more than tensors")
    assert not marker.exists()


def test_a_pickled_weight_is_not_unpickled(exported: Path, tmp_path: Path):
    marker = tmp_path / "ran"
    payload = BytesIO()
    torch.save(Payload(marker), payload)

    def change(name: str, data: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return payload.getvalue()
        return data.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("_config.json") else data

    torch_models.rewritten(exported, change)
    refused(exported, "a pickle that holds more than tensors")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "data/aotinductor/model/model.so",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/executorch/model.pte",
    ],
)
def test_a_library_or_an_object(name: str, exported: Path):
    torch_models.rewritten(exported, lambda _, data: data, {name: b"\x7fELF"})
    refused(exported, "an object or a library")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ending", ["pt", "pt2"])
def test_what_torch_save_wrote_is_refused_by_name(ending: str, zipped: bool, tmp_path: Path):
    marker, path = tmp_path / "ran", tmp_path / f"module.{ending}"
    torch.save(Payload(marker), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeModel, match=r"a pickle of torch\.save") as said:
        check(path)
    assert "torch.export.save" in str(said.value.hint)
    assert not marker.exists()


def test_a_bare_pickle_with_the_ending_of_torch_is_not_unpickled(tmp_path: Path):
    marker, path = tmp_path / "ran", tmp_path / "module.pt"
    path.write_bytes(pickle.dumps(Payload(marker)))
    refused(path, "a pickle")
    assert not marker.exists()


def test_a_script_that_reads_files(tmp_path: Path):
    class Reads(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("/etc/hostname", size=1, dtype=torch.uint8)

    refused(torch_models.scripted(Reads(), tmp_path / "reads.pt"), "reads or writes files")


def test_a_script_that_writes_files(tmp_path: Path):
    path = torch_models.scripted(Plain(), tmp_path / "plain.pt")
    body = b"    torch.save(x, 'out')\n    return"
    torch_models.rewritten(
        path, lambda name, data: data.replace(b"    return", body, 1) if name.endswith(".py") else data
    )
    refused(path, "its code names 'save'")


@pytest.mark.parametrize(
    ("added", "says"),
    [
        (b"    ops.c10d.barrier(x)\n    return", "operators of 'c10d'"),
        (b"    y = __torch__.torch.classes.rpc.WorkerInfo(x)\n    return", "objects of 'rpc'"),
    ],
)
def test_a_script_that_reaches_for_more(added: bytes, says: str, tmp_path: Path):
    path = torch_models.scripted(Plain(), tmp_path / "plain.pt")
    torch_models.rewritten(
        path, lambda name, data: data.replace(b"    return", added, 1) if name.endswith(".py") else data
    )
    refused(path, says)


@pytest.mark.parametrize("record", ["constants.pkl", "data.pkl"])
def test_a_script_with_an_object_in_a_pickle(record: str, tmp_path: Path):
    path = torch_models.scripted(Plain(), tmp_path / "plain.pt")
    pickled = b"\x80\x02c__torch__.torch.classes.rpc\nWorkerInfo\nq\x00)\x81}b."
    torch_models.rewritten(path, lambda name, data: pickled if name == record else data)
    refused(path, "objects of 'rpc'")
    assert "objects of 'rpc'" in found(inspect(path), "unsafe")


@pytest.mark.parametrize("ending", ["pt2", "pt"])
def test_broken_files_are_told(ending: str, exported: Path, tmp_path: Path):
    whole = exported if ending == "pt2" else torch_models.scripted(Plain(), tmp_path / "plain.pt")
    data = whole.read_bytes()
    for name, part in {"half": data[: len(data) // 2], "head": data[:10], "noise": b"PK" + bytes(range(256))}.items():
        path = tmp_path / f"{name}.{ending}"
        path.write_bytes(part)
        with pytest.raises(ModelLoadError, match="cannot be loaded"):
            load(path)


@pytest.mark.parametrize("table", [b"[]", b"{}", b'{"config": {"w": 1}}', b'{"config": {"w": {}}}', b"{"])
def test_a_broken_table_of_weights_is_told(table: bytes, exported: Path):
    torch_models.rewritten(exported, lambda name, data: table if name.endswith("_config.json") else data)
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load(exported)
