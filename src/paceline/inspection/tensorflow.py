"""What is in a SavedModel? Signatures, operators and variables, read field by field, without TensorFlow.

Source: the field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto, types.proto and
saved_object_graph.proto of TensorFlow; they cannot change.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import prod
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError
from paceline.inspection.report import Report, Tensor, counted, listed
from paceline.runtimes import wire
from paceline.runtimes.savedmodel_file import SIGNATURE, TAG, TEXT, in_natural_order
from paceline.runtimes.savedmodel_rules import (
    ASSETS,
    INITIALIZES,
    INITIALIZES_TOO,
    REPLACES,
    Graph,
    Node,
    node_of,
    reaching_out,
)
from paceline.runtimes.savedmodel_sources import WRITES_VARIABLES, wrong_sources

_MOST_NODES: Final = 1_000_000
_TYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("FP32", 4), 2: ("FP64", 8), 3: ("INT32", 4), 4: ("UINT8", 1), 5: ("INT16", 2), 6: ("INT8", 1), 7: ("BYTES", 0),
    8: ("COMPLEX64", 8), 9: ("INT64", 8), 10: ("BOOL", 1), 14: ("BF16", 2), 17: ("UINT16", 2), 19: ("FP16", 2),
    20: ("resource", 0), 21: ("variant", 0), 22: ("UINT32", 4), 23: ("UINT64", 8),
}  # fmt: skip
_SIGN: Final = "export it with model.export(), or signatures="
_KINDS: Final = frozenset({4, 5, 6, 7, 8, 9, 10, 12})  # fields of a saved object that say what it is: the last counts
_ASSET: Final = 5


def read(folder: Path, report: Report) -> None:
    """Fill in the report of a folder with `saved_model.pb`.

    Raises:
        ModelLoadError: the file is no SavedModel, or an absurd one.
    """
    path = folder / "saved_model.pb"
    try:
        saved = _for_serving(wire.messages(wire.mapped(path), 2))
        _about(saved, report)
        _signature(saved, report)
        _variables(wire.first(saved, 7), report)
        graph = graph_of(saved, path)
    except wire.Malformed as error:
        raise ModelLoadError(
            f"{path}: cannot be read: it is no SavedModel, or a part of one ({error})", hint="export it again"
        ) from error
    report.operators = counted(node.operator for _, node in graph.all_nodes())
    report.about["nodes"] = sum(report.operators.values())
    report.weight_bytes = sum(each.stat().st_size for each in folder.glob("variables/variables.data-*"))
    _judge(graph, folder, report)


def _for_serving(graphs: Iterator[memoryview]) -> memoryview:
    """The graph that is served; where there is none, the first."""
    found = list(graphs)
    if not found:
        raise wire.Malformed("it has no graph")
    return next((each for each in found if [wire.text(tag) for tag in wire.messages(each, 1, 4)] == [TAG]), found[0])


def _about(graph: memoryview, report: Report) -> None:
    told = wire.first(graph, 1)
    version = wire.text(wire.first(told, 5))
    report.made_by, report.versions["tensorflow"] = f"TensorFlow {version}", version or "?"
    report.about["tags"] = listed(wire.text(tag) for tag in wire.messages(told, 4))


def graph_of(saved: memoryview, path: Path) -> Graph:
    """What runs when, as `Graph` has it.

    Raises:
        ModelLoadError: it has absurdly many nodes.
        wire.Malformed: it is no graph.
    """
    counter = count()
    functions: dict[str, list[Node]] = {}
    arguments: dict[str, list[str]] = {}
    bound = _bound(wire.first(saved, 7))
    called = set(bound)
    for function in wire.messages(saved, 2, 2, 1):
        name = _name(wire.first(function, 1))
        functions[name] = [_node(each, path, counter) for each in wire.messages(function, 3)]
        arguments[name] = _arguments(wire.first(function, 1))
        if REPLACES in map(_name, wire.messages(function, 5)):
            called.add(name)
    for gradient in wire.messages(saved, 2, 2, 2):
        node = Node("", "SymbolicGradient", (), (_name(gradient, 2),))
        functions.setdefault(_name(gradient), []).append(node)
    run, initialized = _ends(saved)
    savers = list(wire.messages(saved, 3))
    return Graph(
        nodes=[_node(each, path, counter) for each in wire.messages(saved, 2, 1)],
        functions=functions,
        arguments=arguments,
        run=run,
        initialized=initialized,
        restored={node_of(_name(saver, 3)) for saver in savers},
        called=called,
        bound=bound,
        assets={node_of(_name(each, 1)) for asset in _assets(saved) for each in wire.messages(asset, 1)},
        weights={node_of(_name(saver)) for saver in savers},
    )


def _ends(saved: memoryview) -> tuple[set[str], set[str]]:
    """The nodes that run for requests, and those that run when the model is loaded."""
    run: set[str] = set()
    initialized: set[str] = set()
    for signature in wire.messages(saved, 5):
        ends = initialized if _name(signature) == INITIALIZES_TOO else run
        ends |= {node_of(_name(output)) for output in wire.messages(signature, 2, 2, 2)}
    for collection in wire.messages(saved, 4):
        if _name(collection) in INITIALIZES:
            initialized |= {node_of(wire.text(each)) for each in wire.messages(collection, 2, 1, 1)}
    return run, initialized


def _assets(saved: memoryview) -> list[memoryview]:
    """The model's own files, and the tensors that become their names, as the loader finds them."""
    packed = (each for each in wire.messages(saved, 4) if _name(each) == ASSETS)
    return list(wire.messages(saved, 6)) or [asset for each in packed for asset in wire.messages(each, 2, 5, 1, 2)]


