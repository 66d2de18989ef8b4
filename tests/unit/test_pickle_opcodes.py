"""What `paceline inspect` makes of pickles: real ones, and ones that were written to harm or to deceive."""

from __future__ import annotations

import collections
import io
import pickle
import subprocess
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import ModelLoadError
from paceline.inspection.dispatch import inspect
from paceline.inspection.names import judge
from paceline.inspection.opcodes import Program, follow
from paceline.inspection.report import Report
from paceline.inspection.standins import Broken
from paceline.inspection.streams import Stream, opened


class Runs:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def inspected(path: Path, data: bytes) -> Report:
    path.write_bytes(data)
    return inspect(path)


def followed(data: bytes) -> Program:
    return follow(Stream(iter([data])), Program())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.pkl"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_fault_102_a_pickle_that_runs_a_command_is_read_and_not_run(model, tmp_path, protocol):
    created = tmp_path / "created"
    report = inspected(model, pickle.dumps(Runs(subprocess.getoutput, f"touch {created}"), protocol))
    assert not created.exists()
    assert report.safety == "unsafe"
    assert [(each.name, each.verdict, each.called) for each in report.imports] == [
        ("subprocess.getoutput", "dangerous", True)
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_safe_in_every_protocol(model, protocol):
    data = {
        "numbers": np.arange(12.0).reshape(3, 4),
        "text": np.array(["a", "b"], dtype=object),
        "one": np.float32(1),
        "sets": {frozenset((1, 2))},
        "bytes": b"\x00\xff",
        "complex": 1j,
        "day": date(2026, 1, 2),
        "ordered": collections.OrderedDict(a=collections.deque([1])),
    }
    report = inspected(model, pickle.dumps(data, protocol))
    assert report.safety == "safe", report.findings
    assert all(each.verdict == "known" for each in report.imports)


def test_a_name_in_the_memo_is_still_known():
    """`os` and `system` lie far from where they are put together, with other texts between."""
    program = followed(
        b"\x80\x04\x8c\x02os\x940\x8c\x06system\x940\x8c\x04math\x940\x8c\x03sin\x940h\x00h\x01\x93\x8c\x02ls\x85R."
    )
    assert program.names == {("os", "system"): True}


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'ls'\ntR.",  # GLOBAL and REDUCE
        b"(S'ls'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'ls'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n\x8c\x02ls\x85\x81.",  # NEWOBJ
        b"\x80\x04cos\nsystem\n\x8c\x02ls\x85}\x92.",  # NEWOBJ_EX
        b"\x80\x04cos\nsystem\n2\x8c\x02ls\x85R0.",  # DUP, then dropped
    ],
)
def test_every_way_to_call_is_a_call(data):
    assert followed(data).names == {("os", "system"): True}


def test_what_is_hidden_in_the_bytes_of_an_array_is_found(model):
    """joblib steps over the bytes of an array; `pickle.load` runs them."""
    harm = b"0cos\nsystem\n(S'ls'\ntR."
    state = b"}(\x8c\x05shapeK" + bytes([len(harm)]) + b"\x85\x8c\x05dtypecnumpy\ndtype\n\x8c\x02u1\x85Ru"
    data = b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + state + b"b" + harm + b"."
    assert followed(data).names.keys() == {("joblib.numpy_pickle", "NumpyArrayWrapper"), ("numpy", "dtype")}
    report = inspected(model, data)
    assert report.safety == "unsafe"
    assert ("os.system", "dangerous") in [(each.name, each.verdict) for each in report.imports]


def test_names_of_python_2_are_what_a_reader_makes_of_them(model):
    report = inspected(model, b"ccommands\ngetoutput\n(S'ls'\ntR.")
    assert [each.name for each in report.imports] == ["subprocess.getoutput"]
    assert followed(b"\x80\x04ccommands\ngetoutput\n.").names == {("commands", "getoutput"): False}


def test_a_name_that_is_made_while_loading_is_no_name(model):
    """str.join of letters gives the module: what it will be called cannot be read off."""
    data = b"\x80\x04\x8c\x08builtins\x8c\x03str\x93)R\x8c\x06system\x93\x8c\x02ls\x85R."
    report = inspected(model, data)
    assert report.safety == "unsafe"
    assert any("hides" in each.text for each in report.findings)


def test_what_only_a_call_gives_is_not_called_unseen(model):
    data = b"cfunctools\npartial\n(cos\nsystem\ntR(tR."
    report = inspected(model, data)
    assert report.safety == "unsafe"
    assert any("a call of something that is no name" in each.text for each in report.findings)


