"""Which inputs are sent, when nobody has given any? Valid ones, and no two alike.

Requests that are all the same flatter a server: equal items of code that are under way at once run once, and whatever
keeps answers has them all after the first.

Rules:
- An example of the model's is the best start: it has the sizes and the range of what the model takes. Tensors are made
  of it by moving every float by up to a tenth; integers, strings and what is zero stay. Only where all strings are
  empty are there words in their place, if the model takes them.
- An item of JSON keeps its values, for nobody knows which others are valid: it is written in other ways, with spaces
  between its parts. A server tells such items apart; code that keeps answers by value does not.
- Without an example there are normal floats, small integers, words; ones for masks. What an open dimension should be
  is not known, nor whether indices may reach 9: there are several guesses, and the server has the word.
- The same seed gives the same inputs.
"""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

import numpy as np

from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, column

_DECIMALS: Final = 4
_LEAST_ROUNDED: Final = 0.01
_LARGEST_ROUNDED: Final = 1e11
_SHARE: Final = 0.1
_MASK: Final = re.compile(r"mask", re.IGNORECASE)
_KIND: Final = re.compile(r"token_type|segment", re.IGNORECASE)  # language models know two of them
_WORDS: Final = ["the", "a", "model", "server", "answers", "every", "request", "in", "time", "and", "tells", "why"]
_WORDS_PER_TEXT: Final = 8
# The same sizes, in the same order, as a warm-up tries them.
_OPEN_SIZES: Final = (8, 1, 32, 224, 3, 128, 2)
_LARGEST: Final = (9, 1)
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')
_LETTER: Final = re.compile(rb"\\u[0-9a-fA-F]{4}|\\.|[A-Za-z]", re.DOTALL)


class Guess(NamedTuple):
    """What metadata does not say.

    Attributes:
        open_size: of dimensions that are open, behind the rows.
        largest: integer.
    """

    open_size: int
    largest: int


def guesses(signature: Signature) -> list[Guess]:
    """The likeliest first; no two that would give the same inputs."""
    behind = [spec.shape[1:] if signature.batched else spec.shape for spec in signature.inputs]
    sizes = _OPEN_SIZES if any(-1 in shape for shape in behind) else _OPEN_SIZES[:1]
    integers = _LARGEST if any(spec.datatype.is_integer for spec in signature.inputs) else _LARGEST[:1]
    return [Guess(size, largest) for size in sizes for largest in integers]


def generated(signature: Signature, rows: int, guess: Guess, count: int, *, seed: int) -> list[Tensors]:
    """Inputs by metadata alone, for `count` requests."""
    random = np.random.default_rng(seed)
    return [
        tuple(_values(spec, _shape(spec, signature, rows, guess), guess, random) for spec in signature.inputs)
        for _ in range(count)
    ]


def varied(
    example: Tensors, signature: Signature, rows: int, count: int, *, seed: int, words: bool = False
) -> list[Tensors]:
    """Inputs like an example of one row, for `count` requests.

    Args:
        words: put some in the place of empty strings.
    """
    random = np.random.default_rng(seed)
    start = [np.repeat(array[:1], rows, axis=0) if signature.batched else array for array in example]
    pairs = list(zip(start, signature.inputs, strict=True))
    return [tuple(_moved(array, spec, random, words) for array, spec in pairs) for _ in range(count)]


def varies(example: Tensors, signature: Signature) -> bool:
    """True when floats of `varied` inputs differ."""
    pairs = zip(example, signature.inputs, strict=True)
    return any(_has_bits_to_move(spec) and bool(np.any(array)) for array, spec in pairs)


def lacks_words(example: Tensors) -> bool:
    """True when there are strings, and all are empty: nobody has given this example."""
    strings = [array for array in example if array.dtype == object]
    return bool(strings) and not any(array.any() for array in strings)


def rewritten(item: bytes, rows: int, count: int) -> list[Tensors]:
    """One item of JSON, each time written in another way if there is one, for `count` requests."""
    texts = variants(item, rows * count)
    filled = [texts[place % len(texts)] for place in range(rows * count)]
    return [(column(filled[start : start + rows]),) for start in range(0, rows * count, rows)]