def _bound(objects: memoryview) -> dict[str, list[bool]]:
    """The functions that Python calls, as `Graph.bound` has them."""
    kinds = [[number for number, _ in wire.fields(each) if number in _KINDS] for each in wire.messages(objects, 1)]
    found: dict[str, list[bool]] = {}
    for function in wire.messages(objects, 2):
        places = [
            place
            for number, value in wire.fields(wire.first(function, 2))
            if number == 2
            for place in wire.numbers(value)
        ]
        found[_name(function)] = [place < len(kinds) and kinds[place][-1:] == [_ASSET] for place in places]
    return found


def _arguments(signature: memoryview) -> list[str]:
    arguments = list(wire.messages(signature, 2))
    lists = any(_name(each, 5) or _name(each, 6) for each in arguments)
    return [] if lists else [_name(each) for each in arguments]


def _node(node: memoryview, path: Path, counter: Iterator[int]) -> Node:
    if next(counter) >= _MOST_NODES:
        raise ModelLoadError(f"{path}: cannot be read: more than {_MOST_NODES} nodes")
    name, operator, inputs, calls, values = "", "", [], [], list[memoryview]()
    for number, value in wire.fields(node):
        if isinstance(value, int):
            continue
        if number == 1:
            name = wire.text(value)
        elif number == 2:
            operator = wire.text(value)
        elif number == 3:
            inputs.append(node_of(wire.text(value)))
        elif number == 5:
            calls += [_name(each) for each in (*wire.messages(value, 2, 10), *wire.messages(value, 2, 1, 9))]
            values += wire.messages(value, 2)
    is_text = operator in WRITES_VARIABLES and any(wire.number(each, 6) == TEXT for each in values)
    return Node(name, operator, inputs, calls, is_text)


def _name(message: memoryview, field: int = 1) -> str:
    return wire.text(wire.first(message, field))


def _signature(graph: memoryview, report: Report) -> None:
    """The inputs and outputs of the signature that is served."""
    signatures = {wire.text(wire.first(each, 1)): wire.first(each, 2) for each in wire.messages(graph, 5)}
    names = [name for name in signatures if name != INITIALIZES_TOO]
    if not names:
        report.find("odd", "it has no signature: it cannot be served", _SIGN)
        return
    report.about["signatures"] = listed(names)
    if SIGNATURE not in signatures:
        report.find("odd", f"it has no signature {SIGNATURE}: it cannot be served", _SIGN)
        return
    report.inputs, report.outputs = (_tensors(signatures[SIGNATURE], number) for number in (1, 2))


def _tensors(signature: memoryview, number: int) -> list[Tensor]:
    found = {each.name: each for each in map(_tensor, wire.messages(signature, number))}
    return [found[name] for name in in_natural_order(found)]


def _tensor(entry: memoryview) -> Tensor:
    told = wire.first(entry, 2)
    code = wire.number(told, 2)
    shapes = list(wire.messages(told, 3))
    is_unknown = not shapes or wire.number(shapes[0], 3) == 1
    shape = None if is_unknown else _sizes(shapes[0])
    return Tensor(name=wire.text(wire.first(entry, 1)), datatype=_TYPES.get(code, (f"type {code}", 0))[0], shape=shape)


def _sizes(shape: memoryview) -> list[int | str]:
    return [wire.signed(wire.number(each, 1)) for each in wire.messages(shape, 2)]


def _variables(objects: memoryview, report: Report) -> None:
    """Count the numbers in variables; a model of TensorFlow 1 does not list them."""
    seen: set[tuple[str, tuple[int | str, ...]]] = set()
    total, found = 0, False
    for each in wire.messages(objects, 1):
        for variable in wire.messages(each, 7):
            found = True
            name, shape = wire.text(wire.first(variable, 6)), _sizes(wire.first(variable, 2))
            # Keras's export has each variable twice, under the same path. A name that is no path may be any variable's.
            if "/" in name and (name, tuple(shape)) in seen:
                continue
            seen.add((name, tuple(shape)))
            if wire.number(variable, 3) and all(isinstance(size, int) and size >= 0 for size in shape):
                total += prod(int(size) for size in shape)
    report.parameters = total if found else None


def _judge(graph: Graph, folder: Path, report: Report) -> None:
    found = [f"{name} {how}" for name, how in reaching_out(graph).items()]
    if found:
        report.find("unsafe", f"when it runs, {listed(found)}", "do not serve it unread")
    for wrong in wrong_sources(graph):
        report.find("unsafe", wrong, "do not serve it unread")
    if (folder / "assets.extra").is_dir():
        report.find("note", "assets.extra lies beside it; serving does not use it, but for requests to warm up with")
    if not (folder / "variables").is_dir() and report.operators.keys() & {"VarHandleOp", "RestoreV2"}:
        report.find("note", "it has no folder of variables: its weights are constants, or missing")