@pytest.mark.parametrize(
    ("module", "name", "called", "level"),
    [
        ("sklearn.ensemble._forest", "RandomForestClassifier", True, "known"),
        ("sklearn.metrics._regression", "r2_score", False, "known"),
        ("sklearn.utils", "check_array", True, "unknown"),
        ("sklearn.utils", "os.system", False, "dangerous"),
        ("sklearn.utils._param", "__builtins__.eval", True, "dangerous"),
        ("sklearn.datasets", "fetch_openml", True, "dangerous"),
        ("numpy", "float64", True, "known"),
        ("numpy", "log1p", False, "known"),
        ("numpy", "load", False, "dangerous"),
        ("numpy", "tile", True, "unknown"),
        ("numpy.lib.npyio", "NpzFile", True, "dangerous"),
        ("torch", "FloatStorage", True, "known"),
        ("torch", "PyTorchFileWriter", True, "unknown"),
        ("torch", "load", True, "dangerous"),
        ("torch.nn.modules.linear", "Linear", True, "known"),
        ("pandas", "DataFrame", True, "known"),
        ("pandas", "read_pickle", True, "dangerous"),
        ("pandas.io.pickle", "to_pickle", False, "dangerous"),
        ("joblib.numpy_pickle", "NumpyArrayWrapper", True, "known"),
        ("builtins", "eval", True, "dangerous"),
        ("builtins", "set", True, "known"),
        ("builtins", "getattr", True, "dangerous"),
        ("importlib.util", "find_spec", True, "dangerous"),
        ("cloudpickle.cloudpickle", "_make_function", True, "dangerous"),
        ("__main__", "Mine", True, "unknown"),
        ("numpyish", "Thing", True, "unknown"),
        ("osmium", "Reader", True, "unknown"),
    ],
)
def test_what_is_known_of_names(module, name, called, level):
    assert judge(module, name, called=called).level == level


def test_a_class_of_the_users_own_is_unknown(model):
    report = inspected(model, b"\x80\x04\x8c\x08__main__\x8c\x04Mine\x93)\x81.")
    assert report.safety == "unknown"
    assert report.imports[0].why == "from the script that wrote the file"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x04",
        b"no pickle at all",
        b"\x80\x04.",  # nothing to give
        b"\x80\x04t.",  # no mark
        b"\x80\x04h\x07.",  # an empty place of the memo
        b"\x80\x04R.",
        b"\x80\x05\x8e" + (1 << 62).to_bytes(8, "little") + b".",  # an absurd length
        b"\x80\x05\x96" + b"\xff" * 8,
        b"\x80\x04\x95" + b"\xff" * 8,  # an absurd frame
        b"I" + b"9" * 10_000 + b"\n.",  # more digits than Python turns into a number
        b"\x8a\xff" + b"\x01" * 10,
        b"(" * 1000,
        b"\x80\x04b.",
        b"\x80\xff.",
    ],
)
def test_no_pickle_or_half_a_pickle_is_said_so(model, data):
    report = inspected(model, data)
    assert report.safety == "unknown"
    assert any("cannot be followed" in each.text for each in report.findings)


@pytest.mark.slow
def test_fault_104_a_million_instructions_nested_a_million_deep(model):
    report = inspected(model, b"\x80\x04" + b")" + b"\x85" * 1_000_000 + b".")
    assert report.about["pickle instructions"] == 1_000_003
    report = inspected(model, b"\x80\x04" + b"(" * 1_000_000 + b"t" * 999_999 + b"l.")
    assert report.safety == "safe"


@pytest.mark.slow
def test_too_many_instructions_end_the_reading(model, monkeypatch):
    monkeypatch.setattr("paceline.inspection.opcodes._MOST_INSTRUCTIONS", 10_000)
    with pytest.raises(Broken, match="more than 10000 instructions"):
        followed(b"\x80\x04" + b"N0" * 10_000 + b"N.")


def test_what_lies_behind_the_pickle_is_said(model):
    report = inspected(model, pickle.dumps([1]) + pickle.dumps(Runs(print, "x")))
    assert any("behind the pickle there is more" in each.text for each in report.findings)


@pytest.mark.parametrize("kind", ["gzip", "zlib", "bz2", "xz", "lzma"])
def test_compressed_files_are_read_piece_by_piece(tmp_path, kind):
    import bz2
    import gzip
    import lzma

    pack = {
        "gzip": gzip.compress,
        "zlib": zlib.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    }[kind]
    data = np.random.default_rng(0).bytes(600_000)
    path = tmp_path / "data"
    path.write_bytes(pack(data))
    stream, found = opened(path)
    assert found == kind
    assert stream.read(10) == data[:10]
    assert stream.skip(300_000) == 300_000
    assert stream.tell() == 300_010
    assert stream.read(len(data)) == data[300_010:]
    assert stream.read(1) == stream.readline() == b""
    path.write_bytes(pack(data)[:-100_000])
    stream, _ = opened(path)
    with pytest.raises(ModelLoadError, match=f"cannot be read as {kind}"):
        stream.skip(len(data))


def test_lines_end_where_they_end():
    stream = Stream(iter([b"ab", b"c\nd", b"e\n\nf"]))
    assert [stream.readline() for _ in range(4)] == [b"abc\n", b"de\n", b"\n", b"f"]


@pytest.mark.slow
def test_a_bomb_is_noticed_before_it_has_unpacked(tmp_path):
    path = tmp_path / "bomb.joblib"
    packer = zlib.compressobj(9)
    with path.open("wb") as file:
        for _ in range(1 << 7):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    path.write_bytes(path.read_bytes())
    stream, _ = opened(path)
    with pytest.raises(ModelLoadError, match="a bomb"):
        stream.skip(1 << 40)


def test_a_dict_of_models_cannot_be_served(model):
    report = inspected(model, pickle.dumps({"a": 1}))
    assert any("no object of a class" in each.text for each in report.findings)


def test_streams_give_what_files_give():
    data = bytes(range(256)) * 10
    stream = Stream(iter([data[:7], data[7:100], data[100:]]))
    file = io.BytesIO(data)
    for size in (1, 5, 3, 90, 0, 2000, 1000):
        assert stream.read(size) == file.read(size)
        assert stream.tell() == file.tell()
