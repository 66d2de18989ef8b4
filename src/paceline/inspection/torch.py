"""What is in a file of PyTorch's? TorchScript, torch.export's archive, or what torch.save has pickled."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import Any, Final

from paceline.inspection import torch_outputs
from paceline.inspection.documents import NotJson, at, decoded, items, word
from paceline.inspection.opcodes import Program, follow
from paceline.inspection.pickles import describe
from paceline.inspection.report import Report, Tensor, counted, listed
from paceline.inspection.standins import Broken, Made, Name
from paceline.inspection.streams import Stream, opened
from paceline.runtimes import torch_rules
from paceline.runtimes.archive import Archive

_MOST_CODE_BYTES: Final = 64 << 20
_MOST_JSON_BYTES: Final = 256 << 20
_ZIP: Final = b"PK"
# Numbers of torch.export's schema (`ScalarType`), which are its own.
_TYPES: Final = {1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64",
                 10: "COMPLEX64", 11: "COMPLEX128", 12: "BOOL", 13: "BF16", 28: "UINT16"}  # fmt: skip
_CALL: Final = re.compile(rb"\b(?:torch|ops(?:\.\w+)?)\.(\w+)\(")
_ARGUMENT: Final = re.compile(r"(\w+): ([\w.\[\], ]+?)(=[^,]*)?(?=,\s*\w+:|$)")


def read(path: Path, report: Report) -> None:
    """Fill in the report of a .pt file, or of anything else that torch.save writes.

    Raises:
        ModelLoadError: it cannot be read.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == _ZIP
    if not is_zip:
        _older(path, report)
        return
    with Archive(path) as archive:
        pickled = archive.find("data.pkl")
        if pickled is None:
            raise archive.broken("it is a zip, but none of torch.save or torch.jit.save")
        root = pickled.removesuffix("data.pkl")
        code = [name for name in archive.entries if name.startswith(f"{root}code/") and name.endswith(".py")]
        report.weight_bytes = sum(size for name, size in archive.entries.items() if name.startswith(f"{root}data/"))
        program, broken = _program(Stream(archive.pieces(pickled)))
        report.parameters = program.numbers
        if code or f"{root}constants.pkl" in archive.entries:
            _script(archive, code, program, report)
        else:
            _saved(program, report)
    if broken:
        report.find("unknown", f"data.pkl cannot be followed to its end: {broken}")


def read_exported(path: Path, report: Report) -> None:
    """Fill in the report of a .pt2 file.

    Raises:
        ModelLoadError: it is no such file.
    """
    with Archive(path) as archive:
        name = archive.find("models/model.json")
        if name is None:
            raise archive.broken("it holds no exported program, or one of PyTorch 2.7 and older")
        _exported(_document(archive, name), report)
        report.weight_bytes = sum(size for each, size in archive.entries.items() if "/data/weights/" in each)
        _records(archive, report)


def _document(archive: Archive, name: str) -> Any:
    try:
        return decoded(archive.read(name, _MOST_JSON_BYTES))
    except NotJson as error:
        raise archive.broken(f"{name}: {error}") from error


def _program(stream: Stream) -> tuple[Program, str | None]:
    program = Program()
    try:
        follow(stream, program)
    except Broken as error:
        return program, str(error)
    return program, None


def _saved(program: Program, report: Report) -> None:
    report.format, report.title = "torch-save", "PyTorch, pickled by torch.save"
    describe(program, report)
    report.find(
        "note",
        "it holds weights, or a pickled module, and no program: it cannot be served",
        "export it with torch.export.save; or paceline optimize module:factory, a function that makes the module; or "
        "let a service in Python load it",
    )


def _older(path: Path, report: Report) -> None:
    """A file of torch before 1.6: several pickles, then raw numbers."""
    stream, _ = opened(path)
    program, broken = Program(), None
    for _ in range(4):  # magic number, version, system, object
        try:
            follow(stream, program)
        except Broken as error:
            broken = str(error)
            break
    _saved(program, report)
    if broken:
        report.find("unknown", f"it cannot be followed to its end: {broken}", "it may be no file of PyTorch")


def _script(archive: Archive, code: list[str], program: Program, report: Report) -> None:
    """TorchScript: a program of its own language, which is not Python."""
    outside = [Name(*name) for name in program.names if not name[0].startswith(("__torch__", "torch", "collections"))]
    if outside:
        report.find("unsafe", f"data.pkl names what no TorchScript does: {listed(map(str, outside))}")
    calls: list[str] = []
    for name in code:
        calls += [call.decode() for call in _CALL.findall(archive.read(name, _MOST_CODE_BYTES))]
    for wrong in torch_rules.wrong_in_script(archive.entries, lambda name: archive.read(name, _MOST_CODE_BYTES)):
        report.find("unsafe", wrong)
    report.operators = counted(calls)
    _forward(archive, program.result, report)


