"""Is this inference request one that we have read before, but for its tensors and its id?

A client that asks the same model again sends the same bytes again around what changes. A form remembers those bytes,
where the tensors lie between them, and what the parser made of them.

Rules:
- A form fits a message of the same length that has the same bytes everywhere but in the contents of `id` and of
  `raw_input_contents`. The tags and lengths of these are compared, so the parser would find the same fields.
- The values within are checked as in any request: the id's bytes are text, and a number is a view of its bytes.
- It holds no tensor and no id, and nothing of a message whose tensors have no fixed size or whose bytes are unusual:
  fields of other kinds, two ids.
- Few forms are kept, one for each length. Where no message looks like another, few are made.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from paceline.core.tensors import DataType, Signature, TensorSpec
from paceline.server.protocols.oip_binary import view
from paceline.server.protocols.oip_grpc_infer import Asked, Codec, id_field

_MOST_FORMS: Final = 64
_MOST_REMEMBERED_BYTES: Final = 4096
# Making a form costs as much as reading a message.
_PATIENCE: Final = 32
_ID: Final = 3
_RAW: Final = 7
_LENGTH_DELIMITED: Final = 2


class _Tensor(NamedTuple):
    """Where an input lies, and what it is."""

    spec: TensorSpec
    size: int
    shape: tuple[int, ...]
    at: int


class Form:
    """What requests of one kind have in common.

    Attributes:
        model_name, model_version: as in the request.
        codec: whose model it was read for; a model that is loaded anew has another.
    """

    __slots__ = ("_asked", "_id", "_pieces", "_tensors", "codec", "model_name", "model_version")

    def __init__(self, request: Any, asked: Asked, codec: Codec, holes: _Holes, data: bytes) -> None:
        self.model_name = request.model_name
        self.model_version = request.model_version
        self.codec = codec
        self._id = holes.id
        own = id_field(request.id.encode()) if request.id else b""
        self._asked = asked._replace(inputs=(), echo=asked.echo.removeprefix(own))
        order = [tensor.name for tensor in request.inputs]
        self._tensors = tuple(
            _Tensor(spec, array.size, array.shape, holes.raw[order.index(spec.name)][0])
            for spec, array in zip(codec.signature.inputs, asked.inputs, strict=True)
        )
        edges = [0, *[edge for hole in holes.sorted() for edge in hole], len(data)]
        self._pieces = tuple((start, data[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True))

    def fits(self, data: bytes) -> bool:
        """True when a message of the same length differs in its tensors and its id only."""
        for at, piece in self._pieces:
            if not data.startswith(piece, at):
                return False
        return self._id is None or data[self._id[0] : self._id[1]].isascii()

    def read(self, data: bytes) -> Asked:
        """What a message that fits asks for.

        Raises:
            SignatureMismatch: a tensor holds what is no value of its datatype.
        """
        inputs = tuple([view(data, spec, size, at).reshape(shape) for spec, size, shape, at in self._tensors])
        _, wanted, echo, timeout_s = self._asked
        if self._id is not None:
            echo = id_field(data[self._id[0] : self._id[1]]) + echo
        return Asked(inputs, wanted, echo, timeout_s)


class Forms:
    """The forms of a service, by the length of their messages."""

    def __init__(self) -> None:
        self._by_length: dict[int, Form] = {}
        self._in_vain = 0  # forms learned since one fitted

    def find(self, data: bytes) -> Form | None:
        """The form that the message fits."""
        form = self._by_length.get(len(data))
        if form is None or not form.fits(data):
            return None
        self._in_vain = 0
        return form

    def learn(self, data: bytes, request: Any, asked: Asked, codec: Codec) -> None:
        """Remember the form of a message that was read, if others may look like it."""
        if not _has_fixed_size(codec.signature) or len(request.raw_input_contents) != len(request.inputs):
            return
        self._in_vain += 1
        if self._in_vain > _PATIENCE and self._in_vain % _PATIENCE:
            return
        holes = _holes(data)
        if holes is None or len(data) - holes.size > _MOST_REMEMBERED_BYTES:
            return
        forms = self._by_length
        if len(forms) >= _MOST_FORMS:
            del forms[next(iter(forms))]
        forms[len(data)] = Form(request, asked, codec, holes, data)


class _Holes(NamedTuple):
    """Where the contents of the id and of the raw tensors lie: first byte, and the one behind the last."""

    id: tuple[int, int] | None
    raw: list[tuple[int, int]]

    @property
    def size(self) -> int:
        return sum(end - start for start, end in self.sorted())

    def sorted(self) -> list[tuple[int, int]]:
        """All of them in their order in the message."""
        return sorted(self.raw if self.id is None else [self.id, *self.raw])


def _has_fixed_size(signature: Signature) -> bool:
    return all(spec.datatype is not DataType.BYTES for spec in signature.inputs)


def _holes(data: bytes) -> _Holes | None:
    """The holes of a message; None for one that is not simply fields of known length."""
    ids: list[tuple[int, int]] = []
    raw: list[tuple[int, int]] = []
    at, end = 0, len(data)
    while at < end:
        number, kind = data[at] >> 3, data[at] & 7
        if kind != _LENGTH_DELIMITED or number > _RAW:
            return None
        size, start = _varint_at(data, at + 1)
        at = start + size
        if number == _ID:
            ids.append((start, at))
        elif number == _RAW:
            raw.append((start, at))
    return None if len(ids) > 1 else _Holes(ids[0] if ids else None, raw)


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    """A number of a message that the parser has accepted, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
