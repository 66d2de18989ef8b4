"""What are the outputs of a PyTorch program called? By their place in what it returns, as when it is served."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

from paceline.inspection.documents import NotJson, at, decoded, items
from paceline.inspection.report import Tensor
from paceline.runtimes.torch_program import output_name

_SEQUENCES: Final = ("builtins.tuple", "builtins.list")
_DICTS: Final = ("builtins.dict", "collections.OrderedDict")

_NOTHING: Final = Tensor(name="")

Where = tuple[str, ...]
"""Keys from the outside in."""


def of_annotation(returns: str) -> list[Tensor] | None:
    """Those of TorchScript; None where the type does not tell how many they are: a list, or a dict."""
    if returns == "Tensor":
        return [_named(())]
    kinds = returns.removeprefix("Tuple[").removesuffix("]").split(", ")
    if not returns.startswith("Tuple[") or set(kinds) != {"Tensor"}:
        return None
    return [_named((str(place),)) for place in range(len(kinds))]


def of_program(program: Any, told: list[Tensor]) -> list[Tensor] | None:
    """Those of an exported program; None where it returns what only its own classes tell apart.

    Args:
        told: what it returns, in order, with types and shapes; what is no tensor has no name, and is not served.
    """
    calls = items(program, "graph_module", "module_call_graph")
    where = _leaves(at(calls[0], "signature", "out_spec") if calls else None)
    if where is None or len(where) != len(told):
        return None
    return [_named(keys, each) for keys, each in zip(where, told, strict=True) if each.name]


def _named(where: Where, told: Tensor = _NOTHING) -> Tensor:
    name = output_name([SimpleNamespace(key=key) for key in where])
    return Tensor(name=name, datatype=told.datatype, shape=told.shape)


def _leaves(spec: Any) -> list[Where] | None:
    """The leaves of a tree as torch writes it: its version, then nodes with a type, a context and children."""
    try:
        tree = decoded(spec.encode()) if isinstance(spec, str) else None
        found: list[Where] = []
        waiting: list[tuple[Where, Any]] = [((), items({"": tree}, "")[1])]
        while waiting:
            where, node = waiting.pop()
            if at(node, "type") is None:
                found.append(where)
                continue
            within = items(node, "children_spec")
            keys = _keys(node, len(within))
            waiting += reversed([((*where, key), each) for key, each in zip(keys, within, strict=True)])
    except (NotJson, ValueError, IndexError):
        return None
    return found


def _keys(node: Any, count: int) -> list[str]:
    kind = at(node, "type")
    if kind in _SEQUENCES:
        return [str(place) for place in range(count)]
    context = at(node, "context")
    keys = decoded(context.encode()) if kind in _DICTS and isinstance(context, str) else []
    return list(map(str, keys)) if isinstance(keys, list) else []
