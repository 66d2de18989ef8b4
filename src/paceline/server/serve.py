"""The life of a server: load, listen, warm up, serve, drain, exit.

Rules:
- A model that cannot be loaded ends the process before the port is opened; from then on the process is live, and
  it is ready when the warm-up is over.
- SIGTERM or SIGINT: not ready at once, go on accepting for the lame-duck time, stop accepting, let what is under
  way finish within the grace time, exit 0; before there is anything to drain, exit 0 at once.
- A second SIGINT ends it at once; a second SIGTERM changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import NoReturn, TypeVar

from paceline.config.machine import usable_cores
from paceline.config.settings import ServeSettings
from paceline.core.errors import ConfigError, PacelineError
from paceline.core.tensors import Tensors
from paceline.engine.engine import Engine, Entry, Phase
from paceline.engine.examples import from_file
from paceline.engine.model import ServedModel
from paceline.engine.warmup import Prepared, Wishes, prepare
from paceline.runtimes.base import LoadedModel, load
from paceline.server.app import App
from paceline.server.http_request import Limits
from paceline.server.listener import Listener, allow_connections
from paceline.server.panel import show_failed, show_fewer_connections, show_live, show_ready, write_ready
from paceline.server.protocols import all_routes

# Requests leave no cycles behind: collecting a hundred times less often than by default costs no memory.
_GC_THRESHOLD = 70_000
# A thread whose batch is done waits for the interpreter at most this long; by default its core would idle for 5 ms.
_SWITCH_INTERVAL_S = 2e-4

_MOST_NAME = 128
_T = TypeVar("_T")


def serve(model_path: Path, settings: ServeSettings, *, as_json: bool = False) -> int:
    """Serve a model until a signal says stop; the process's exit code.

    Args:
        as_json: once it is ready, write what the panel shows to stdout as one JSON document.

    Raises:
        ModelLoadError, RuntimeUnavailable, AddressUnavailable, ConfigError: it could not start.
    """
    import numpy as np
    import uvloop

    # A number past its type is refused where it is read: numpy need not warn about it on stderr as well.
    np.seterr(over="ignore")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Server(model_path, settings, as_json).run())


class _Server:
    def __init__(self, model_path: Path, settings: ServeSettings, as_json: bool) -> None:
        self._path = model_path
        self._as_json = as_json
        name = settings.name or _name_of(model_path)
        self._name = name
        settings.check_models([name])
        self._settings = settings.for_model(name)
        self._engine = Engine()
        self._app = App(
            self._engine,
            _limits(settings),
            timeout_s=settings.timeout_ms / 1000,
            debug=settings.debug,
            log=_write_to_stderr if settings.access_log else None,
        )
        self._stop = asyncio.Event()
        self._interrupts = 0

    async def run(self) -> int:
        """The whole life."""
        started = time.monotonic()
        self._watch_signals()
        loaded = await self._until_stopped(asyncio.to_thread(load, self._path))
        given = await self._until_stopped(asyncio.to_thread(self._examples, loaded))
        entry = Entry(self._name, "1", loaded.platform, loaded.signature)
        self._engine.add(entry)
        self._app.mount(all_routes(self._app, self._settings))
        connections = allow_connections(self._settings.max_connections)
        listener = Listener(self._app, connections)
        address = await listener.open(self._settings.host, self._settings.port)
        show_live(self._name, address, self._settings)
        if connections < self._settings.max_connections:
            show_fewer_connections(connections, self._settings)
        try:
            await self._warm_up(entry, loaded, given, address, started)
            await self._stop.wait()
        finally:
            await self._drain(listener)
        return 0

    def _examples(self, loaded: LoadedModel) -> Tensors | None:
        path = self._settings.examples
        try:
            return None if path is None else from_file(path, loaded.signature)
        except ConfigError as error:
            raise _plainer(error, path) from error

    async def _warm_up(
        self, entry: Entry, loaded: LoadedModel, given: Tensors | None, address: str, started: float
    ) -> None:
        settings = self._settings
        wishes = Wishes(settings.max_batch_size, settings.instances, settings.threads, settings.warmup_s)
        cores = usable_cores()
        try:
            prepared = await self._until_stopped(asyncio.to_thread(prepare, loaded, cores.whole, wishes, given))
        except PacelineError as error:
            entry.phase, entry.reason = Phase.FAILED, str(error)
            show_failed(self._name, error)
            return
        self._open(entry, prepared)
        ready_s = time.monotonic() - started
        if self._as_json:
            write_ready(entry, prepared, cores, address, ready_s, settings)
        show_ready(entry, prepared, cores, address, ready_s, settings)

    def _open(self, entry: Entry, prepared: Prepared) -> None:
        settings = self._settings
        served = ServedModel(
            entry.name,
            entry.version,
            prepared,
            nonfinite=settings.nonfinite,
            max_queue_requests=settings.max_queue_requests,
            max_queue_bytes=settings.max_queue_mb << 20,
            alone=lambda: len(self._app.connections) <= 1,
        )
        self._engine.opened(entry, served)
        # What lives now lives to the end: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)

    # -- stopping ---------------------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _interrupted(self) -> None:
        self._interrupts += 1
        self._stop.set()
        if self._interrupts > 1:
            os._exit(130)

    async def _until_stopped(self, work: Awaitable[_T]) -> _T:
        """The result of `work`; the process ends when it is told to stop first."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not task.done():
            # Loading happens in native code on a thread, which nothing can interrupt.
            _leave()
        return task.result()

    async def _drain(self, listener: Listener) -> None:
        settings = self._settings
        self._app.draining = True
        await asyncio.sleep(settings.lame_duck_ms / 1000)
        listener.stop_accepting()
        await listener.drained(settings.grace_ms / 1000)
        self._engine.close()
        # The end has begun: a signal that comes late must not turn the exit code into its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        if not self._engine.idle:
            # A batch outlived the grace time. The runtime must not be taken down under the thread that runs it.
            _leave()


def _name_of(path: Path) -> str:
    """A model name from a file name: what may not stand in a URL or a metric label becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:_MOST_NAME] or "model"


def _plainer(error: ConfigError, path: Path | None) -> ConfigError:
    """The error about a file of examples in the operator's terms: no number of the system, no file for a model."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        why = (cause.strerror or "cannot be read").lower()
    else:
        why = str(cause).replace(f" for model '{path.name}'", "") if path is not None else str(cause)
    return ConfigError(f"examples: {path}: {why}", hint=error.hint)


def _limits(settings: ServeSettings) -> Limits:
    return Limits(
        body_bytes=settings.max_body_mb << 20,
        receiving_bytes=settings.max_receiving_mb << 20,
        url_bytes=settings.max_url_kb << 10,
        head_bytes=settings.max_headers_kb << 10,
        headers=settings.max_headers,
        header_timeout_s=settings.header_timeout_ms / 1000,
        body_timeout_s=settings.body_timeout_ms / 1000,
        keep_alive_s=settings.keep_alive_ms / 1000,
        write_timeout_s=settings.write_timeout_ms / 1000,
    )


def _leave() -> NoReturn:
    sys.stderr.flush()
    os._exit(0)


def _write_to_stderr(line: bytes) -> None:
    """Unbuffered, so that whoever follows the log sees a request when it ends."""
    with contextlib.suppress(OSError):  # a log that nobody can read is no reason to fail requests
        os.write(2, line)
