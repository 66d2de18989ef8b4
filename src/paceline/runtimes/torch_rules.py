"""What may a PyTorch file hold? The rules of `torch_file.py`, for whoever reads its archive; PyTorch is not needed.

Each function says what is wrong in a few words, or None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from paceline.runtimes.torch_expression import is_harmless

_RECORDS: Final = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/[\w.]+|models/\w+\.json|extra/.*"
    r"|data/(weights|constants|sample_inputs)/[\w.\-]+"
)
_PICKLED: Final = re.compile(r"data/(weights|constants|sample_inputs)/.*\.pt")
_OBJECTS: Final = re.compile(r"data/constants/(custom_obj|opaque_obj)_.*")

_WORD: Final = re.compile(r"[\w.:@+\-]*")
_SPACES: Final = "aten|prims|quantized|quantized_decomposed|torchvision"
_CONTROL: Final = (
    "associative_scan|cond|flex_attention|invoke_subgraph|map_impl|scan|while_loop"
    "|wrap_with_autocast|wrap_with_set_grad_enabled"
)
_ARITHMETIC: Final = (
    "abs|add|and_|eq|floordiv|ge|getitem|gt|inv|invert|le|lshift|lt|mod|mul|ne|neg|not_|or_|pos|pow|rshift|sub"
    "|truediv|xor"
)
_OPERATOR: Final = re.compile(
    rf"torch\.ops\.({_SPACES})\.(?!from_file)\w+(\.\w+)?|torch\.ops\.higher_order\.({_CONTROL})"
    rf"|_operator\.({_ARITHMETIC})|torch\._?sym_\w+|math\.[a-z]\w*"
)
_CONTAINERS: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
# Texts that PyTorch keeps as texts.
_FREE: Final = frozenset({"metadata", "as_string", "as_strings"})

_IDENTIFIER: Final = re.compile(rb"[A-Za-z_]\w*")
_TOUCHES_FILES: Final = frozenset({b"save", b"from_file"})
_SCRIPT_SPACES: Final = frozenset({b"aten", b"prim", b"prims", b"quantized", b"torchvision"})
_CLASS: Final = re.compile(rb"torch\.classes\.(\w+)")


def wrong_record(name: str) -> str | None:
    """Of a record of torch.export's archive, by its name."""
    if _RECORDS.fullmatch(name) and not _OBJECTS.fullmatch(name):
        return None
    return f"it holds {_shown(name)}: an object or a library, and not only a program"


def is_pickled(name: str) -> bool:
    """True for a record that PyTorch unpickles whenever it opens the file."""
    return _PICKLED.fullmatch(name) is not None


def payloads(table: Any) -> list[tuple[str, bool]]:
    """Of a table of weights: the record that each lies in, beside the table, and whether that is a pickle.

    Raises:
        ValueError: it is no such table.
    """
    try:
        return [(str(each["path_name"]), bool(each["use_pickle"])) for each in table["config"].values()]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("no table of weights") from error


def wrong_place(place: str) -> str | None:
    """Of the record of a weight."""
    if _WORD.fullmatch(place) and not place.startswith(("custom_obj", "opaque_obj")):
        return None
    return f"a weight lies in {_shown(place)}"


def wrong_program(document: Any) -> str | None:
    """Of a program, as JSON."""
    for key, text in _texts(document):
        if not _is_tame(key, text):
            return f"{key or 'a name'} is {_shown(text)}: no operator of PyTorch's, and no plain name"
    return None


def wrong_in_script(names: Iterable[str], read: Callable[[str], bytes]) -> Iterator[str]:
    """All that is wrong in a file of TorchScript, with these records: in its code, and the pickles beside it."""
    for name in sorted(names):
        is_code = name.endswith(".py")
        if (is_code or name.endswith(".pkl")) and (wrong := _wrong_script(read(name), is_code=is_code)):
            yield wrong


def _wrong_script(data: bytes, *, is_code: bool) -> str | None:
    """The language of TorchScript cannot reach Python; but it can call operators."""
    if foreign := set(_CLASS.findall(data)) - {b"quantized"}:
        return f"it makes objects of {_shown(min(foreign).decode())}"
    if not is_code:
        return None
    words = _IDENTIFIER.findall(data)
    if touching := _TOUCHES_FILES.intersection(words):
        return f"its code names '{min(touching).decode()}', which reads or writes files"
    for before, word in pairwise(words):
        if before == b"ops" and word not in _SCRIPT_SPACES:
            return f"its code calls operators of {_shown(word.decode())}"
    return None


def _is_tame(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if key in ("expr_str", "guards_code", "range_constraints"):
        return is_harmless(text)
    if key in ("in_spec", "out_spec"):
        return _is_tame_structure(text)
    return _WORD.fullmatch(text) is not None


def _is_tame_structure(text: str) -> bool:
    """A tree of containers, as JSON in a text; the keys of dicts are JSON in a text once more."""
    if not text:
        return True
    try:
        for key, value in _texts(json.loads(text)):
            if key == "type" and value not in _CONTAINERS:
                return False
            inner = json.loads(value) if key == "context" else value
            if not all(_WORD.fullmatch(each) for _, each in _texts(inner)):
                return False
    except (ValueError, RecursionError):
        return False
    return True


def _texts(document: Any) -> Iterator[tuple[str, str]]:
    """Every text, with the key that it belongs to; a key of its own has the key of the object that it is in."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, list):
            waiting.extend((key, each) for each in value)
        elif isinstance(value, dict):
            yield from ((key, each) for each in value)
            waiting.extend((each, inner) for each, inner in value.items() if not _is_free(each, inner))


def _is_free(key: str, value: Any) -> bool:
    """A text that stays one. A tensor may be called `metadata`, too: then there is more in it than texts."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return key in _FREE and all(isinstance(each, str) for each in inner)


def _shown(text: str) -> str:
    return repr(text[:80])
