"""What runs when in a SavedModel? Its graph, read field by field, without TensorFlow, as TensorFlow's own reader does.

Rules:
- Names are whole: one that would have to be cut could pass for another.
- Of fields that exclude each other, one of a fixed size does not count: then more is taken to run than does.

Source: as in `tensorflow.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError
from paceline.runtimes import wire
from paceline.runtimes.savedmodel_file import FILE, TAG, TEXT
from paceline.runtimes.savedmodel_rules import ASSETS, INITIALIZES, INITIALIZES_TOO, REPLACES, Graph, Node, node_of
from paceline.runtimes.savedmodel_sources import WRITES_VARIABLES

KINDS: Final = frozenset({4, 5, 6, 7, 8, 9, 10, 12})
"""Fields of a saved object that say what it is: it has one."""

_MOST_NODES: Final = 1_000_000
_ASSET: Final = 5
# Of these, too, a message has one.
_COLLECTIONS: Final = frozenset({1, 2, 3, 4, 5})
_NODE_NAMES, _ANY = 1, 5
_ENCODINGS: Final = frozenset({1, 4, 5})  # what a tensor of a signature is
_NAMED: Final = 1
_VALUES: Final = frozenset({1, 2, 7, 8, 9, 10})  # of an attribute, beside those that are numbers
_NUMBERS: Final = frozenset({3, 5, 6})
_LIST, _TYPE, _FUNCTION = 1, 6, 10
_ENUM: Final = (1 << 32) - 1


def graph_of(folder: Path) -> Graph:
    """Of the graph that is served, what runs when.

    Raises:
        ModelLoadError: it cannot be read, or has absurdly many nodes.
        wire.Malformed: it is no graph.
        wire.TooLong: a name in it is.
    """
    saved, _ = for_serving(folder)
    return read_graph(saved, folder)


def for_serving(folder: Path) -> tuple[memoryview, bool]:
    """The graph that is served, and True; where there is none, the first.

    Raises:
        ModelLoadError: the file cannot be read.
        wire.Malformed: it has no graph.
    """
    found = list(wire.messages(wire.mapped(folder / FILE), 2))
    if not found:
        raise wire.Malformed("it has no graph")
    served = (each for each in found if {wire.text(tag) for tag in wire.messages(each, 1, 4)} == {TAG})
    graph = next(served, None)
    return (found[0], False) if graph is None else (graph, True)


def read_graph(saved: memoryview, folder: Path) -> Graph:
    """What runs when in a graph; see `graph_of`."""
    counter = count()
    functions: dict[str, list[Node]] = {}
    arguments: dict[str, list[str]] = {}
    bound = _bound(wire.merged(saved, 7))
    called = set(bound)
    for function in wire.messages(saved, 2, 2, 1):
        signature = wire.merged(function, 1)
        name = _name(signature)
        functions[name] = [_node(each, folder, counter) for each in wire.messages(function, 3)]
        arguments[name] = _arguments(signature)
        if REPLACES in wire.entries(function, 5):
            called.add(name)
    for gradient in wire.messages(saved, 2, 2, 2):
        node = Node("", "SymbolicGradient", (), frozenset({_name(gradient, 2)}))
        functions.setdefault(_name(gradient), []).append(node)
    collections = wire.entries(saved, 4)
    ends = {key: _ends(signature) for key, signature in wire.entries(saved, 5).items()}
    initialized = ends.pop(INITIALIZES_TOO, set())
    assets = _assets(saved, collections)
    return Graph(
        nodes=[_node(each, folder, counter) for each in wire.messages(saved, 2, 1)],
        functions=functions,
        arguments=arguments,
        run=set[str]().union(*ends.values()),
        initialized=initialized.union(
            node_of(wire.name(each))
            for key in INITIALIZES
            for each in wire.messages(_collection(collections, key, _NODE_NAMES), 1)
        ),
        restored={node_of(wire.name(wire.last(saved, 3, 3)))},
        called=called,
        bound=bound,
        assets={node_of(_named(wire.merged(each, 1))) for each in assets},
        files={_name(each, 2) for each in assets},
        weights={node_of(wire.name(wire.last(saved, 3, 1)))},
    )


def _ends(signature: memoryview) -> set[str]:
    return {node_of(_named(output)) for output in wire.entries(signature, 2).values()}


def _named(tensor: memoryview) -> str:
    """The name of a tensor of a signature; empty where it is several."""
    return _name(tensor) if wire.one_of(tensor, _ENCODINGS)[0] == _NAMED else ""


def _collection(collections: dict[str, memoryview], key: str, kind: int) -> memoryview:
    """A collection, if it is of this kind."""
    found, value = wire.one_of(collections.get(key, memoryview(b"")), _COLLECTIONS)
    return value if found == kind else value[:0]


def _assets(saved: memoryview, collections: dict[str, memoryview]) -> list[memoryview]:
    """The model's own files, and the tensors that become their names, as the loader finds them."""
    packed = wire.messages(_collection(collections, ASSETS, _ANY), 1)
    return list(wire.messages(saved, 6)) or [wire.last(each, 2) for each in packed]


def _bound(objects: memoryview) -> dict[str, list[bool]]:
    """The functions that Python calls, as `Graph.bound` has them."""
    kinds = [wire.one_of(each, KINDS)[0] for each in wire.messages(objects, 1)]
    found: dict[str, list[bool]] = {}
    for name, function in wire.entries(objects, 2).items():
        places = [
            place & _ENUM for number, value in wire.fields(function) if number == 2 for place in wire.numbers(value)
        ]
        found[name] = [place < len(kinds) and kinds[place] == _ASSET for place in places]
    return found


def _arguments(signature: memoryview) -> list[str]:
    arguments = list(wire.messages(signature, 2))
    lists = any(_name(each, 5) or _name(each, 6) for each in arguments)
    return [] if lists else [_name(each) for each in arguments]


def _node(node: memoryview, folder: Path, counter: Iterator[int]) -> Node:
    if next(counter) >= _MOST_NODES:
        raise ModelLoadError(f"{folder}: cannot be read: more than {_MOST_NODES} nodes")
    operator = _name(node, 2)
    calls: set[str] = set()
    is_text = False
    for attribute in wire.entries(node, 5).values():
        kind, value = wire.one_of(attribute, _VALUES, _NUMBERS)
        if kind == _FUNCTION:
            calls.add(_name(value))
        elif kind == _LIST:
            calls.update(_name(each) for each in wire.messages(value, 9))
        elif kind == _TYPE and operator in WRITES_VARIABLES:
            is_text |= wire.number(attribute, _TYPE) & _ENUM == TEXT
    inputs = [node_of(wire.name(each)) for each in wire.messages(node, 3)]
    return Node(_name(node), operator, inputs, frozenset(calls - {""}), is_text)


def _name(message: memoryview, field: int = 1) -> str:
    return wire.name(wire.last(message, field))
