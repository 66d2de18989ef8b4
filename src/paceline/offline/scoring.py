"""Runs rows through a model, on the running event loop: the engine of the server, without a server.

Rules:
- Each row is a request of its own: the scheduler makes the batches, and a row that fails, or kills its worker, does so
  alone.
- A bounded number of rows is under way: enough that every instance has its next batch when it is done with one.
- What comes out has the order of what went in.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from paceline.config.machine import usable_cores
from paceline.config.settings import ServeSettings
from paceline.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    ModelLoadError,
    Overloaded,
    PacelineError,
)
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.engine import Engine, Entry
from paceline.engine.instances import InstanceThread
from paceline.engine.loading import Loader, read
from paceline.engine.model import ServedModel
from paceline.offline.lines import Scored
from paceline.offline.rows import Row
from paceline.server.models import name_of
from paceline.server.protocols import item_codec
from paceline.server.protocols.plain import Codec
from paceline.workers.service import Source

# A row may wait for two batches before its own, each of which may have to be run again in parts.
_BATCHES_PER_ROW: Final = 20
_ADMISSION_TRIES: Final = 100

Outcome = Tensors | PacelineError


class _Pending(NamedTuple):
    """A row under way.

    Attributes:
        done: holds what became of it.
    """

    number: int
    done: asyncio.Future[Outcome]


class Scorer:
    """A model that is ready.

    Args:
        failed: told of each row that fails, and why.
        close: ends what was started for it.
    """

    def __init__(
        self,
        served: ServedModel,
        settings: ServeSettings,
        failed: Callable[[int, str], None],
        close: Callable[[], None],
    ) -> None:
        self.served = served
        self.close = close
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._items = served.signature.items
        self._codec = None if self._items else Codec(served.signature, settings.nonfinite, served.name)
        run_s = (settings.run_timeout_ms or settings.timeout_ms) / 1000
        self._patience_s = _BATCHES_PER_ROW * run_s + settings.setup_timeout_s
        prepared = served.prepared
        lanes = len(prepared.instances) * prepared.lanes
        self._window = min((2 * lanes + 1) * prepared.max_batch_rows, settings.max_queue_requests)
        self._pending: deque[_Pending] = deque()
        self._room, self._more = asyncio.Event(), asyncio.Event()

    @property
    def says(self) -> str:
        """What it is, and how it runs."""
        prepared = self.served.prepared
        about = getattr(self.served, "about", None)
        what = ", ".join(about.says) if about is not None else "a model"
        count = len(prepared.instances)
        return f"{what}; {count} instance{'s' * (count != 1)}, up to {prepared.max_batch_rows} rows together"

    def wants_list(self, columns: list[str]) -> bool:
        """True when a row of CSV is the value of the one input there is, and not an object of inputs."""
        inputs = self.served.signature.inputs
        return not self._items and len(inputs) == 1 and inputs[0].name not in columns

    async def run(self, blocks: Iterator[list[Row]], take: Callable[[list[Scored]], None]) -> None:
        """Score all rows.

        Args:
            blocks: read on a thread.
            take: told what became of the next rows.

        Raises:
            InvalidRequest: the input cannot be read any further.
            DeadlineExceeded, Overloaded: the model does not answer any more.
        """
        feeding = self._loop.create_task(self._feed(blocks))
        feeding.add_done_callback(lambda _: self._more.set())
        try:
            while await self._has_head(feeding):
                # Not the future itself: to be cancelled here must not cancel it, for the engine will set it.
                await asyncio.wait([self._pending[0].done])
                take(self._taken())
                self._room.set()
            await feeding
        finally:
            feeding.cancel()

    # -- out --------------------------------------------------------------------------------------------------

    async def _has_head(self, feeding: asyncio.Task[None]) -> bool:
        while not self._pending and not feeding.done():
            self._more.clear()
            await self._more.wait()
        return bool(self._pending)

    def _taken(self) -> list[Scored]:
        """What became of the rows before the first that is not done."""
        scored = []
        while self._pending and self._pending[0].done.done():
            number, done = self._pending.popleft()
            scored.append(self._scored(number, done.result()))
        return scored

    def _scored(self, number: int, outcome: Outcome) -> Scored:
        if not isinstance(outcome, PacelineError):
            try:
                return Scored(number, self._text(outcome))
            except PacelineError as error:
                outcome = error
        if isinstance(outcome, DeadlineExceeded):
            raise outcome
        text = _in_full(outcome)
        self._failed(number, text)
        body: dict[str, Any] = {"error": text, "code": outcome.code}
        if isinstance(outcome, InvalidRequest) and outcome.details:
            body["details"] = [{"path": detail.path, "message": detail.message} for detail in outcome.details]
        return Scored(number, orjson.dumps(body), failed=True)

    def _text(self, outputs: Tensors) -> bytes:
        if self._codec is not None:
            return self._codec.rows(outputs, slice(0, 1))[1:-1]
        prediction = outputs[0][0]
        if isinstance(prediction, PacelineError):
            raise prediction
        return bytes(prediction)

    # -- in ---------------------------------------------------------------------------------------------------

    async def _feed(self, blocks: Iterator[list[Row]]) -> None:
        thread = InstanceThread("paceline-input")
        try:
            while (block := await self._on(thread, partial(next, blocks, None))) is not None:
                for row in block:
                    while len(self._pending) >= self._window:
                        self._room.clear()
                        await self._room.wait()
                    self._pending.append(_Pending(row.number, await self._begun(row)))
                    self._more.set()
        finally:
            thread.stop()

    async def _on(self, thread: InstanceThread, ask: Callable[[], Any]) -> Any:
        """What `ask` gives. Not on a thread of the loop's own, whose end would wait for a pipe that says nothing."""
        done: asyncio.Future[Any] = self._loop.create_future()

        def work() -> None:
            try:
                result, error = ask(), None
            except Exception as problem:
                result, error = None, problem
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_settle, done, result, error)

        thread.run(work)
        return await done

    async def _begun(self, row: Row) -> asyncio.Future[Outcome]:
        done: asyncio.Future[Outcome] = self._loop.create_future()
        for _ in range(_ADMISSION_TRIES):
            try:
                self._begin(row, done)
                return done
            except Overloaded as error:
                refusal = error
                await asyncio.sleep(refusal.retry_after_s)
            except PacelineError as error:
                done.set_result(error)
                return done
        raise refusal

    def _begin(self, row: Row, done: asyncio.Future[Outcome]) -> None:
        if row.problem:
            raise InvalidRequest(row.problem)
        inputs = item_codec.one(row.text) if self._codec is None else self._codec.one(row.text)
        deadline = time.monotonic() + self._patience_s
        self.served.submit(self.served.request(inputs, deadline, partial(_ended, done), len(row.text)))