def _forward(archive: Archive, result: Any, report: Report) -> None:
    """The arguments of the module's `forward`, as its code declares them."""
    of = result.of if isinstance(result, Made) else None
    if not isinstance(of, Name):
        return
    report.about["class"] = of.name
    file = archive.find(f"code/{of.module.replace('.', '/')}.py")
    text = archive.read(file, _MOST_CODE_BYTES).decode("utf-8", "replace") if file else ""
    body = text.partition(f"class {of.name}(")[2].partition("\nclass ")[0]
    match = re.search(r"def forward\(([^)]*)\) -> ([^\n]+?):\n", body)
    if match is None:
        report.find("odd", "it has no method forward")
        return
    arguments = " ".join(match[1].split()).partition(", ")[2]  # the first is the module itself
    found = _ARGUMENT.findall(arguments)
    # What has a default is not asked for. Which types and shapes tensors have, the file does not tell.
    report.inputs = [Tensor(name=name) for name, _, default in found if not default]
    report.outputs = torch_outputs.of_annotation(match[2])
    report.about["returns"] = match[2][:200]


def _records(archive: Archive, report: Report) -> None:
    """Judge everything in the archive, as serving does; pickles are followed."""
    for entry in archive.entries:
        name = entry.partition("/")[2]
        if wrong := torch_rules.wrong_record(name):
            report.find("unsafe", wrong)
        elif torch_rules.is_pickled(name):
            _inner_pickle(archive, entry, report)
        elif name.startswith("models/"):
            if wrong := torch_rules.wrong_program(_document(archive, entry)):
                report.find("unsafe", wrong)
        elif name.startswith("data/") and name.endswith("_config.json"):
            _payloads(archive, entry, report)


def _payloads(archive: Archive, table: str, report: Report) -> None:
    try:
        payloads = torch_rules.payloads(_document(archive, table))
    except ValueError as error:
        raise archive.broken(f"{table} is {error}") from error
    for place, is_pickled in payloads:
        if wrong := torch_rules.wrong_place(place):
            report.find("unsafe", wrong)
        elif is_pickled:
            _inner_pickle(archive, f"{table.rpartition('/')[0]}/{place}", report)


def _inner_pickle(archive: Archive, name: str, report: Report) -> None:
    pickles = _inner_pickles(archive, name)
    if not pickles:
        report.find("unknown", f"{name} is no file of torch.save as it should be")
    for inner in pickles:
        program, _ = _program(Stream(iter([inner])))
        found = Report(path=name, format="", title="")
        describe(program, found)
        for finding in found.findings:
            report.find(finding.level, f"{name}: {finding.text}", finding.hint)


def _inner_pickles(archive: Archive, name: str) -> list[bytes]:
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(archive.read(name, _MOST_CODE_BYTES))) as inner:
            infos = [each for each in inner.infolist() if each.filename.endswith("/data.pkl")]
            return [inner.read(each) for each in infos if each.file_size <= _MOST_CODE_BYTES]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError):
        return []


def _exported(program: Any, report: Report) -> None:
    graph = at(program, "graph_module", "graph")
    targets = [word(node, "target") for node in items(graph, "nodes")]
    report.operators = counted(_short(target) for target in targets)
    report.about["nodes"] = len(targets)
    version = at(program, "schema_version")
    if isinstance(version, dict):
        report.versions["schema"] = f"{version.get('major')}.{version.get('minor')}"
    made_with = word(program, "torch_version")
    if made_with and made_with != "<=2.4":
        report.made_by, report.versions["torch"] = f"PyTorch {made_with}", made_with
    for opset, number in (at(program, "opset_version") or {}).items():
        report.versions[f"opset {opset}"[:64]] = str(number)[:16]
    _exported_tensors(program, graph, report)


def _exported_tensors(program: Any, graph: Any, report: Report) -> None:
    signature, values = at(program, "graph_module", "signature"), at(graph, "tensor_values")
    named = [word(each, "user_input", "arg", "as_tensor", "name") for each in items(signature, "input_specs")]
    report.inputs = [_value(name, values) for name in named if name]
    given = [each for each in items(signature, "output_specs") if at(each, "user_output") is not None]
    told = [_value(word(each, "user_output", "arg", "as_tensor", "name"), values) for each in given]
    report.outputs = torch_outputs.of_program(program, told)
    weights = [word(each, "parameter", "arg", "name") for each in items(signature, "input_specs")]
    shapes = [_value(name, values).shape for name in weights if name]
    report.parameters = sum(prod(size for size in shape if isinstance(size, int)) for shape in shapes if shape)


def _value(name: str, values: Any) -> Tensor:
    told = at(values, name)
    code = at(told, "dtype")
    sizes: list[int | str] = []
    for each in items(told, "sizes"):
        size = at(each, "as_int")
        sizes.append(size if isinstance(size, int) else -1)
    return Tensor(name=name, datatype=_TYPES.get(code) if isinstance(code, int) else None, shape=sizes)


def _short(target: str) -> str:
    return target.removeprefix("torch.ops.").removesuffix(".default") or "?"
