"""Items of JSON: what user code takes and gives passes through the server as text.

Rules:
- An item is checked to be JSON, and never decoded here: the worker does that, on its own core.
- White space around an item is taken off: equal items shall have equal bytes, whichever protocol brought them.
- A prediction may be an error in its place; then it is the answer to its item alone (`item_batch`), or to its request.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import DecodeError, Detail, InvalidRequest
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, Tensors, column
from paceline.server.calls import Encoded
from paceline.server.http1 import JSON
from paceline.server.json_tensors import decode, raise_decode_error

_ONE: Final = msgspec.json.Decoder(msgspec.Raw)
_MANY: Final = msgspec.json.Decoder(list[msgspec.Raw])


def one(body: Any) -> Tensors:
    """The tensors of one item.

    Raises:
        DecodeError: it is not JSON.
    """
    text = bytes(decode(body, _ONE))
    _require_utf_8(text, body)
    array = np.empty(1, object)  # faster than `column`, and there is one for every request
    array[0] = text
    return (array,)


def many(body: Any, where: str = "") -> Tensors:
    """The tensors of a list of items.

    Args:
        where: its place in the request.

    Raises:
        DecodeError, SignatureMismatch: it is none.
    """
    items = decode(body, _MANY, where)
    _require_utf_8(body, body)
    return (column(list(map(bytes, items))),)


def texts(array: Array, where: str) -> Array:
    """Items that came as the elements of a BYTES tensor.

    Args:
        where: the tensor's place in the request.

    Raises:
        DecodeError: one is not JSON.
    """
    items = []
    for index, element in enumerate(array.reshape(-1).tolist()):
        text = element.encode() if isinstance(element, str) else element
        try:
            (item,) = one(text)
        except InvalidRequest as error:
            place = f"{where}[{index}]"
            raise DecodeError(
                f"{place}: not an item of JSON: {error.message}",
                details=[Detail(place, error.message)],
                hint='an element is the text of an item, such as "{\\"x\\": 1}"',
            ) from error
        items.append(item[0])
    return column(items)


def prediction(request: InferRequest) -> bytes:
    """The JSON of the prediction for one item."""
    text: bytes = (request.outputs or ((b"null",),))[0][0]
    return text


def single(request: InferRequest) -> Encoded:
    """The response for one item."""
    return prediction(request), JSON, b""


def _require_utf_8(text: Any, body: Any) -> None:
    """Skipping a string does not look at its characters."""
    try:
        str(text, "utf-8")
    except UnicodeDecodeError as error:
        raise_decode_error(error, body, "")
