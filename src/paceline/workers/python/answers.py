"""What came of a call, as the frame that ends it. To make one raises nothing: whoever called is to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from paceline.core.errors import BAD_OUTPUT, InvalidRequest, ModelFailed
from paceline.core.tensors import Tensors, column
from paceline.workers import frames
from paceline.workers.arena import Arena
from paceline.workers.channel import Channel
from paceline.workers.frames import BadFrame, Kind, Trouble
from paceline.workers.python.reading import failed
from paceline.workers.python.service import INVALID, Failed, any_failed
from paceline.workers.python.tracebacks import FailureLog
from paceline.workers.python.values import ValueWriter
from paceline.workers.tensors import RowError, encode

Body = Sequence[bytes | memoryview]
CANCELLED: Final = "cancelled"


class Answer(NamedTuple):
    """A frame, but for its call."""

    kind: Kind
    body: Body


class Answers:
    """Makes answers, and tells the operator of those that are failures.

    Args:
        arena: where large tensors go; None: they travel.
    """

    def __init__(self, writer: ValueWriter, log: FailureLog, arena: Arena | None) -> None:
        self._writer = writer
        self._log = log
        self._arena = arena

    def send(self, channel: Channel, call: int, answer: Answer) -> None:
        """End a call.

        Raises:
            Closed: there is nobody to answer any more.
        """
        try:
            channel.send(answer.kind, call, answer.body)
        except BadFrame as error:
            told = self.raised(ModelFailed(f"the answer is too large: {error.message}", code=BAD_OUTPUT), 0)
            channel.send(told.kind, call, told.body)

    def items(self, predictions: Sequence[Any]) -> Answer:
        """The answer with these predictions, some of which may be `Failed`. What cannot be written is."""
        texts = self._writer.texts(predictions)
        failures = self._failures(texts) if any_failed(texts) else []
        written = column([b"" if isinstance(text, Failed) else text for text in texts] if failures else texts)
        return Answer(Kind.RESULT, encode([written], self._arena, failures))

    def tensors(self, outputs: Tensors) -> Answer:
        """The answer with these outputs."""
        return Answer(Kind.RESULT, encode(outputs, self._arena))

    def part(self, value: Any) -> bytes | Failed:
        """A part of a streamed answer."""
        return self._writer.text(value)

    def raised(self, error: BaseException, rows: int) -> Answer:
        """The answer to a call whose code raised."""
        if isinstance(error, InvalidRequest) and rows == 1:
            return self.items([Failed(error.message, INVALID)])
        stands = failed(error, "the code")
        self._tell(stands)
        return Answer(Kind.FAILED, [frames.encode(Trouble(stands.message, stands.detail, None, stands.code))])

    def cancelled(self) -> Answer:
        """The answer to a call that nobody waits for."""
        return Answer(Kind.FAILED, [frames.encode(Trouble("cancelled", code=CANCELLED))])

    def _failures(self, texts: Sequence[bytes | Failed]) -> list[RowError]:
        rows = [(row, text) for row, text in enumerate(texts) if isinstance(text, Failed)]
        for _, each in rows:
            self._tell(each)
        return [RowError(row, each.code, each.message, each.detail) for row, each in rows]

    def _tell(self, failed: Failed) -> None:
        if failed.code not in (INVALID, frames.STREAM_TOO_LONG):
            self._log.failed(failed.message, failed.detail)
