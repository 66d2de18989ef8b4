"""The life of a worker for Python code: import, HELLO, initialise, READY, and then call after call.

Rules:
- Whatever user code raises is an answer, never the end: not even `SystemExit`.
- The descriptors of the channel are out of the way of code that closes those it did not open.
- A service that only computes is called on the main thread, and nothing else runs beside it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from paceline.core.errors import ModelLoadError, PacelineError, RuntimeUnavailable
from paceline.workers import frames
from paceline.workers.arena import Arena
from paceline.workers.channel import Channel
from paceline.workers.frames import Kind, Readiness, Setup, Trouble
from paceline.workers.python import calls
from paceline.workers.python.advice import advice
from paceline.workers.python.answers import Answers
from paceline.workers.python.arguments import Arguments
from paceline.workers.python.health import Health, Unwell
from paceline.workers.python.items import ItemService
from paceline.workers.python.loading import Found, load
from paceline.workers.python.service import TensorService
from paceline.workers.python.tracebacks import FailureLog, one_line, user_frames
from paceline.workers.python.values import ValueWriter, example_text

_T = TypeVar("_T")


class CannotServe(Exception):
    """The server has been told why."""


class Host:
    """One worker.

    Args:
        channel: to the server.
        arenas: shared memory from the server, and to it.
    """

    def __init__(self, arguments: Arguments, channel: Channel, arenas: tuple[Arena, Arena]) -> None:
        self._arguments = arguments
        self._channel = channel
        self._incoming, self._outgoing = arenas
        self._log = FailureLog(arguments.model)

    def run(self) -> None:
        """Serve until the channel closes.

        Raises:
            CannotServe: the code cannot be imported or initialised.
            Unwell: it says that it is not well.
            Closed: the server is gone.
        """
        service = self._tried("", lambda: load(self._arguments))
        self._channel.send(Kind.HELLO, 0, [frames.encode(service.about)])
        setup: Setup = frames.decode(self._channel.receive().body, Setup)
        readiness = self._tried("setup: ", lambda: _initialised(service, setup))
        health = Health(getattr(service, "health", None), self._log)
        self._tried("", health.check)
        # With several calls at once there is no moment when shared memory may be written again.
        answers = Answers(ValueWriter(setup.nonfinite), self._log, self._outgoing if service.about.lanes == 1 else None)
        serve = self._tried("", lambda: self._way_to_serve(service, setup, readiness, answers, health))
        _settle_in(setup)
        self._channel.send(Kind.READY, 0, [frames.encode(readiness)])
        serve()

    def _way_to_serve(
        self, service: Found, setup: Setup, readiness: Readiness, answers: Answers, health: Health
    ) -> Callable[[], None]:
        if isinstance(service, ItemService) and service.stream is not None:
            from paceline.workers.python.streaming import Streams

            return Streams(self._channel, service, answers, setup, health).serve
        if isinstance(service, ItemService) and service.fetch is not None:
            from paceline.workers.python.fetching import Fetching

            return Fetching(self._channel, service, answers, setup, health).serve
        if isinstance(service, TensorService) and (service.about.inputs or readiness.inputs):
            way: calls.Calls = calls.TensorCalls(service, answers)
        else:
            assert not isinstance(service, TensorService) or isinstance(service, ItemService)
            way = calls.ItemCalls(service, answers)
        return partial(calls.serve, self._channel, way, self._incoming, health)

    def _tried(self, doing: str, step: Callable[[], _T]) -> _T:
        """Take a step of the start; tell the server when user code, or we, cannot."""
        try:
            return step()
        except BaseException as error:
            self._channel.send(Kind.FATAL, 0, [frames.encode(_fatal(error, doing, self._arguments))])
            raise CannotServe from error


def _initialised(service: Found, setup: Setup) -> Readiness:
    if isinstance(service, TensorService):
        return service.setup_tensors(setup)
    return Readiness([msgspec.Raw(example_text(example)) for example in service.setup(setup)])


def _settle_in(setup: Setup) -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(setup.threads)
    # What lives now lives to the end: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()


def _fatal(error: BaseException, doing: str, arguments: Arguments) -> Trouble:
    file = arguments.path.rpartition("/")[2]
    if isinstance(error, Unwell):
        return Trouble(f"{file}: {error}", code=ModelLoadError.code)
    if isinstance(error, PacelineError):
        return Trouble(f"{file}: {error.message}".replace(f"{file}: {file}", file, 1), "", error.hint, error.code)
    code = RuntimeUnavailable.code if isinstance(error, ModuleNotFoundError) else ModelLoadError.code
    return Trouble(f"{file}: {doing}{one_line(error)}", user_frames(error), advice(error, Path(arguments.path)), code)
