"""The host process of Python services, without a server: code in, calls in, answers out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from paceline.core.errors import PacelineError
from paceline.core.tensors import Tensors
from paceline.workers.service import Options, ServiceModel, Source
from paceline.workers.worker import Worker

Answer = Any


def texts(items: list[Any]) -> Tensors:
    """Items as they reach a worker."""
    column = np.empty(len(items), object)
    column[:] = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in items]
    return (column,)


def shown(outputs: Tensors) -> list[Any]:
    """Predictions, decoded; an error is itself."""
    return [each if isinstance(each, PacelineError) else json.loads(each) for each in outputs[0].tolist()]


class Hosted:
    """A service with one worker, which is initialised."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self.worker: Worker = service.worker(1)

    @property
    def says(self) -> list[str]:
        return self.service.about.says

    @property
    def examples(self) -> list[Any]:
        return [json.loads(bytes(each)) for each in self.worker.readiness.examples]

    def predict(self, *items: Any) -> list[Any]:
        """The predictions of a batch; the code that raises does so here."""
        return shown(self.worker.run(texts(list(items)), 20.0))

    def run(self, *inputs: np.ndarray) -> Tensors:
        """The outputs of a batch of tensors."""
        return self.worker.run(inputs, 20.0)

    def talk(self, talk: Callable[[Line], Awaitable[None]]) -> None:
        """Have several calls under way at once."""

        async def begin() -> None:
            line = Line(self.worker)
            self.worker.attach(asyncio.get_running_loop(), line)
            try:
                await asyncio.wait_for(talk(line), 30)
            finally:
                self.worker.kill()
                await line.until(lambda: line.death is not None)

        asyncio.run(begin())


class Line:
    """Calls to an attached worker, and what it says.

    Attributes:
        order: the calls that have ended, in that order.
        parts: of streams, by call.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.order: list[int] = []
        self.parts: dict[int, list[Any]] = {}
        self.death: str | None = None
        self._outcomes: dict[int, Tensors | PacelineError] = {}
        self._news = asyncio.Event()

    def start(self, call: int, *items: Any) -> None:
        self.worker.start(call, texts(list(items)))

    async def outcome(self, call: int) -> Answer:
        """What a call came to: predictions, or an error."""
        await self.until(lambda: call in self._outcomes)
        outcome = self._outcomes[call]
        return outcome if isinstance(outcome, PacelineError) else shown(outcome)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    def finished(self, worker: Worker, call: int, outcome: Tensors | PacelineError) -> None:
        self._outcomes[call] = outcome
        self.order.append(call)
        self._news.set()

    def streamed(self, worker: Worker, call: int, part: bytes) -> None:
        self.parts.setdefault(call, []).append(json.loads(part))
        self._news.set()

    def died(self, worker: Worker, how: str) -> None:
        self.death = how
        self._news.set()


@contextmanager
def hosted(folder: Path, code: str, name: str = "service.py", **options: Any) -> Iterator[Hosted]:
    """Write code to a file and load it; `name` may be `service.py:Name`."""
    file, _, thing = name.partition(":")
    (folder / file).write_text(code)
    service = ServiceModel(Source(folder / file, thing or None), "test", Options(**options))
    host = None
    try:
        host = Hosted(service)
        yield host
    finally:
        service.close()
        if host is not None:
            host.worker.stop()