async def open_model(
    path: Path, settings: ServeSettings, say: Callable[[str], None], failed: Callable[[int, str], None]
) -> Scorer:
    """Load a model and find its settings, as `paceline serve` does.

    Args:
        say: told what happens to workers, line by line.
        failed: told of each row that fails, and why.

    Raises:
        ModelLoadError, RuntimeUnavailable, ModelFailed, ConfigError: it cannot be loaded.
    """
    source = Source.parse(path)
    if source.path.is_dir():
        hint = f"paceline batch {source.path}/1/model.onnx"
        raise ModelLoadError(f"{path}: expected the file of one model, got a folder", hint=hint)
    if not source.path.exists():
        raise ModelLoadError(f"{path}: no such file")
    name = settings.name or name_of(source.path)
    own = settings.for_model(name)
    loader = Loader(engine := Engine(), usable_cores().whole, alone=lambda: False, say=say)
    what = await asyncio.to_thread(read, path, own, None, name)
    engine.add(entry := Entry(name, "1", what.loaded.platform, what.loaded.signature))
    await loader.open(entry, what)
    served = entry.served
    assert served is not None

    def close() -> None:
        loader.close()
        served.close()

    return Scorer(served, own, failed, close)


def _in_full(error: PacelineError) -> str:
    """The error with the model's own words, which a server keeps from its clients: here the operator reads them."""
    if not isinstance(error, ModelFailed) or not error.detail:
        return error.message
    words = error.detail.rstrip().rpartition("\n")[2]  # of a traceback, the last line
    head, _, kind = error.message.rpartition(" ")
    return f"{head} {words}" if words.startswith(kind) else f"{error.message}: {words}"


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)


def _ended(done: asyncio.Future[Outcome], request: InferRequest) -> None:
    if not done.done():
        done.set_result(request.error if request.error is not None else request.outputs or ())
