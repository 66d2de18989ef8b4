"""Items of JSON in TensorFlow Serving's REST API.

    {"instances": [ITEM, ...]} -> {"predictions": [PREDICTION, ...]}
    {"inputs": [ITEM, ...]}    -> {"outputs": [PREDICTION, ...]}

Rules:
- An instance is the item itself, whatever JSON it is: an object is no set of named tensors, and `{"b64": ...}` is no
  string.
- The first item that fails, fails the request: there is no place for an error in the answer.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from paceline.core.errors import InvalidRequest
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.server.calls import Encode, Encoded
from paceline.server.http1 import JSON
from paceline.server.json_tensors import Bytes, decode
from paceline.server.protocols import item_codec
from paceline.server.protocols.tfs_models import SIGNATURE


class _Body(msgspec.Struct):
    instances: msgspec.Raw | UnsetType = UNSET
    inputs: msgspec.Raw | UnsetType = UNSET
    signature_name: str = ""


_BODY: Final = msgspec.json.Decoder(_Body)


def read(body: Bytes) -> tuple[Tensors, Encode]:
    """The items of a request, and what writes its answer.

    Raises:
        InvalidRequest: it has none.
    """
    asked: _Body = decode(body, _BODY)
    if asked.signature_name not in ("", SIGNATURE):
        raise InvalidRequest(f'Serving signature name: "{asked.signature_name[:256]}" not found in signature def')
    if (asked.instances is UNSET) is (asked.inputs is UNSET):
        raise InvalidRequest("expected one of the keys 'instances' and 'inputs', a list of items")
    if asked.instances is not UNSET:
        return item_codec.many(asked.instances, "instances"), partial(_written, b'{"predictions":[')
    assert asked.inputs is not UNSET
    return item_codec.many(asked.inputs, "inputs"), partial(_written, b'{"outputs":[')


def _written(opening: bytes, request: InferRequest) -> Encoded:
    assert request.outputs is not None
    return opening + b",".join(request.outputs[0].tolist()) + b"]}", JSON, b""
