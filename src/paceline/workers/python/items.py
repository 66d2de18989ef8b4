"""User code that takes items of JSON: read, fetch, clean, predict, format.

Rules:
- An item that fails fails alone in every step but `clean` and `predict`, which see all items at once.
- Where `predict` takes an array, items of different shapes run one after the other, for they cannot be stacked. Where
  it takes a frame, those with other keys do: nobody gets NaN for what somebody else has sent.
- The object is made and set up on the main thread, and `clean`, `predict` and `format` run there, one call at a time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, cast

import msgspec
import numpy as np

from paceline.core.errors import BAD_OUTPUT, ModelFailed, ModelLoadError
from paceline.workers.frames import Setup
from paceline.workers.python.coded import Code, Function
from paceline.workers.python.contract import Contract
from paceline.workers.python.loops import awaited
from paceline.workers.python.parameters import Takes
from paceline.workers.python.reading import ItemReader, failed
from paceline.workers.python.service import INVALID, Failed, run_good
from paceline.workers.python.values import as_sequence, example_text, is_frame

_BATCH_NOTE: Final = (
    "predict is called with a list of items, unless its parameter is annotated as one: def predict(item: dict)"
)


class ItemService(Code):
    """A function or a class that takes items.

    Attributes:
        fetch, stream: what waits for others, and what answers in parts, once set up; else None.
    """

    wants_text = True

    def __init__(self, contract: Contract) -> None:
        self.wanted = contract.wanted()
        super().__init__(contract, contract.about(self.wanted.takes))
        self.fetch: Function | None = None
        self.stream: Function | None = None

    def setup(self, setup: Setup) -> Sequence[Any]:
        """Make the object, let it initialise; its examples."""
        return self.good(self.create())

    def good(self, example: Any) -> list[msgspec.Raw]:
        """The items that `example()` has returned, as JSON.

        Raises:
            ModelLoadError: one is none that `predict` can be given.
        """
        examples = as_sequence(example) if is_frame(example) else example
        if not isinstance(examples, list):
            examples = [] if examples is None else [examples]
        texts = [example_text(each) for each in examples]
        for index, item in enumerate(self.read(texts)):
            if isinstance(item, Failed):
                where = f"example()[{index}]" if examples is example else "example()"
                hint = "a list is a list of items: one that is a list itself stands in a list"
                raise ModelLoadError(f"{where}: {item.message}", hint=hint if examples is example else None)
        return list(map(msgspec.Raw, texts))

    def create(self) -> Any:
        parts = self.make_parts()
        self._clean: Function | None = parts.get("clean")
        self._format: Function | None = parts.get("format")
        self._reader = ItemReader(self.wanted.item, parts.get("validate"))
        self.fetch = parts.get("fetch")
        self.stream = self._predict if self.about.streams else None
        return parts["example"]() if "example" in parts else None

    # -- a call -----------------------------------------------------------------------------------------------

    def predict(self, items: list[Any]) -> Sequence[Any]:
        """All steps but `fetch`, for items that are texts."""
        return self.predict_items(self.read(items))

    def read(self, texts: Sequence[bytes]) -> list[Any]:
        """The items, or `Failed` in their places."""
        return self._reader.read(texts)

    def predict_items(self, items: list[Any]) -> Sequence[Any]:
        """A prediction, or `Failed`, for each item that was read and fetched.

        Raises:
            BaseException: as `clean` and `predict` do.
        """
        return run_good(items, self._cleaned_and_predicted)

    def _cleaned_and_predicted(self, items: list[Any]) -> Sequence[Any]:
        if self._clean is not None:
            items = list(_counted(self._clean(items), len(items), "clean"))
        return self._formatted(self._predicted(items))

    def format(self, output: Any) -> Any:
        """One output as its client gets it, or `Failed`."""
        if self._format is None or isinstance(output, Failed):
            return output
        try:
            return self._format(output)
        except BaseException as error:
            return failed(error, "format")

    def _formatted(self, outputs: Sequence[Any]) -> Sequence[Any]:
        return outputs if self._format is None else [self.format(output) for output in outputs]

    def _predicted(self, items: list[Any]) -> Sequence[Any]:
        takes = self.wanted.takes
        if takes is Takes.BATCH:
            return self._together(items)
        if takes is Takes.ITEM:
            return self._one_by_one(items)
        return self._framed(items) if takes is Takes.FRAME else self._stacked(items)

    # -- item by item -----------------------------------------------------------------------------------------

    def _one_by_one(self, items: list[Any]) -> list[Any]:
        if self.contract.is_async("predict"):
            return self.loop.wait(self._all(items))
        return [self._alone(item) for item in items]

    def _alone(self, item: Any) -> Any:
        try:
            return self.finished(self._predict(item))
        except BaseException as error:
            return failed(error, "predict")

    async def _all(self, items: list[Any]) -> list[Any]:
        return await asyncio.gather(*map(self._alone_async, items))

    async def _alone_async(self, item: Any) -> Any:
        try:
            return await awaited(self._predict(item))
        except BaseException as error:
            return failed(error, "predict")

    # -- together ---------------------------------------------------------------------------------------------

    def _stacked(self, items: list[Any]) -> Sequence[Any]:
        array = _array(items, self.wanted.dtype)
        if array is not None:
            return self._together(array)
        arrays = [_array(item, self.wanted.dtype) for item in items]
        outputs: list[Any] = [
            self._no_numbers(item) if array is None else None for item, array in zip(items, arrays, strict=True)
        ]
        for indices in _grouped(None if array is None else array.shape for array in arrays):
            self._fill(outputs, indices, np.stack([arrays[index] for index in indices]))
        return outputs

    def _framed(self, items: list[Any]) -> Sequence[Any]:
        import pandas

        outputs: list[Any] = [None] * len(items)
        for indices in _grouped(map(_keys, items)):
            self._fill(outputs, indices, pandas.DataFrame([items[index] for index in indices]))
        return outputs

    def _fill(self, outputs: list[Any], indices: list[int], batch: Any) -> None:
        for index, output in zip(indices, self._together(batch), strict=True):
            outputs[index] = output

    def _together(self, batch: Any) -> Sequence[Any]:
        count = len(batch)  # before `predict` has it
        try:
            outputs = self.finished(self._predict(batch))
        except (TypeError, AttributeError) as error:
            if self.wanted.takes is Takes.BATCH and re.search(r"\blist\b", str(error)):
                error.add_note(_BATCH_NOTE)
            raise
        return _counted(outputs, count)

    def _no_numbers(self, item: Any) -> Failed:
        kind = "" if self.wanted.dtype is None else f" of {self.wanted.dtype}"
        return Failed(f"the item: expected numbers{kind}, got {_shown(item)}", INVALID)


def _keys(item: Any) -> Any:
    """What a row has; `fetch` and `clean` may have made anything of it."""
    return frozenset(item) if isinstance(item, dict) else type(item)


def _grouped(keys: Iterable[Hashable]) -> Iterable[list[int]]:
    """The places of equal keys; None is no key."""
    places: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        if key is not None:
            places.setdefault(key, []).append(index)
    return places.values()


def _array(value: Any, dtype: Any) -> Any:
    """An array of numbers, or None. Never by way of `dtype`: numpy reads numbers out of text, and NaN out of null."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if array.dtype.kind not in "biuf" or (dtype is not None and not np.can_cast(array.dtype, dtype, "same_kind")):
        return None
    return array if dtype is None else array.astype(dtype, copy=False)


def _counted(outputs: Any, count: int, part: str = "predict") -> Sequence[Any]:
    """The outputs, when there is one for each item.

    Raises:
        ModelFailed: there is not.
    """
    sequence = as_sequence(outputs)
    if isinstance(sequence, np.ndarray):
        got = str(len(sequence)) if sequence.ndim else "an array without axes"
    elif isinstance(outputs, tuple) and part == "predict":
        # `return labels, scores` has as many elements as a batch of two.
        got = f"a tuple of {len(outputs)}: of several outputs, make one value for each item"
    elif isinstance(sequence, (list, tuple)):
        got = str(len(sequence))
    else:
        got = "nothing (None)" if outputs is None else type(outputs).__name__
    if got != str(count):
        what = "predictions" if part == "predict" else "items"
        raise ModelFailed(f"{part}: expected {count} {what}, one for each item; got {got}", code=BAD_OUTPUT)
    return cast("Sequence[Any]", sequence)


def _shown(value: Any) -> str:
    try:
        text = msgspec.json.encode(value, enc_hook=repr).decode()
    except Exception:  # what `fetch` or `clean` has made of it need not be JSON
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}..."
