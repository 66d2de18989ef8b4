"""Requests of TensorFlow Serving's REST API: JSON to the arrays of one signature.

Rules:
- A body is decoded and type-checked in one pass. Only when that fails is it read again, with care: rare forms
  (row objects for a single input, the tokens NaN and Infinity) are understood then, and everything else gets
  an error that quotes the offending piece.
- Element types are strict and the signature's: no fraction for an integer, no 0 or 1 for a boolean.
- `{"b64": "..."}` is a string in base64, never an object of named inputs.
- Row format lays the instances one behind the other along axis 0. Without a batch dimension there is none.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from paceline.core.errors import DecodeError, InvalidRequest, SignatureMismatch
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.server.json_tensors import (
    Bytes,
    element_type,
    nested,
    object_type,
    raise_decode_error,
    to_array,
)
from paceline.server.protocols.tfs_faults import Place, explain, fragment, json_type
from paceline.server.protocols.tfs_models import SIGNATURE

_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
# A string, which is left alone, or a token that the standard lacks. Nothing is tried twice, and a string may lack its
# end: memory and time stay in proportion whatever comes.
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|-?\b(?:NaN|Inf(?:inity)?)\b', re.DOTALL)


class Base64(msgspec.Struct, forbid_unknown_fields=True):
    """A string element in base64."""

    b64: str


class RequestReader:
    """Reads the requests of one signature.

    Args:
        model: its name, for messages.
        tokens: read NaN and Infinity, which JSON lacks.
    """

    def __init__(self, signature: Signature, model: str, *, tokens: bool = False) -> None:
        self.signature = signature
        self._tokens = tokens
        self._model = model
        self._single = len(signature.inputs) == 1
        self._by_rows = signature.batched or all(spec.shape[:1] == (-1,) for spec in signature.inputs)
        self._taken = with_any_rows(signature)
        self._decoder = msgspec.json.Decoder(self._request_type())

    def predict(self, body: Bytes) -> tuple[Tensors, bool]:
        """The inputs, and whether they came in row format.

        Raises:
            InvalidRequest: not JSON, or not what the signature takes.
        """
        try:
            asked = self._decoder.decode(body)
            rows, columns = asked.instances, asked.inputs
            in_rows = columns is UNSET
            if asked.signature_name in ("", SIGNATURE) and in_rows != (rows is UNSET):
                return self._checked(self._typed(rows if in_rows else columns, in_rows)), in_rows
        except (*_DECODE_ERRORS, SignatureMismatch):
            pass  # said better below, where the document is at hand
        return self._carefully(body)

    def examples(self, body: Bytes) -> Tensors:
        """The inputs of a classification or regression: one row per example.

        Raises:
            InvalidRequest: not JSON, or not what the signature takes.
        """
        document = self._document(body)
        if not self._by_rows:
            raise self._no_rows("examples")
        context = _features(document.get("context", {}))
        found = _list_in(document, "examples")
        rows = [{**context, **_features(example)} for example in found]
        arrays = []
        for spec in self.signature.inputs:
            for index, row in enumerate(rows):
                if spec.name not in row:
                    raise SignatureMismatch(f"Missing feature: {spec.name} in element: {index} of 'examples' list")
            values = [_as_shaped(row[spec.name], len(spec.shape) - 1) for row in rows]
            arrays.append(self._array(values, spec, Place("examples", spec.name, in_rows=True)))
        return self._checked(tuple(arrays))

    # -- decoding: the fast way ---------------------------------------------------------------------------

    def _request_type(self) -> Any:
        specs = self.signature.inputs
        types = [nested(_element(spec), len(spec.shape)) for spec in specs]
        if self._single:
            rows = columns = types[0]
        else:
            columns = object_type("Inputs", [(s.name, kind) for s, kind in zip(specs, types, strict=True)])
            rows = nested(_row_type(specs), 1) if self._by_rows else msgspec.Raw
        optional = [("instances", rows), ("inputs", columns)]
        return msgspec.defstruct(
            "Request",
            [("signature_name", str, ""), *[(name, kind | UnsetType, UNSET) for name, kind in optional]],
        )

    def _typed(self, value: Any, in_rows: bool) -> Tensors:
        specs = self.signature.inputs
        if in_rows and not self._by_rows:
            raise self._no_rows("instances")
        if in_rows and not value:
            raise SignatureMismatch("no instances")
        columns: Any
        if self._single:
            columns = (value,)
        elif in_rows:
            columns = map(list, zip(*map(msgspec.structs.astuple, value), strict=True))
        else:
            columns = msgspec.structs.astuple(value)
        return tuple([_to_array(column, spec) for column, spec in zip(columns, specs, strict=True)])

    def _checked(self, arrays: Tensors) -> Tensors:
        self._taken.check(arrays, self._model)
        return arrays

    def _no_rows(self, key: str) -> InvalidRequest:
        return InvalidRequest(
            f"model '{self._model}' has no batch dimension, so '{key}' cannot be laid one behind the other: "
            "send its tensors under 'inputs' to :predict",
            model=self._model,
        )

    # -- decoding: with care ------------------------------------------------------------------------------

    def _carefully(self, body: Bytes) -> tuple[Tensors, bool]:
        document = self._document(body)
        in_rows = "instances" in document
        if in_rows and "inputs" in document:
            raise InvalidRequest(
                f"JSON Value: {fragment(document)} Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist"
            )
        if not in_rows and "inputs" not in document:
            raise InvalidRequest("Missing 'inputs' or 'instances' key")
        if in_rows and not self._by_rows:
            raise self._no_rows("instances")
        named = self._named_rows(document) if in_rows else self._named_columns(document["inputs"])
        arrays = tuple(
            self._array(value, spec, place) for spec, (value, place) in zip(self.signature.inputs, named, strict=True)
        )
        return self._checked(arrays), in_rows

    def _document(self, body: Bytes) -> dict[str, Any]:
        document = self._parsed(body)
        if not isinstance(document, dict):
            raise InvalidRequest(f"JSON Value: {fragment(document)} Is not object")
        name = document.get("signature_name", "")
        if not isinstance(name, str):
            raise InvalidRequest(
                f"JSON Value: {fragment(document)} not formatted correctly. "
                "'signature_name' key must be a string value."
            )
        if name not in ("", SIGNATURE):
            raise InvalidRequest(f'Serving signature name: "{name[:256]}" not found in signature def')
        return document

    def _parsed(self, body: Bytes) -> Any:
        try:
            return msgspec.json.decode(body)
        except _DECODE_ERRORS as error:
            if isinstance(error, msgspec.ValidationError):
                raise DecodeError("JSON Parse error: a number is too large") from error
            if not self._tokens or not isinstance(error, msgspec.DecodeError):
                raise_decode_error(error, body)
        return _with_tokens(bytes(body))

    def _named_rows(self, document: dict[str, Any]) -> Iterator[tuple[Any, Place]]:
        specs = self.signature.inputs
        rows = _list_in(document, "instances")
        as_objects = _is_object(rows[0])
        if not as_objects and not self._single:
            raise SignatureMismatch(
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            )
        for index, row in enumerate(rows):
            if _is_object(row) != as_objects:
                wanted = "Expecting object but got list" if as_objects else "Expecting value/list but got object"
                raise SignatureMismatch(f"{wanted} at item {index} of input list")
        if not as_objects:
            yield rows, Place("instances", "", in_rows=True)
            return
        names = {spec.name for spec in specs}
        for index, row in enumerate(rows):
            if row.keys() != names:
                raise SignatureMismatch(
                    f"Failed to process element: {index} of 'instances' list. JSON object: {fragment(row)} "
                    f"keys must be equal to: {','.join(sorted(names))}"
                )
        for spec in specs:
            yield [row[spec.name] for row in rows], Place("instances", spec.name, in_rows=True)

    def _named_columns(self, value: Any) -> Iterator[tuple[Any, Place]]:
        if not _is_object(value):
            if not self._single:
                raise SignatureMismatch(
                    "inputs is a plain value/list, but expecting an object as multiple input tensors "
                    "required as per tensorinfo_map"
                )
            yield value, Place("inputs", "", in_rows=False)
            return
        for spec in self.signature.inputs:
            if spec.name not in value:
                raise SignatureMismatch(f"Missing named input: {spec.name} in 'inputs' object.")
            yield value[spec.name], Place("inputs", spec.name, in_rows=False)

    def _array(self, value: Any, spec: TensorSpec, place: Place) -> Array:
        try:
            typed = msgspec.convert(value, nested(_element(spec), len(spec.shape)))
            return (
                _with_nonfinite(typed, spec)
                if self._tokens and spec.datatype.dtype.kind == "f"
                else _to_array(typed, spec)
            )
        except (msgspec.ValidationError, SignatureMismatch, OverflowError, ValueError) as error:
            raise explain(error, value, spec, place) from error


# -- types ------------------------------------------------------------------------------------------------


def _element(spec: TensorSpec) -> Any:
    return str | Base64 if spec.datatype is DataType.BYTES else element_type(spec.datatype)


def _row_type(specs: tuple[TensorSpec, ...]) -> Any:
    fields = [(spec.name, nested(_element(spec), len(spec.shape) - 1)) for spec in specs]
    return object_type("Instance", fields, forbid_unknown_fields=True)


def with_any_rows(signature: Signature) -> Signature:
    """The signature without a fixed number of rows: more than the model takes at once are cut apart."""
    if not signature.batched:
        return signature
    inputs = tuple(replace(spec, shape=(-1, *spec.shape[1:])) for spec in signature.inputs)
    return Signature(inputs, signature.outputs, batched=True)


# -- values -----------------------------------------------------------------------------------------------


def _to_array(value: Any, spec: TensorSpec) -> Array:
    array = to_array(value, spec, len(spec.shape), "")
    if spec.datatype is DataType.BYTES:
        flat = array.reshape(-1)
        for index, item in enumerate(flat):
            if type(item) is Base64:
                flat[index] = _unpacked(item.b64)
    return array


def _unpacked(text: str) -> bytes:
    try:
        # The padding at the end may be missing.
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"Unable to base64 decode: {fragment(text)}") from error


def _with_nonfinite(value: Any, spec: TensorSpec) -> Array:
    """An array whose elements may be NaN or infinite, where the request says so."""
    wide = np.array(value, np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(spec.datatype.dtype)
    if array.ndim != len(spec.shape) or not np.array_equal(np.isfinite(array), np.isfinite(wide)):
        raise OverflowError
    return array


def _with_tokens(body: bytes) -> Any:
    """The document of a body with the tokens NaN, Infinity and Inf."""

    def neutral(token: re.Match[bytes]) -> bytes:
        text = token[0]
        return text if text.startswith(b'"') else b"0".ljust(len(text))

    def long(token: re.Match[bytes]) -> bytes:
        return token[0] + b"inity" if token[0].endswith(b"Inf") else token[0]

    try:
        # Python's parser lets too much through: all but the tokens is checked first, at the same offsets.
        msgspec.json.decode(_TOKENS.sub(neutral, body))
    except _DECODE_ERRORS as error:
        raise_decode_error(error, body)
    return json.loads(_TOKENS.sub(long, body))


# -- documents --------------------------------------------------------------------------------------------


def _is_object(value: Any) -> bool:
    """True for an object of named values, which `{"b64": "..."}` is not."""
    if not isinstance(value, dict):
        return False
    return not (len(value) == 1 and isinstance(value.get("b64"), str))


def _list_in(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if key not in document:
        raise InvalidRequest(f"JSON Value: {fragment(document)} key '{key}' is expected and was not found")
    if not isinstance(value, list):
        raise InvalidRequest(f"JSON Value: {fragment(document)} Expecting '{key}' to be a list/array")
    if not value:
        raise InvalidRequest(f"JSON Value: {fragment(document)} No values in '{key}' array")
    return value


def _features(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"Example must be JSON object but got JSON {json_type(value)}: {fragment(value)}")
    return value


def _as_shaped(value: Any, rank: int) -> Any:
    """A feature is a value or a list of them, as the client likes; the input has one of the two shapes."""
    if rank == 1 and not isinstance(value, list):
        return [value]
    if rank == 0 and isinstance(value, list) and len(value) == 1:
        return value[0]
    return value
