"""How does a model come out of a pickle? Only when the operator allows it, and only in a worker.

Rules:
- To unpickle is to run whatever code the file holds. Without `--allow-pickle` nothing of it is read, not even to look.
- A `.skops` file says which types it holds before any of them is made. Those of scikit-learn and numpy are made; others
  are named, and refused without `--allow-pickle`.
- What another version of scikit-learn has written is served, and said: its predictions may be others.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import ModelLoadError, RuntimeUnavailable, UnsafeModel
from paceline.workers.python.advice import MADE_IN_SCRIPT
from paceline.workers.python.arguments import Arguments
from paceline.workers.python.estimators import Estimator, service_of
from paceline.workers.python.service import Service, TensorService

_ALLOW: Final = "give --allow-pickle, if it comes from people whose code you would run"
_MOST_NAMED: Final = 5


def recognise(path: Path, arguments: Arguments) -> Service | TensorService:
    """The model in a file that is a pickle by its name.

    Raises:
        UnsafeModel: it could run any code, and that is not allowed.
        ModelLoadError: it cannot be read, or holds nothing that predicts.
        RuntimeUnavailable: what it needs is not installed.
    """
    found, notes = read(path, arguments.allow_pickle)
    for note in notes:
        print(f"paceline: {arguments.model}: {note}", file=sys.stderr, flush=True)  # noqa: T201 (it is the log)
    return service_of(Estimator(found), notes)


def read(path: Path, allowed: bool) -> tuple[Any, list[str]]:
    """The object with a `predict` in a file, and what there is to say about it.

    Args:
        allowed: it may run any code.

    Raises:
        As `recognise` does.
    """
    reads = _read_skops if path.suffix.lower() == ".skops" else _read_pickle
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            found = reads(path, allowed)
        except (UnsafeModel, RuntimeUnavailable):
            raise
        except Exception as error:  # a pickle is a program: it can fail in any way
            raise _load_error(path, error) from error
    if not callable(getattr(found, "predict", None)):
        raise ModelLoadError(
            f"{path.name}: expected an object that has predict, got {type(found).__name__}",
            hint="write a class with a method predict that loads it, and serve that",
        )
    return found, _said(path, raised)


def _read_pickle(path: Path, allowed: bool) -> Any:
    if not allowed:
        raise UnsafeModel(f"{path.name}: a pickle runs whatever code it holds when it is loaded", hint=_ALLOW)
    # What was defined in a module beside the model is imported from there.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        import joblib
    except ImportError:
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 (the operator has allowed it)
    return joblib.load(path)


def _read_skops(path: Path, allowed: bool) -> Any:
    try:
        from skops import io
    except ImportError:
        raise RuntimeUnavailable(
            f"{path.name}: skops is not installed", hint="pip install 'paceline[sklearn]'"
        ) from None
    unknown = io.get_untrusted_types(file=path)
    if unknown and not allowed:
        named = ", ".join(unknown[:_MOST_NAMED]) + (", ..." if len(unknown) > _MOST_NAMED else "")
        raise UnsafeModel(f"{path.name}: holds types that are not known to be harmless: {named}", hint=_ALLOW)
    if unknown:
        sys.path.insert(0, str(path.resolve().parent))
    return io.load(path, trusted=unknown)


def _load_error(path: Path, error: Exception) -> ModelLoadError | RuntimeUnavailable:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = {"sklearn": "'paceline[sklearn]'"}.get(error.name.partition(".")[0], error.name.partition(".")[0])
        return RuntimeUnavailable(
            f"{path.name}: needs {error.name}, which is not installed", hint=f"pip install {package}"
        )
    hint = None
    if isinstance(error, AttributeError) and "__main__" in str(error):
        hint = MADE_IN_SCRIPT
    return ModelLoadError(f"{path.name}: cannot be loaded: {type(error).__name__}: {error}", hint=hint)


def _said(path: Path, raised: list[warnings.WarningMessage]) -> list[str]:
    """What the library warned of, once each; about versions, in a line for all estimators together."""
    said: dict[str, None] = {}
    for each in raised:
        made, here = (
            getattr(each.message, name, None) for name in ("original_sklearn_version", "current_sklearn_version")
        )
        if made is not None:
            said[f"{path.name} was made with scikit-learn {made}, and this is {here}: predictions may differ"] = None
        elif not issubclass(each.category, DeprecationWarning):
            said[f"{path.name}: {each.message}"] = None
    return list(said)
