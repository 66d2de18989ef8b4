"""One call after the other, on the main thread: for code that computes and waits for nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from paceline.core.errors import BAD_OUTPUT, ModelFailed
from paceline.core.tensors import Tensors
from paceline.workers import tensors
from paceline.workers.arena import Arena
from paceline.workers.channel import Channel
from paceline.workers.frames import Kind
from paceline.workers.python.answers import Answer, Answers
from paceline.workers.python.health import Health
from paceline.workers.python.reading import ItemReader
from paceline.workers.python.service import Service, TensorService, run_good


class Calls(Protocol):
    """Runs calls of a service."""

    answers: Answers

    def answer(self, inputs: Tensors) -> Answer:
        """What a call comes to; raises nothing."""


class ItemCalls:
    """Calls of a service that takes items."""

    def __init__(self, service: Service, answers: Answers) -> None:
        self._service = service
        self.answers = answers
        self._reader = None if service.wants_text else ItemReader()

    def answer(self, inputs: Tensors) -> Answer:
        texts: list[Any] = inputs[0].tolist()
        try:
            return self.answers.items(self._predictions(texts))
        except BaseException as error:
            return self.answers.raised(error, len(texts))

    def _predictions(self, texts: list[Any]) -> Sequence[Any]:
        return run_good(texts if self._reader is None else self._reader.read(texts), self._predicted)

    def _predicted(self, items: list[Any]) -> Sequence[Any]:
        predictions = self._service.predict(items)
        if len(predictions) != len(items):
            raise ModelFailed(f"expected {len(items)} predictions, got {len(predictions)}", code=BAD_OUTPUT)
        return predictions


class TensorCalls:
    """Calls of a service that takes tensors."""

    def __init__(self, service: TensorService, answers: Answers) -> None:
        self._service = service
        self.answers = answers

    def answer(self, inputs: Tensors) -> Answer:
        try:
            return self.answers.tensors(self._service.predict_tensors(inputs))
        except BaseException as error:
            return self.answers.raised(error, len(inputs[0]))


def serve(channel: Channel, calls: Calls, arena: Arena, health: Health) -> None:
    """Answer until the channel is closed.

    Args:
        arena: where large inputs are.

    Raises:
        Closed: there is nobody to answer any more.
    """
    while True:
        try:
            frame = channel.receive(health.every_s)
        except TimeoutError:
            health.check()
            continue
        if frame.kind is Kind.RUN:
            inputs, _ = tensors.decode(frame.body, arena)
            answer = calls.answer(inputs)
            # What is large lies in memory that the next call writes again: let go of it.
            del inputs
            calls.answers.send(channel, frame.call, answer)
