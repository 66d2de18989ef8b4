"""Items of JSON: what user code takes and gives passes through the server as text.

Rules:
- An item is checked to be JSON, and never decoded here: the worker does that, on its own core.
- A prediction may be an error in its place; then it is the answer to its item alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, Tensors
from paceline.server.calls import Encoded
from paceline.server.http1 import JSON
from paceline.server.json_tensors import decode

_ONE: Final = msgspec.json.Decoder(msgspec.Raw)
_MANY: Final = msgspec.json.Decoder(list[msgspec.Raw])


def one(body: Any) -> Tensors:
    """The tensors of one item.

    Raises:
        DecodeError: it is not JSON.
    """
    decode(body, _ONE)
    return (column([bytes(body)]),)


def many(body: Any) -> list[bytes]:
    """The items of a list.

    Raises:
        DecodeError, SignatureMismatch: it is none.
    """
    return [bytes(raw) for raw in decode(body, _MANY)]


def column(items: Sequence[Any]) -> Array:
    """An array of objects that holds `items`."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def single(request: InferRequest) -> Encoded:
    """The response for one item.

    Raises:
        PacelineError: it has an error in place of a prediction.
    """
    (prediction,) = (request.outputs or (column([b"null"]),))[0].tolist()
    if isinstance(prediction, PacelineError):
        raise prediction
    return prediction, JSON, b""
