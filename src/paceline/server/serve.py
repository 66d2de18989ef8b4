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
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from paceline.config.machine import usable_cores, usable_memory_bytes
from paceline.config.settings import ServeSettings
from paceline.engine.engine import Engine
from paceline.engine.loading import Loader
from paceline.server.app import App
from paceline.server.http_request import Limits
from paceline.server.listener import Listener, allow_connections
from paceline.server.metrics import families
from paceline.server.models import models_at
from paceline.server.panel import show_fewer_connections, show_line, show_live
from paceline.server.protocols import all_methods, all_routes, preload
from paceline.server.shared_repository import SharedRepository
from paceline.server.supervised import Supervised
from paceline.supervisor.addresses import shown
from paceline.supervisor.merging import METRICS, Families, of_the_past
from paceline.workers import launch

_T = TypeVar("_T")

# The limit counts what is reserved and never touched as well, such as 8 MiB for the stack of each thread.
_RESERVED_BYTES: Final = 1 << 30
# What user code may do when its process ends.
_WORKERS_END_S: Final = 1.0


def serve(
    model_path: Path, settings: ServeSettings, *, as_json: bool = False, supervised: Supervised | None = None
) -> int:
    """Serve a model until a signal says stop; the process's exit code.

    Args:
        as_json: once it is ready, write what the panel shows to stdout as one JSON document.
        supervised: the supervisor, when this process is one of its replicas.

    Raises:
        ModelLoadError, RuntimeUnavailable, AddressUnavailable, ConfigError: it could not start.
    """
    import numpy as np
    import uvloop

    # A number past its type is refused where it is read: numpy need not warn about it on stderr as well.
    np.seterr(over="ignore")
    _limit_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Server(model_path, settings, as_json, supervised).run())


