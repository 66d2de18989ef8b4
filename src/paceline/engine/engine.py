"""Which models are there, and in what state? Protocols ask here for the model that a request names."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from paceline.core.errors import ModelNotFound, ModelNotReady
from paceline.core.tensors import Signature
from paceline.engine.model import ServedModel


class Phase(enum.Enum):
    """Where a model version is in its life, in TensorFlow Serving's words."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    FAILED = "END"
    UNLOADING = "UNLOADING"


@dataclass
class Entry:
    """One version of a model.

    Attributes:
        served: set once it is warm.
        reason: why it is not available, for people.
        signature: as far as it is known: the file's before warm-up.
    """

    name: str
    version: str
    platform: str
    signature: Signature
    phase: Phase = Phase.LOADING
    reason: str = "loading"
    served: ServedModel | None = None


class Engine:
    """The models of this server."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._default: str | None = None

    def add(self, entry: Entry) -> None:
        """Register a version. The first model is what routes without a name mean."""
        self._entries.setdefault(entry.name, {})[entry.version] = entry
        self._default = self._default or entry.name

    def opened(self, entry: Entry, served: ServedModel) -> None:
        """Its warm-up is over: requests may come."""
        entry.served = served
        entry.signature = served.signature
        entry.phase, entry.reason = Phase.AVAILABLE, ""

    def entries(self) -> list[Entry]:
        """Every version of every model."""
        return [entry for versions in self._entries.values() for entry in versions.values()]

    def names(self) -> list[str]:
        """Names of all models."""
        return list(self._entries)

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        return sorted(self._entries.get(name, ()), key=int)

    def entry(self, name: str | None = None, version: str | None = None) -> Entry:
        """The version asked for; the latest when none is named; the default model when no name is.

        Raises:
            ModelNotFound: there is none.
        """
        versions = self._entries.get(name or self._default or "")
        if not versions:
            raise ModelNotFound(f"Request for unknown model: '{name}' is not found", model=name)
        if version is None:
            return versions[max(versions, key=int)] if len(versions) > 1 else next(iter(versions.values()))
        found = versions.get(version)
        if found is None:
            raise ModelNotFound(f"Request for unknown model: '{name}' version {version} is not found", model=name)
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

    @property
    def ready(self) -> bool:
        """True when every model is available."""
        return bool(self._entries) and all(entry.phase is Phase.AVAILABLE for entry in self.entries())

    @property
    def idle(self) -> bool:
        """True when no model has a request waiting or running."""
        return all(entry.served is None or entry.served.idle for entry in self.entries())

    def close(self) -> None:
        """Stop all instances."""
        for entry in self.entries():
            if entry.served is not None:
                entry.served.close()
