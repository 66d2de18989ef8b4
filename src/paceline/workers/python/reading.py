"""How do the JSON texts of items become what `predict` wants?

Rules:
- All items of a batch are decoded in one go. Only where that fails, one by one: an item that is wrong fails alone.
- `validate(item)` refuses an item by raising ValueError, or by returning False or a message. It replaces nothing:
  that is what `clean` is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from paceline.core.errors import BAD_OUTPUT, InvalidRequest, ModelFailed
from paceline.workers.python.service import INVALID, Failed
from paceline.workers.python.tracebacks import one_line, user_frames

_AT: Final = re.compile(r" - at `\$\.?(.*)`$")
# What an item that lacks something makes a check raise.
_REFUSALS: Final = (ValueError, AssertionError, LookupError, TypeError)


class ItemReader:
    """Decodes items and checks them.

    Args:
        item: the type of an item.
        validate: the user's own check.
    """

    def __init__(self, item: Any = Any, validate: Callable[[Any], Any] | None = None) -> None:
        self._many: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[item], dec_hook=_of_pydantic)
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(item, dec_hook=_of_pydantic)
        self._validate = validate

    def read(self, texts: Sequence[bytes]) -> list[Any]:
        """An item, or `Failed`, for each text."""
        try:
            items = self._many.decode(b"[" + b",".join(texts) + b"]")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            items = []
        if len(items) != len(texts):  # also where two texts that are wrong make one that is right
            items = [self._decoded(text) for text in texts]
        return items if self._validate is None else [self._validated(item) for item in items]

    def _decoded(self, text: bytes) -> Any:
        try:
            return self._one.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            at = _AT.search(str(error))
            if at is None:
                return Failed(f"the item: {error}", INVALID)
            return Failed(f"{at[1] or 'the item'}: {str(error)[: at.start()]}", INVALID)

    def _validated(self, item: Any) -> Any:
        if isinstance(item, Failed):
            return item
        assert self._validate is not None
        try:
            verdict = self._validate(item)
        except _REFUSALS as error:
            return Failed(_refusal(error), INVALID)
        except BaseException as error:
            return failed(error, "validate")
        if verdict is None or verdict is True:
            return item
        if verdict is False or isinstance(verdict, str):
            return Failed(verdict or "the item is not valid", INVALID)
        got = type(verdict).__name__
        return Failed(f"validate returned {got}: expected None, True, False or a message", BAD_OUTPUT)


def _of_pydantic(kind: type, value: Any) -> Any:
    """Of a type that msgspec leaves to others; only models of pydantic are taken (`parameters.wanted`)."""
    try:
        return kind.model_validate(value)  # type: ignore[attr-defined]
    except ValueError as error:
        if not hasattr(error, "errors"):
            raise
        said = [": ".join([*filter(None, [".".join(map(str, each["loc"]))]), each["msg"]]) for each in error.errors()]
        raise ValueError("; ".join(said)) from None


def _refusal(error: Exception) -> str:
    """What the check says; of an item that made it stumble, how."""
    said = ""
    if isinstance(error, (ValueError, AssertionError)):
        with suppress(Exception):  # it may have words of its own
            said = str(error)
    return said or one_line(error)


def failed(error: BaseException, where: str) -> Failed:
    """What stands for an item whose code raised.

    Its message names the exception alone: what exceptions say is for the log, and for clients in debug mode.
    """
    if isinstance(error, InvalidRequest):
        return Failed(error.message, INVALID)
    if isinstance(error, ModelFailed):
        return Failed(error.message, error.code, error.detail or "")
    return Failed(f"{where} raised {type(error).__name__}", detail=user_frames(error))
