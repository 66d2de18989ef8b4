"""Which requests does a file hold: rows of data, or whole bodies?

    rows.jsonl, rows.json, rows.csv    items, as a plain route takes them; CSV with names in its first line
    rows.npz, rows.npy                 arrays of shape [rows, ...], named like the inputs; of the one input

Rules:
- Every body has the same number of rows: at the end of the file the last one is filled up from its beginning.
- A row that cannot be sent is an error before the first request. Rows that a plain route takes are sent as they are
  written; for other protocols they become tensors.
- A long file is not read to its end: a note says how much of it is sent.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from paceline.core.errors import ConfigError, InvalidRequest, PacelineError
from paceline.core.tensors import Array, Signature, Tensors, column
from paceline.engine import examples
from paceline.loadtest.requests.servers import ITEMS
from paceline.offline.rows import Row, Rows, format_of

MOST_BODIES: Final = 10_000
MOST_BYTES: Final = 256 << 20
_ARRAYS: Final = (".npz", ".npy")


class Inputs(NamedTuple):
    """What a file says is to be sent.

    Attributes:
        signature: of these tensors: the model's, or that of items that are sent as they are.
        requests: the inputs of each.
        note: on what of the file is left out; "" if nothing is.
    """

    signature: Signature
    requests: list[Tensors]
    note: str = ""


def inputs(path: Path, signature: Signature | None, rows: int, *, as_items: bool) -> Inputs:
    """The rows of a file as inputs for requests of so many rows.

    Args:
        signature: of the model; None: unknown.
        as_items: the protocol is plain JSON.

    Raises:
        ConfigError: the file cannot be read, or a row does not fit.
    """
    if path.suffix.lower() in _ARRAYS:
        if signature is None or signature.items:
            raise ConfigError(f"{path}: arrays are for a model whose inputs are tensors", hint="--data rows.jsonl")
        return _of_arrays(path, signature, rows)
    kept = list(islice(_items(path, signature), rows * MOST_BODIES + 1))
    note = f"of {path} the first {rows * MOST_BODIES} rows are sent" if len(kept) > rows * MOST_BODIES else ""
    texts = kept[: rows * MOST_BODIES]
    if not texts:
        raise ConfigError(f"{path}: expected rows, got none")
    parts = [[texts[place % len(texts)] for place in part] for part in _parts(len(texts), rows)]
    if as_items or signature is None or signature.items:
        sent_as = signature if signature is not None and signature.items else ITEMS
        return Inputs(sent_as, [(column(part),) for part in parts], note)
    return Inputs(signature, [_tensors(path, part, signature) for part in parts], note)


def bodies(paths: Sequence[Path], content_type: str | None) -> tuple[tuple[bytes, ...], str]:
    """Whole bodies, and their content type, guessed by the first name where it is not given.

    Raises:
        ConfigError: a file cannot be read, or they are too large together.
    """
    found, size = [], 0
    for path in paths:
        try:
            found.append(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        size += len(found[-1])
        if size > MOST_BYTES:
            raise ConfigError(f"{path}: the bodies are larger than {MOST_BYTES >> 20} MiB together")
    return tuple(found), content_type or _guessed(paths[0])


def _guessed(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


# -- rows of JSON and CSV -------------------------------------------------------------------------------------


def _items(path: Path, signature: Signature | None) -> Iterator[bytes]:
    for row in _rows(path, signature):
        if row.problem:
            raise ConfigError(f"{path}: row {row.number}: {row.problem}")
        try:
            msgspec.json.decode(row.text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: row {row.number}: expected JSON: {error}") from error
        yield row.text.strip()


def _rows(path: Path, signature: Signature | None) -> Iterator[Row]:
    def wants_lists(columns: list[str]) -> bool:
        known = signature is not None and not signature.items and len(signature.inputs) == 1
        return known and signature is not None and signature.inputs[0].name not in columns

    try:
        source = Rows(str(path), format_of(path.name), wants_lists)
        try:
            for block in source.blocks():
                yield from block
        finally:
            source.close()
    except InvalidRequest as error:
        hint = "one item a line is .jsonl" if path.suffix == ".json" else error.hint
        raise ConfigError(error.message, hint=hint) from error


def _parts(count: int, rows: int) -> list[range]:
    """Which rows belong together; numbers from `count` on begin anew."""
    return [range(start, start + rows) for start in range(0, count, rows)]


def _tensors(path: Path, texts: Sequence[bytes], signature: Signature) -> Tensors:
    try:
        return examples.from_items(texts, signature)
    except PacelineError as error:
        shown = texts[0][:80].decode(errors="replace")
        text = f"{path}: {error.message.removeprefix('example: ')} (in what begins with {shown})"
        raise ConfigError(text, hint="rows are items as a plain route takes them") from error


# -- arrays ---------------------------------------------------------------------------------------------------


def _of_arrays(path: Path, signature: Signature, rows: int) -> Inputs:
    try:
        named = _loaded(path, signature)
        known = {spec.name: spec for spec in signature.inputs}
        arrays = signature.bind(
            {
                name: examples.typed(array, known[name], signature) if name in known else array
                for name, array in named.items()
            },
            path.name,
        )
    except (OSError, ValueError, PacelineError) as error:
        hint = f"arrays of shape [rows, ...], named {', '.join(spec.name for spec in signature.inputs)}"
        raise ConfigError(f"{path}: {error}", hint=hint) from error
    if not signature.batched:
        return Inputs(signature, [arrays])
    count = min(len(arrays[0]), rows * MOST_BODIES)
    if not count:
        raise ConfigError(f"{path}: expected rows, got none")
    note = f"of {path} the first {count} rows are sent" if count < len(arrays[0]) else ""
    parts = [np.arange(part.start, part.stop) % count for part in _parts(count, rows)]
    return Inputs(signature, [tuple(array[part] for array in arrays) for part in parts], note)


def _loaded(path: Path, signature: Signature) -> dict[str, Array]:
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return {signature.inputs[0].name: found}
    with found:
        return {name: found[name] for name in found.files}
