"""POST /batch-predict for user code: every item is answered, each on its own.

Rules:
- The list must be one of JSON; what is in it is the worker's to judge, item by item.
- It is one request to the engine, which runs equal items once, cuts it as it likes, and finds out who is guilty when
  items fail together.
- Predictions are spliced together as the bytes that the worker wrote. An item that failed has the body of its error in
  its place, as it would have had from /predict.
- A list may be long: the event loop gets its turn after every `_CHUNK` items.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from paceline.core.errors import PacelineError, SignatureMismatch
from paceline.server.app import App
from paceline.server.calls import Encoded, Inference, timing
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.protocols import item_codec
from paceline.server.status import describe

_CHUNK: Final = 256


class ItemBatch:
    """The items of one call.

    Raises:
        DecodeError, SignatureMismatch: the body is no list of them.
    """

    def __init__(self, app: App, http: HttpRequest, call: Inference) -> None:
        self._app = app
        self._http = http
        self._call = call
        try:
            self._inputs = item_codec.many(http.body)
        except SignatureMismatch as error:
            text = f"{error.message} (one item goes to /predict, a list of them here)"
            raise SignatureMismatch(text, details=error.details) from error

    async def answer(self) -> Encoded | PacelineError:
        """The predictions, or why there are none."""
        request = await self._call.run(self._inputs, len(self._http.body), errors_by_row=True)
        if request.error is not None:
            return request.error
        assert request.outputs is not None
        predictions: list[Any] = request.outputs[0].tolist()
        texts: list[bytes] = []
        for start in range(0, len(predictions), _CHUNK):
            texts += [self._shown(each) for each in predictions[start : start + _CHUNK]]
            if start:
                await asyncio.sleep(0)
        return b"[" + b",".join(texts) + b"]", JSON, timing(request)

    def _shown(self, prediction: bytes | PacelineError) -> bytes:
        if isinstance(prediction, PacelineError):
            return describe(prediction, self._http.id, self._app.debug)[1]
        return prediction
