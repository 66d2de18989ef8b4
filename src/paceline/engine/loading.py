"""How does a version come into service, and how does the one before it go?

Rules:
- A file is read and warmed up on a thread; the event loop serves meanwhile.
- A version that cannot be loaded changes nothing but what is said of it.
- A version that is replaced finishes what it has begun; then it is closed, and its memory is returned to the system.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from paceline import __version__
from paceline.config.settings import Found, ServeSettings
from paceline.core.errors import ConfigError
from paceline.core.tensors import Tensors
from paceline.engine.bundled import Unpacked, unpack
from paceline.engine.engine import Engine, Entry
from paceline.engine.examples import from_file, from_items
from paceline.engine.fingerprint import fingerprint
from paceline.engine.hosted import HostedModel, say_of
from paceline.engine.items import ItemsModel
from paceline.engine.model import ServedModel
from paceline.engine.pool import Limits
from paceline.engine.prediction_cache import MemoryCache
from paceline.engine.redis_cache import RedisCache, connect
from paceline.engine.service_warmup import PreparedService, prepare_service
from paceline.engine.warmup import Prepared, Wishes, prepare
from paceline.runtimes.base import LoadedModel, load
from paceline.runtimes.bundle import is_bundle
from paceline.runtimes.options import RuntimeOptions
from paceline.workers.service import Options, ServiceModel, Source, is_service

# A request has a deadline of a day at most, but a batch can hang; then its memory is not ours to return.
_PATIENCE_S = 24 * 3600.0
_POLL_S = 0.02
# What has ended a request a moment ago may hold its model for a pass of the event loop or two.
_LET_GO_S = 1.0


@dataclass(frozen=True)
class Read:
    """A version read from its file, not yet warm.

    Attributes:
        given: example inputs of the operator, or of the bundle.
        fingerprint: of the code, where predictions are kept that outlive this process.
        bundle: what the bundle holds that it comes from, for people; empty: it comes from none.
        warnings: about the bundle, for people.
    """

    loaded: LoadedModel | ServiceModel
    given: Tensors | None
    settings: ServeSettings
    fingerprint: str = ""
    bundle: str = ""
    warnings: tuple[str, ...] = ()


def read(
    file: Path,
    settings: ServeSettings,
    given: Callable[[LoadedModel], Tensors | None] | None = None,
    name: str = "model",
    beside: Mapping[str, Found] = MappingProxyType({}),
) -> Read:
    """Read a model file or folder, a bundle, or the code of a service; and the examples that belong to it. Blocks.

    Args:
        name: of the model.
        given: example inputs from elsewhere than the settings' file, which wins; they win over a bundle's.
        beside: settings from files beside the model; they win over a bundle's.

    Raises:
        ModelLoadError, RuntimeUnavailable, ConfigError.
    """
    if not is_bundle(file):
        return _read(file, settings.for_model(name, beside), given, name, RuntimeOptions())
    bundle: Unpacked = unpack(file)
    settings = settings.for_model(name, {**bundle.found, **beside})
    what = _read(bundle.file, settings, given, name, bundle.options)
    what = replace(what, bundle=bundle.says, warnings=bundle.warnings)
    return _with_example(what, bundle.example) if what.given is None and bundle.example else what


def _read(
    file: Path,
    settings: ServeSettings,
    given: Callable[[LoadedModel], Tensors | None] | None,
    name: str,
    options: RuntimeOptions,
) -> Read:
    options = msgspec.structs.replace(options, runtime=settings.runtime, precision=settings.precision)
    if is_service(file):
        _check_no_runtime(file, settings)
        source, made_by = Source.parse(file), ""
        if settings.cache not in ("none", "memory"):
            connect(settings.cache)  # what is wrong with it shows now
            made_by = fingerprint(source.path, source.name)
        service = ServiceModel(source, name, _options(settings))
        try:
            return Read(service, _examples(settings.examples, service), settings, made_by)
        except BaseException:
            service.close()
            raise
    loaded = load(file, options)
    inputs = _examples(settings.examples, loaded)
    if inputs is None and given is not None:
        inputs = given(loaded)
    return Read(loaded, inputs, settings)


class Loader:
    """Brings versions into the engine, and takes them out.

    Args:
        cores: whole cores that this process may use. Each model is set up as if it had them alone: models share
            them, for which is busy when, nobody knows beforehand.
        alone: says whether there is at most one client.
        say: told what happens to workers, line by line.
    """

    def __init__(
        self, engine: Engine, cores: int, alone: Callable[[], bool], say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._engine = engine
        self._cores = cores
        self._alone = alone
        self._say = say
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self, entry: Entry, what: Read, like: Prepared | None = None) -> Prepared:
        """Warm a version up, and send its requests to it from then on.

        Args:
            like: of a version that serves now and whose settings this one may keep.

        Raises:
            ModelFailed: no input could be found that the model accepts.
        """
        settings, served = what.settings, entry.served
        if served is None:
            entry.platform, entry.signature = what.loaded.platform, what.loaded.signature
        wishes = Wishes(
            settings.max_batch_size, settings.instances, settings.threads, settings.warmup_s, settings.origins
        )
        prepared: Prepared
        if isinstance(what.loaded, ServiceModel):
            limits = _limits(settings)
            hosted = await asyncio.to_thread(prepare_service, what.loaded, self._cores, wishes, what.given, limits)
            for warning in hosted.warnings:
                self._say(f"{entry.name}: warning: {warning}")
            prepared = hosted
        else:
            prepared = await asyncio.to_thread(prepare, what.loaded, self._cores, wishes, what.given, like)
        entry.platform, entry.bundle, entry.warnings = what.loaded.platform, what.bundle, what.warnings
        model = self._served(entry, prepared, what)
        if served is not None:
            # The same version to whoever watches: what has been counted stays counted.
            model.telemetry = served.telemetry
        before = self._engine.opened(entry, model)
        if before is not None:
            self._let_go(before)
        return prepared

    def unload(self, entry: Entry) -> None:
        """Take a version out of service; it is gone when it has finished what it began."""
        served = self._engine.unloading(entry)
        if served is None:
            self._engine.remove(entry)
        else:
            self._let_go(served, entry)

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._leaving:
            task.cancel()

    def _served(self, entry: Entry, prepared: Prepared, what: Read) -> ServedModel:
        settings = what.settings
        options: dict[str, Any] = {
            "nonfinite": settings.nonfinite,
            "max_queue_requests": settings.max_queue_requests,
            "max_queue_bytes": settings.max_queue_mb << 20,
            "max_queue_delay_s": settings.max_queue_delay_ms / 1000,
            "alone": self._alone,
        }
        cache = self._cache(entry, prepared, what)
        if not isinstance(prepared, PreparedService):
            return ServedModel(entry.name, entry.version, prepared, **options)
        options |= {
            "limits": _limits(settings),
            "retry_lost": settings.retry_lost,
            "say": self._say,
            "on_available": self._engine.availability_changed,
        }
        if not prepared.signature.items:
            return HostedModel(entry.name, entry.version, prepared, **options)
        options |= {"deduplicate": settings.deduplicate, "cache": cache}
        return ItemsModel(entry.name, entry.version, prepared, **options)

    def _cache(self, entry: Entry, prepared: Prepared, what: Read) -> MemoryCache | RedisCache | None:
        settings = what.settings
        if settings.cache == "none":
            return None
        if not isinstance(prepared, PreparedService) or not prepared.signature.items:
            self._say(f"{entry.name}: cache: nothing is kept, for only predictions of items are, and these are tensors")
            return None
        about = prepared.service.about
        if about.raw or not about.deterministic:
            self._say(f"{entry.name}: cache: nothing is kept, for equal items need not have equal predictions")
            return None
        if settings.cache == "memory":
            return MemoryCache(settings.cache_mb << 20, settings.cache_ttl_s)
        scope = (__version__, entry.name, entry.version, what.fingerprint, settings.nonfinite)
        say = partial(say_of, self._say, entry.name)
        return RedisCache(connect(settings.cache), scope, settings.cache_ttl_s, say)

    def _let_go(self, served: ServedModel, entry: Entry | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._leave([served], entry))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, held: list[ServedModel], entry: Entry | None) -> None:
        await _until(lambda: held[0].idle, _PATIENCE_S)
        if entry is not None:
            self._engine.remove(entry)
        if not held[0].idle:
            return
        held[0].close()
        gone = weakref.ref(held.pop())
        await _until(lambda: gone() is None, _LET_GO_S)
        if gone() is None:
            await asyncio.to_thread(_return_memory)
        else:
            await free_memory()


async def free_memory() -> None:
    """Free what only refers to itself, and hand all that is free back to the system."""
    await asyncio.sleep(_POLL_S)  # a thread that has told of an error lets go of it a moment later
    gc.collect()
    await asyncio.to_thread(_return_memory)


async def _until(condition: Callable[[], bool], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110 (nobody says when a model has become idle)
        await asyncio.sleep(_POLL_S)


def _check_no_runtime(file: Path, settings: ServeSettings) -> None:
    """Refuse what somebody has asked for of this model, and would not get."""
    for name in ("runtime", "precision"):
        if settings.origin(name).startswith(("flag ", "env ")):
            raise ConfigError(f"{name} ({settings.origin(name)}): {file} is run by worker processes, not by a runtime")


def _options(settings: ServeSettings) -> Options:
    return Options(
        setup_timeout_s=settings.setup_timeout_s,
        fetch_concurrency=settings.fetch_concurrency,
        max_batch_rows=settings.max_batch_size,
        allow_pickle=settings.allow_pickle,
        nonfinite=settings.nonfinite,
    )


def _limits(settings: ServeSettings) -> Limits:
    memory_mb = settings.worker_memory_mb
    return Limits(
        run_s=(settings.run_timeout_ms or settings.timeout_ms) / 1000,
        memory_bytes=None if memory_mb is None else memory_mb << 20,
    )


def _with_example(what: Read, item: bytes) -> Read:
    """With a bundle's own example; where it does not fit, that is said, and one is made up."""
    try:
        return replace(what, given=from_items([item], what.loaded.signature))
    except ConfigError as error:
        return replace(what, warnings=(*what.warnings, f"bundle: its {error.message}"))


def _examples(path: Path | None, loaded: LoadedModel | ServiceModel) -> Tensors | None:
    try:
        return None if path is None else from_file(path, loaded.signature)
    except ConfigError as error:
        raise _plainer(error, path) from error


def _plainer(error: ConfigError, path: Path | None) -> ConfigError:
    """The error about a file of examples in the operator's terms: no number of the system, no file for a model."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        why = (cause.strerror or "cannot be read").lower()
    else:
        why = str(cause).replace(f" for model '{path.name}'", "") if path is not None else str(cause)
    return ConfigError(f"examples: {path}: {why}", hint=error.hint)


def _return_memory() -> None:
    """Hand free memory back to the system: glibc keeps what is not at the end of a heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
