"""Plain JSON: the shortest way to a prediction.

POST /predict          one item -> its prediction
POST /batch-predict    a list of items -> a list of predictions, in order; a bad item gets its own error
GET  /example          an item that /predict accepts; ?for=batch-predict, v1, v2: a body for those routes

Rules:
- An item is the bare value when the model has one input, else an object by input name. So is a prediction.
  An object is understood for one input too.
- An output with labelled columns (class scores) is an object by label.
- Where user code declares no tensors, an item is any JSON: `item_codec`, `item_batch`.
- `/models/NAME/predict` names the model where several are served.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
import numpy as np

from paceline.core.errors import InvalidRequest, PacelineError, PreconditionFailed, SignatureMismatch
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, bf16_to_float32
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import Encoded, Inference, PerModel
from paceline.server.content import require_json
from paceline.server.example_bodies import NO_EXAMPLE, ExampleBodies
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.json_tensors import decode, dumps, element_type, elements, nested, object_type, to_array, to_json
from paceline.server.protocols import item_codec
from paceline.server.protocols.item_batch import ItemBatch
from paceline.server.protocols.plain_items import Items
from paceline.server.protocols.streams import EventStream, streams, wants_stream
from paceline.server.routes import Route

_OBJECT: Final = re.compile(rb"[ \t\r\n]*\{")
_RAW_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MODEL: Final = r"(?:/models/(?P<model>[^/]+))?"
_EXAMPLES: Final[dict[str, Callable[[ExampleBodies], bytes | None]]] = {
    "predict": ExampleBodies.predict,
    "batch-predict": ExampleBodies.batch_predict,
    "v1": ExampleBodies.tensorflow,
    "v2": ExampleBodies.open_inference,
}


def routes(app: App) -> list[Route]:
    """The routes of this protocol."""
    plain = _Plain(app)
    return [
        Route("POST", re.compile(_MODEL + "/predict"), plain.predict),
        Route("POST", re.compile(_MODEL + "/batch-predict"), plain.batch_predict),
        Route("GET", re.compile(_MODEL + "/example"), plain.example),
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
        self._object = object_type("Item", fields, forbid_unknown_fields=True)
        item: Any = types[0] if self._single else self._object
        item_or_object: Any = item | self._object
        self._named: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._object)
        self._item: msgspec.json.Decoder[Any] = msgspec.json.Decoder(item)
        self._items: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[item])
        self._items_or_objects: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[item_or_object])
        (only,) = signature.outputs if len(signature.outputs) == 1 else (None,)
        self._one_bare = only is not None and not only.labels and only.datatype is not DataType.BF16

    def one(self, body: Any) -> Tensors:
        """Arrays of shape [1, ...] (or unbatched) of one item."""
        signature = self.signature
        try:
            value = decode(body, self._item)
        except SignatureMismatch:
            if not self._single or _OBJECT.match(body) is None:
                raise
            value = decode(body, self._named).field_0
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
        items = self._decode_many(body)
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

    def items(self, body: Any) -> list[msgspec.Raw]:
        """The items of a list, not decoded."""
        raws: list[msgspec.Raw] = decode(body, _RAW_ITEMS)
        return raws

    def are_items(self, body: Any) -> bool:
        """True when the body is a list of items."""
        try:
            self.many(body)
        except PacelineError:
            return False
        return True

    def single(self, request: InferRequest) -> Encoded:
        """The response for one item."""
        return dumps(self._prediction(request.outputs or (), 0 if self.signature.batched else None)), JSON, b""

    def predictions(self, request: InferRequest) -> Encoded:
        """The response for a batch in which every item was good."""
        return self.rows(request.outputs or (), slice(0, request.rows)), JSON, b""

    def rows(self, outputs: Tensors, rows: slice) -> bytes:
        """JSON of a list of the predictions of some rows; of an unbatched model, of the only one there is."""
        if not self.signature.batched:
            return dumps([self._prediction(outputs, None)])
        if self._one_bare:
            return dumps(to_json(outputs[0][rows], self._nonfinite))
        return dumps([self._prediction(outputs, row) for row in range(rows.start, rows.stop)])

    def _prediction(self, outputs: Tensors, row: int | None) -> Any:
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

    def _decode_many(self, body: Any) -> list[Any]:
        items: list[Any]
        try:
            items = decode(body, self._items)
        except SignatureMismatch:
            if not self._single:
                raise
            try:
                found = self._items_or_objects.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                found = None
            if found is None:
                raise
            items = [item.field_0 if type(item) is self._object else item for item in found]
        return items


class _Plain:
    def __init__(self, app: App) -> None:
        self._app = app
        self._codecs = PerModel(_codec)

    def predict(self, http: HttpRequest, model: str | None = None) -> None:
        """POST /predict."""
        require_json(http)
        served = self._app.engine.model(model)
        if streams(served) and wants_stream(http):
            EventStream(self._app, http, served, "plain").begin(item_codec.one(http.body))
            return
        call = Inference(self._app, http, served, "plain")
        if call.model.signature.items:
            call.start(item_codec.one(http.body), item_codec.single)
            return
        codec = self._codecs[call.model]
        try:
            inputs = codec.one(http.body)
        except SignatureMismatch as error:
            if codec.are_items(http.body):
                text = f"{error.message} (this is a list of items: POST it to /batch-predict)"
                raise SignatureMismatch(text, details=error.details) from error
            raise
        call.start(inputs, codec.single)

    def batch_predict(self, http: HttpRequest, model: str | None = None) -> None:
        """POST /batch-predict."""
        require_json(http)
        call = Inference(self._app, http, self._app.engine.model(model), "plain")
        if call.model.signature.items:
            call.answer_with(ItemBatch(self._app, http, call).answer)
            return
        codec = self._codecs[call.model]
        if codec.signature.batched:
            try:
                inputs = codec.many(http.body)
            except SignatureMismatch:
                pass  # some item is wrong: find out which
            else:
                call.start(inputs, codec.predictions, rescue=partial(self._rescue, http))
                return
        raws = codec.items(http.body)
        items = Items(self._app, http, call, codec, len(raws))
        call.answer_with(partial(items.read_and_run, raws))

    def _rescue(self, http: HttpRequest, call: Inference, failed: InferRequest) -> None:
        items = Items(self._app, http, call, self._codecs[call.model], failed.rows)
        call.answer_with(partial(items.run_apart, failed))

    def example(self, http: HttpRequest, model: str | None = None) -> None:
        """GET /example."""
        served = self._app.engine.model(model)
        wanted = parse_qs(http.query.decode("latin-1")).get("for", ["predict"])[-1]
        if wanted not in _EXAMPLES:
            raise InvalidRequest(f"for: expected one of {', '.join(_EXAMPLES)}, got {wanted[:40]!r}")
        body = _EXAMPLES[wanted](ExampleBodies(served.signature, served.prepared.example))
        if body is None and served.signature.items:
            raise PreconditionFailed(f"service '{served.name}': {NO_EXAMPLE}")
        if body is None:
            raise InvalidRequest(f"JSON cannot carry the inputs of model '{served.name}' there")
        self._app.reply(http, 200, body)


def _codec(model: ServedModel) -> Codec:
    return Codec(model.signature, model.nonfinite, model.name)


def _shown(value: Array, spec: TensorSpec, nonfinite: str) -> Any:
    if spec.datatype is DataType.BF16:
        value = bf16_to_float32(value)
    if spec.labels and value.ndim == 1:
        return dict(zip(spec.labels, elements(value, nonfinite), strict=True))
    return to_json(value, nonfinite)
