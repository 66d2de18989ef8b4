"""Plain JSON: the shortest way to a prediction.

POST /predict          one item -> its prediction
POST /batch-predict    a list of items -> a list of predictions, in order; a bad item gets its own error
GET  /example          an item that /predict accepts; ?for=batch-predict, v1, v2: a body for those routes

Rules:
- An item is the bare value when the model has one input, else an object by input name. So is a prediction.
  An object is understood for one input too.
- An output with labelled columns (class scores) is an object by label.
- `/models/NAME/predict` names the model where several are served.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
import numpy as np
import orjson

from paceline.core.errors import InvalidRequest, PacelineError, SignatureMismatch
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, Signature, Tensors, TensorSpec
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import JSON, Encoded, Inference, Outcome
from paceline.server.content import require_json
from paceline.server.example_bodies import ExampleBodies
from paceline.server.http1 import HttpRequest
from paceline.server.json_tensors import decode, dumps, element_type, nested, to_array, to_json
from paceline.server.routes import Route
from paceline.server.status import describe

_RAW_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MODEL: Final = r"(?:/models/(?P<model>[^/]+))?"
_EXAMPLES: Final[dict[str, Callable[[ExampleBodies], bytes | None]]] = {
    "predict": ExampleBodies.predict,
    "batch-predict": ExampleBodies.batch_predict,
    "v1": ExampleBodies.tensorflow,
    "v2": ExampleBodies.open_inference,
}


def routes(app: App, nonfinite: str = "error") -> list[Route]:
    """The routes of this protocol."""
    plain = _Plain(app, nonfinite)
    return [
        Route("POST", re.compile(_MODEL + "/predict"), plain.predict, "plain"),
        Route("POST", re.compile(_MODEL + "/batch-predict"), plain.batch_predict, "plain"),
        Route("GET", re.compile(_MODEL + "/example"), plain.example, "plain"),
    ]


class Codec:
    """Reads items and writes predictions of one signature."""

    def __init__(self, signature: Signature, nonfinite: str = "error", model: str = "") -> None:
        self.signature = signature
        self._model = model
        self._nonfinite = nonfinite
        self._ranks = [len(spec.shape) - signature.batched for spec in signature.inputs]
        types = [
            nested(element_type(spec.datatype), rank) for spec, rank in zip(signature.inputs, self._ranks, strict=True)
        ]
        self._single = len(types) == 1
        # The shape of an item that needs no further check.
        self._item_shape = signature.inputs[0].shape[1:] if signature.batched else None
        fields = [(spec.name, kind) for spec, kind in zip(signature.inputs, types, strict=True)]
        named = _object_type(fields)
        item: Any = types[0] if self._single else named
        self._named: msgspec.json.Decoder[Any] = msgspec.json.Decoder(named)
        self._item: msgspec.json.Decoder[Any] = msgspec.json.Decoder(item)
        self._items: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[item])
        self._one_bare = len(signature.outputs) == 1 and not signature.outputs[0].labels

    def one(self, body: Any) -> Tensors:
        """Arrays of shape [1, ...] (or unbatched) of one item."""
        signature = self.signature
        try:
            value = decode(body, self._item)
        except SignatureMismatch as error:
            value = self._from_object(body, error)
        arrays: Tensors
        if self._single:
            array = to_array(value, signature.inputs[0], self._ranks[0], "")
            arrays = (array,)
            if array.shape == self._item_shape:
                return (array[None],)
        else:
            values = msgspec.structs.astuple(value)
            arrays = tuple(
                to_array(value, spec, rank, spec.name)
                for value, spec, rank in zip(values, signature.inputs, self._ranks, strict=True)
            )
        if signature.batched:
            arrays = tuple([array[None] for array in arrays])
        signature.check(arrays, self._model)
        return arrays

    def many(self, body: Any) -> Tensors:
        """Arrays of shape [rows, ...] of a list of items."""
        items = decode(body, self._items)
        columns = (
            [items]
            if self._single
            else list(zip(*map(msgspec.structs.astuple, items), strict=True)) or [()] * len(self.signature.inputs)
        )
        arrays = tuple(
            to_array(list(column), spec, rank + 1, "")
            if items
            else np.zeros((0, *[max(size, 0) for size in spec.shape[1:]]), spec.datatype.dtype)
            for column, spec, rank in zip(columns, self.signature.inputs, self._ranks, strict=True)
        )
        self.signature.check(arrays, self._model)
        return arrays

    def one_or_error(self, body: Any) -> Tensors | PacelineError:
        """`one`, with the error as a value."""
        try:
            return self.one(body)
        except PacelineError as error:
            return error

    def single(self, request: InferRequest) -> Encoded:
        """The response for one item."""
        return dumps(self.prediction(request.outputs or (), 0 if self.signature.batched else None)), JSON, b""

    def predictions(self, request: InferRequest) -> Encoded:
        """The response for a batch in which every item was good."""
        outputs = request.outputs or ()
        if self._one_bare:
            return dumps(to_json(outputs[0], self._nonfinite)), JSON, b""
        return dumps([self.prediction(outputs, row) for row in range(request.rows)]), JSON, b""

    def outcomes(self, outcomes: list[Outcome], http: HttpRequest, debug: bool) -> Encoded:
        """The response for items that ran apart."""
        row = 0 if self.signature.batched else None
        shown = [
            orjson.Fragment(describe(outcome, http.id, debug)[1])
            if isinstance(outcome, PacelineError)
            else self.prediction((outcome and outcome.outputs) or (), row)
            for outcome in outcomes
        ]
        return dumps(shown), JSON, b""

    def prediction(self, outputs: Tensors, row: int | None) -> Any:
        """What a client gets for one row; `row` is None for an unbatched model."""
        if self._one_bare:
            output = outputs[0]
            return to_json(output if row is None else output[row, ...], self._nonfinite)
        # The ellipsis keeps a row without axes an array.
        values = [
            _shown(output if row is None else output[row, ...], spec, self._nonfinite)
            for spec, output in zip(self.signature.outputs, outputs, strict=True)
        ]
        if len(values) == 1:
            return values[0]
        return {spec.name: value for spec, value in zip(self.signature.outputs, values, strict=True)}

    def _from_object(self, body: Any, error: SignatureMismatch) -> Any:
        """The value in `{"NAME": value}`, which the item of a single input may be too."""
        if not self._single or bytes(memoryview(body)[:1]) != b"{":
            raise self._with_hint(error, body) from error
        return decode(body, self._named).field_0

    def _with_hint(self, error: SignatureMismatch, body: Any) -> SignatureMismatch:
        try:
            self.many(body)
        except PacelineError:
            return error
        return SignatureMismatch(
            f"{error.message} (this is a list of items: POST it to /batch-predict)", details=error.details
        )


class _Plain:
    def __init__(self, app: App, nonfinite: str) -> None:
        self._app = app
        self._nonfinite = nonfinite
        self._codecs: dict[ServedModel, Codec] = {}

    def predict(self, http: HttpRequest, model: str | None = None) -> None:
        """POST /predict."""
        require_json(http)
        call = Inference(self._app, http, self._app.engine.model(model), "plain")
        codec = self._codec(call.model)
        call.start(codec.one(http.body), codec.single)

    def batch_predict(self, http: HttpRequest, model: str | None = None) -> None:
        """POST /batch-predict."""
        require_json(http)
        call = Inference(self._app, http, self._app.engine.model(model), "plain")
        codec = self._codec(call.model)
        if codec.signature.batched:
            try:
                inputs = codec.many(http.body)
            except SignatureMismatch:
                pass  # some item is wrong: find out which
            else:
                call.start(inputs, codec.predictions, rescue=lambda: self._each(call, codec, http))
                return
        self._each(call, codec, http)

    def example(self, http: HttpRequest, model: str | None = None) -> None:
        """GET /example."""
        served = self._app.engine.model(model)
        wanted = parse_qs(http.query.decode("latin-1")).get("for", ["predict"])[-1]
        if wanted not in _EXAMPLES:
            raise InvalidRequest(f"for: expected one of {', '.join(_EXAMPLES)}, got {wanted[:40]!r}")
        body = _EXAMPLES[wanted](ExampleBodies(served.signature, served.prepared.example))
        if body is None:
            raise InvalidRequest(f"JSON cannot carry the inputs of model '{served.name}' there")
        self._app.reply(http, 200, body)

    def _each(self, call: Inference, codec: Codec, http: HttpRequest) -> None:
        """Every item on its own, so that a bad one gets an error and the rest their predictions."""
        items = [codec.one_or_error(raw) for raw in decode(http.body, _RAW_ITEMS)]
        call.start_each(items, lambda outcomes: codec.outcomes(outcomes, http, self._app.debug))

    def _codec(self, model: ServedModel) -> Codec:
        codec = self._codecs.get(model)
        if codec is None:
            codec = self._codecs[model] = Codec(model.signature, self._nonfinite, model.name)
        return codec


def _object_type(fields: list[tuple[str, Any]]) -> Any:
    """A type for objects with exactly these keys, decoded to their values in this order."""
    names = [f"field_{index}" for index in range(len(fields))]
    return msgspec.defstruct(
        "Item",
        [(name, kind) for name, (_, kind) in zip(names, fields, strict=True)],
        rename=dict(zip(names, (key for key, _ in fields), strict=True)),
        forbid_unknown_fields=True,
    )


def _shown(value: Array, spec: TensorSpec, nonfinite: str) -> Any:
    if spec.labels and value.ndim == 1:
        return {label: to_json(value[index : index + 1], nonfinite)[0] for index, label in enumerate(spec.labels)}
    return to_json(value, nonfinite)