def variants(item: bytes, count: int) -> list[bytes]:
    """JSON of the same value, up to `count` times, no two of the same bytes; one, if there is no other way."""
    item = item.strip()
    if item[:1] in (b"{", b"["):
        marks = [match.end() for match in _STRUCTURE.finditer(item) if match[0] in b"{[:,"]
        return [_spread(item, marks, number, count) for number in range(count)]
    letters = [match.start() for match in _LETTER.finditer(item) if len(match[0]) == 1] if item[:1] == b'"' else []
    letters = letters[: count.bit_length()]
    return [_escaped(item, letters, number) for number in range(min(count, 1 << len(letters)))]


# -- values of tensors ----------------------------------------------------------------------------------------


def _shape(spec: TensorSpec, signature: Signature, rows: int, guess: Guess) -> tuple[int, ...]:
    sizes = [guess.open_size if size == -1 else size for size in spec.shape]
    if signature.batched:
        sizes[0] = rows
    return tuple(sizes)


def _values(spec: TensorSpec, shape: tuple[int, ...], guess: Guess, random: np.random.Generator) -> Array:
    datatype = spec.datatype
    if datatype is DataType.BYTES:
        return column([_text(random) for _ in range(math.prod(shape))]).reshape(shape)
    if datatype is DataType.BF16:
        return (random.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(datatype.dtype)
    if datatype.is_float:
        return np.round(random.standard_normal(shape), _DECIMALS).astype(datatype.dtype)
    if _MASK.search(spec.name):
        return np.ones(shape, datatype.dtype)
    if _KIND.search(spec.name):
        return np.zeros(shape, datatype.dtype)
    most = 1 if datatype is DataType.BOOL else guess.largest
    return random.integers(0, most, shape, endpoint=True).astype(datatype.dtype)


def _text(random: np.random.Generator) -> bytes:
    return " ".join(random.choice(_WORDS, _WORDS_PER_TEXT)).encode()


def _has_bits_to_move(spec: TensorSpec) -> bool:
    return spec.datatype.is_float and spec.datatype is not DataType.BF16


def _moved(array: Array, spec: TensorSpec, random: np.random.Generator, words: bool) -> Array:
    """Floats moved, zeros and signs kept; words for strings where they are wanted; anything else as it is."""
    if words and spec.datatype is DataType.BYTES:
        return column([_text(random) for _ in range(array.size)]).reshape(array.shape)
    if not _has_bits_to_move(spec):
        return array
    with np.errstate(over="ignore"):  # the largest there are stay as they are
        moved = array.astype(np.float64) * random.uniform(1.0 - _SHARE, 1.0 + _SHARE, array.shape)
    size = np.abs(moved)
    short = (size >= _LEAST_ROUNDED) & (size < _LARGEST_ROUNDED)
    rounded = np.where(short, np.round(np.where(short, moved, 0.0), _DECIMALS), moved)
    return np.where(size <= np.finfo(spec.datatype.dtype).max, rounded, array).astype(spec.datatype.dtype)


# -- ways to write JSON ---------------------------------------------------------------------------------------


def _spread(item: bytes, marks: list[int], number: int, count: int) -> bytes:
    """The item with spaces behind its marks: the digits of the number, in the least base that suffices."""
    base = 2
    while base ** len(marks) < count:
        base += 1
    pieces, last = [], 0
    for mark in marks:
        pieces += [item[last:mark], b" " * (number % base)]
        last, number = mark, number // base
        if not number:
            break
    return b"".join([*pieces, item[last:]])


def _escaped(item: bytes, letters: list[int], number: int) -> bytes:
    """The string with some of its letters as escapes: the bits of the number."""
    pieces, last = [], 0
    for place, at in enumerate(letters):
        if number >> place & 1:
            pieces += [item[last:at], b"\\u%04x" % item[at]]
            last = at + 1
    return b"".join([*pieces, item[last:]])