class _Server:
    """Signals, listeners and the drain; what is served is the business of `models`."""

    def __init__(self, model_path: Path, settings: ServeSettings, as_json: bool, supervised: Supervised | None) -> None:
        self._as_json = as_json
        self._supervised = supervised
        self._settings = settings
        self._engine = Engine()
        self._app = App(
            self._engine,
            _limits(settings),
            timeout_s=settings.timeout_ms / 1000,
            debug=settings.debug,
            log=_write_to_stderr if settings.access_log else None,
        )
        self._app.supervised = supervised
        self._app.held_back = supervised is not None
        cores = usable_cores() if supervised is None else usable_cores().shared_by(supervised.replicas)
        self._loader = Loader(self._engine, cores.whole, alone=lambda: self._app.alone, say=self._say)
        self._models = models_at(model_path, settings, self._engine, self._loader, cores, self._say)
        self._app.repository = self._models.repository
        if supervised is not None:
            supervised.answers(METRICS, self._metrics)
            if self._models.repository is not None:
                self._app.repository = SharedRepository(self._models.repository, supervised)
        self._stop = asyncio.Event()
        self._retires = False
        self._interrupts = 0

    async def run(self) -> int:
        """The whole life."""
        started = time.monotonic()
        self._watch_signals()
        if self._supervised is not None:
            self._supervised.listen(self)
        names = await self._until_stopped(self._models.read())
        self._app.mount(all_routes(self._app, self._settings))
        self._app.grpc.mount_later(partial(all_methods, self._app, self._settings))
        connections = allow_connections(self._settings.max_connections)
        self._listener = listener = Listener(self._app, connections)
        address = await self._listen(names)
        if connections < self._settings.max_connections and self._speaks:
            show_fewer_connections(connections, self._settings)
        try:
            await self._until_stopped(self._load(address, started))
            preloading = asyncio.ensure_future(asyncio.to_thread(preload))
            watching = asyncio.ensure_future(self._models.watch())
            await self._stop.wait()
            await preloading
            watching.cancel()
        finally:
            await self._drain(listener)
        return 0

    async def _load(self, address: str, started: float) -> None:
        await self._models.load()
        self._show = partial(self._models.show, address, time.monotonic() - started, self._as_json)
        if self._supervised is None:
            self._show()
        else:
            self._report_ready()

    @property
    def _speaks(self) -> bool:
        return self._supervised is None or self._supervised.speaks

    async def _listen(self, names: list[str]) -> str:
        """Open the ports; the address of the first."""
        settings, supervised = self._settings, self._supervised
        if supervised is None:
            addresses = [await self._listener.open(settings.host, settings.port)]
            if settings.grpc_port is not None:
                addresses.append(await self._listener.open(settings.host, settings.grpc_port, "--grpc-port"))
        else:
            own = supervised.sockets[supervised.slot]
            addresses = list(dict.fromkeys(shown(sock) for sock in own))
            if supervised.first:
                await self._accept(own)
        if self._speaks:
            show_live(names, addresses[0], settings)
            if settings.grpc_port is not None:
                show_line(f"live on {addresses[-1]}, too (grpc_port: {settings.origin('grpc_port')})")
        return addresses[0]

    def _say(self, text: str) -> None:
        show_line(text if self._supervised is None else f"replica {self._supervised.slot}: {text}")

    async def _metrics(self, _: object) -> Families:
        return families(self._app)

    # -- what the supervisor says -----------------------------------------------------------------------------

    def _report_ready(self) -> None:
        """Tell the supervisor once all models are warm."""
        supervised, engine = self._supervised, self._engine
        assert supervised is not None
        if engine.ready:
            engine.on_change.discard(self._report_ready)
            supervised.ready(self._settings.lame_duck_ms / 1000, self._settings.grace_ms / 1000)
        elif self._report_ready not in engine.on_change:
            engine.on_change.add(self._report_ready)
            reasons = [f"'{entry.name}' version {entry.version}: {entry.reason}" for entry in engine.entries()]
            known = "; ".join(reason for reason in reasons if not reason.endswith(": "))
            supervised.problem(known or "not every model is ready")

    def go(self) -> None:
        """Take part."""
        supervised = self._supervised
        assert supervised is not None
        self._app.take_part()
        if supervised.speaks:
            self._show()
        if not supervised.first:
            self.adopt(supervised.slot)

    def adopt(self, slot: int) -> None:
        """Accept what comes to a slot."""
        assert self._supervised is not None
        if not self._stop.is_set():
            self._accepting = asyncio.ensure_future(self._accept(self._supervised.sockets[slot]))

    async def _accept(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            await self._listener.accept_from(sock)

    def release(self, slot: int) -> None:
        """Leave a slot to its own process."""
        assert self._supervised is not None
        for sock in self._supervised.sockets[slot]:
            self._listener.stop_accepting_from(sock)

    def leave(self, *, retire: bool) -> None:
        """Drain and end."""
        self._retires = retire
        self._stop.set()

    # -- stopping ---------------------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        if self._supervised is None:
            loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _interrupted(self) -> None:
        self._interrupts += 1
        self._stop.set()
        if self._interrupts > 1:
            launch.end_all(0.0)
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
        settings, supervised = self._settings, self._supervised
        self._app.drain()
        if supervised is not None:
            supervised.draining()
        if self._retires:
            if supervised is not None:
                supervised.close_ports()
            await listener.retired(settings.grace_ms / 1000)
        else:
            await asyncio.sleep(settings.lame_duck_ms / 1000)
            listener.stop_accepting()
            if supervised is not None:
                supervised.close_ports()
            await listener.drained(settings.grace_ms / 1000)
        if supervised is not None:
            supervised.ended(of_the_past(families(self._app)))
        self._loader.close()
        self._engine.close()
        # The end has begun: a signal that comes late must not turn the exit code into its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        launch.end_all(_WORKERS_END_S)
        if not self._engine.idle:
            # A batch outlived the grace time. The runtime must not be taken down under the thread that runs it.
            _leave()


def _limit_memory() -> None:
    """Refuse what no memory is there for: one load or batch fails, where else the kernel would end the process."""
    memory = usable_memory_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = (memory or 0) + _RESERVED_BYTES
    if memory is not None and (soft == resource.RLIM_INFINITY or soft > wanted):
        with contextlib.suppress(OSError, ValueError):  # a hard limit below it does as well
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


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
        streams=settings.max_concurrent_streams,
    )


def _leave() -> NoReturn:
    launch.end_all(0.0)
    sys.stderr.flush()
    os._exit(0)


def _write_to_stderr(line: bytes) -> None:
    """Unbuffered, so that whoever follows the log sees a request when it ends."""
    with contextlib.suppress(OSError):  # a log that nobody can read is no reason to fail requests
        os.write(2, line)
