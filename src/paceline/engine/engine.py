"""Which models are there, and in what state? Protocols ask here for the model that a request names.

Rules:
- Without a version a request means the latest that is available, and only when none is, the latest. What that is
  is worked out when something changes, so that a request costs one look-up.
- A version that is loaded again serves on, under the same entry, until the new one takes its place.
- The server is ready once nothing is loading and every model has a version that is available. From then on it stays
  so: what comes later and fails, or is still loading, is no reason to send nothing to the models that serve. A model
  whose workers are all gone is one: until one of them is back, the server is not ready.
- Whoever wants to know of changes puts a callback into `on_change`.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakSet

from paceline.core.errors import InvalidRequest, ModelNotFound, ModelNotReady
from paceline.core.tensors import Signature
from paceline.engine.model import ServedModel

_UNKNOWN = Signature((), (), batched=False)

_MOST_NAMED = 20


class Phase(enum.Enum):
    """Where a model version is in its life, in TensorFlow Serving's words."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    FAILED = "END"
    UNLOADING = "UNLOADING"


@dataclass(eq=False)
class Entry:
    """One version of a model.

    Attributes:
        platform: empty until the file has been read.
        signature: as far as it is known: without tensors at first, the file's during the warm-up.
        served: set while it is available.
        reason: why it is not available, or why it could not be replaced; for people.
        bundle, warnings: what the optimizer's bundle holds that it comes from, and what is not as it was measured.
    """

    name: str
    version: str
    platform: str = ""
    signature: Signature = _UNKNOWN
    phase: Phase = Phase.LOADING
    reason: str = "loading"
    served: ServedModel | None = None
    bundle: str = ""
    warnings: tuple[str, ...] = ()


class Engine:
    """The models of this server.

    Attributes:
        on_change: called after a version has come, gone, or changed its phase.
        loads: (model, `ok` or `failed`) -> how often a version was loaded.
        may_be_empty: ready without a model, because models come by request.
    """

    def __init__(self) -> None:
        self.on_change: set[Callable[[], object]] = set()
        self.loads: Counter[tuple[str, str]] = Counter()
        self.may_be_empty = False
        self._entries: dict[str, dict[str, Entry]] = {}
        self._labels: dict[str, Mapping[str, str]] = {}
        # Who answers for a name; None stands for the only model.
        self._latest: dict[str | None, Entry] = {}
        # Replaced or unloaded, and perhaps not done yet.
        self._leaving: WeakSet[ServedModel] = WeakSet()
        self._was_ready = False

    # -- changes ----------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Register a version."""
        self._entries.setdefault(entry.name, {})[entry.version] = entry
        self._changed()

    def opened(self, entry: Entry, served: ServedModel) -> ServedModel | None:
        """Its warm-up is over: requests may come. The model that served them before, to be let go."""
        before = self._leave(entry)
        entry.served = served
        entry.signature = served.signature
        entry.phase, entry.reason = Phase.AVAILABLE, ""
        self.loads[entry.name, "ok"] += 1
        self._changed()
        return before

    def failed(self, entry: Entry, reason: str) -> None:
        """It could not be loaded. If it was served before, it still is."""
        if entry.served is None:
            entry.phase = Phase.FAILED
        entry.reason = reason
        self.loads[entry.name, "failed"] += 1
        self._changed()

    def unloading(self, entry: Entry) -> ServedModel | None:
        """No further request may come. The model that has some left, to be let go."""
        before = self._leave(entry)
        entry.phase, entry.reason = Phase.UNLOADING, "unloading"
        self._changed()
        return before

    def remove(self, entry: Entry) -> None:
        """Forget a version; without versions, the model."""
        versions = self._entries.get(entry.name, {})
        if versions.get(entry.version) is entry:
            del versions[entry.version]
        if not versions:
            self._entries.pop(entry.name, None)
            self._labels.pop(entry.name, None)
        self._changed()

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        """Set the labels of a model: label -> version."""
        self._labels[name] = dict(labels)

    # -- questions --------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Every version of every model."""
        return [entry for versions in self._entries.values() for entry in versions.values()]

    def names(self) -> list[str]:
        """Names of all models."""
        return list(self._entries)

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        return sorted(self._entries.get(name, ()), key=int)

    def available(self, name: str) -> list[str]:
        """Versions of a model that take requests, oldest first."""
        return [version for version in self.versions(name) if self._entries[name][version].served is not None]

    def entry(self, name: str | None = None, version: str | None = None) -> Entry:
        """The version asked for; the latest when none is named; the only model when no name is.

        Raises:
            ModelNotFound: there is none.
            InvalidRequest: no name is given, and there are several.
        """
        latest = self._latest.get(name or None)
        if latest is None:
            if not name and self._entries:
                names = ", ".join(sorted(self._entries)[:_MOST_NAMED])
                raise InvalidRequest(f"several models are served, and the request names none of them: {names}")
            raise ModelNotFound(f"Request for unknown model: '{name or ''}' is not found", model=name)
        if version is None or version == latest.version:
            return latest
        found = self._entries[latest.name].get(version)
        if found is None:
            raise ModelNotFound(
                f"Request for unknown model: '{latest.name}' version {version} is not found", model=latest.name
            )
        return found

    def model(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The warm model to send requests to.

        Raises:
            ModelNotFound, ModelNotReady.
        """
        entry = self.entry(name, version)
        if entry.served is None:
            raise ModelNotReady(f"model '{entry.name}' is not ready: {entry.reason}", model=entry.name)
        return entry.served

    def labelled(self, name: str, label: str) -> str:
        """The version that a label stands for.

        Raises:
            InvalidRequest: the model has no such label, or the version is not available; in TensorFlow Serving's words.
        """
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise InvalidRequest(f"Unrecognized servable version label: {label}", model=name)
        found = self._entries.get(name, {}).get(version)
        if found is None or found.served is None:
            raise InvalidRequest(
                f"label {label} of model {name} points to version {version}, "
                "which is not currently available for inference",
                model=name,
            )
        return version

    @property
    def ready(self) -> bool:
        """True once every model has a version that is available."""
        if not self._latest:
            return self.may_be_empty
        return self._was_ready and all(served.available for served in self._served())

    @property
    def idle(self) -> bool:
        """True when no model has a request waiting or running, be it one that is not served any more."""
        return all(served.idle for served in self._all())

    def close(self) -> None:
        """Stop all instances."""
        for served in self._all():
            served.close()

    def availability_changed(self) -> None:
        """The workers of a model have all gone, or the first is back."""
        for callback in tuple(self.on_change):
            callback()

    def _served(self) -> list[ServedModel]:
        return [entry.served for entry in self.entries() if entry.served is not None]

    def _all(self) -> list[ServedModel]:
        return [*self._leaving, *self._served()]

    def _leave(self, entry: Entry) -> ServedModel | None:
        before, entry.served = entry.served, None
        if before is not None:
            self._leaving.add(before)
        return before

    def _changed(self) -> None:
        self._latest = {}
        for name, versions in self._entries.items():
            available = [entry for entry in versions.values() if entry.phase is Phase.AVAILABLE]
            latest = max(available or versions.values(), key=lambda entry: int(entry.version))
            self._latest[name] = latest
        if len(self._entries) == 1:
            self._latest[None] = latest
        every_model = all(entry.phase is Phase.AVAILABLE for entry in self._latest.values())
        loading = any(entry.phase is Phase.LOADING for entry in self.entries())
        if self._latest and every_model and not loading:
            self._was_ready = True
        for callback in tuple(self.on_change):
            callback()
