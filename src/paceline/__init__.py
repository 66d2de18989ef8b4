"""Paceline serves a model over HTTP with the lowest response time, and finds the settings by measuring."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paceline.core.errors import DeadlineExceeded, Overloaded, PacelineError
    from paceline.library.batched import batched
    from paceline.library.cached import cached

__version__ = "0.1.0"

__all__ = ["DeadlineExceeded", "Overloaded", "PacelineError", "__version__", "batched", "cached"]

_FROM = {
    "batched": "paceline.library.batched",
    "cached": "paceline.library.cached",
    "DeadlineExceeded": "paceline.core.errors",
    "Overloaded": "paceline.core.errors",
    "PacelineError": "paceline.core.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: `paceline --help` needs none of it."""
    if name not in _FROM:
        raise AttributeError(f"module 'paceline' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_FROM[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
