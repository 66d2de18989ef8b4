"""What would a fitted estimator take and give, by what its pickle or skops file holds? As `Estimator` finds it out.

Rules:
- Which methods a class has, only the class tells: so of outputs nothing is told, but for those that answer items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from paceline.inspection.report import Report, listed, tensors
from paceline.inspection.standins import Made, Many, Name, array_kind, array_texts, entries
from paceline.workers.python.boosters import real_names
from paceline.workers.python.estimators import KNOWN, PARTS, UNKNOWN, inputs_of
from paceline.workers.service import ITEMS

_MOST_PARTS: Final = 10_000
_ABOUT: Final = (("n_estimators", "trees"), ("n_outputs_", "outputs"), ("max_iter", "iterations at most"))
_ARRAYS: Final = ("numpy.", "joblib.numpy_pickle.")
_TEXTS: Final = "sklearn.feature_extraction.text."  # they count no columns


def describe(model: Made, report: Report) -> None:
    """Fill in what a report says of the object that comes out."""
    report.about["object"] = class_of(model)
    attributes = _state(model)
    made_with = attributes.get("_sklearn_version")
    if isinstance(made_with, str):
        report.made_by = f"scikit-learn {made_with}"
        report.versions["scikit-learn"] = made_with
    for key, shown in _ABOUT:
        value = attributes.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            report.about[shown] = value
    steps = [f"{name}: {class_of(part)}" for name, part in _steps(attributes)]
    if steps:
        report.about["steps"] = listed(steps)
    _about_tensors(model, report)


def class_of(value: Any) -> str:
    """The full name of an object's class; `?`: it is none that is known."""
    of = value.of if isinstance(value, Made) else value
    first = value.args[0] if isinstance(value, Made) and isinstance(value.args, tuple) and value.args else None
    # copyreg's helpers make an object of the class that they are given.
    if isinstance(of, Name) and of.module == "copyreg" and isinstance(first, Name):
        of = first
    return str(of) if isinstance(of, Name) else "?"


def _about_tensors(model: Made, report: Report) -> None:
    front = list(_front(model))
    count = next((_state(each)["n_features_in_"] for each in front if "n_features_in_" in _state(each)), None)
    names = next((_state(each)["feature_names_in_"] for each in front if "feature_names_in_" in _state(each)), None)
    parts = list(_parts(model))
    texts = [_takes_text(part) for part in parts]
    if class_of(front[-1]).startswith(_TEXTS):
        report.inputs, report.outputs = tensors(ITEMS.inputs), tensors(ITEMS.outputs)
    elif isinstance(count, int) and count > 0 and None not in texts:
        found = inputs_of(
            count,
            real_names(array_texts(names)),
            needs_frame=any("transformers_" in _state(part) or not _is_known(part) for part in parts),
            takes_text=True in texts,
        )
        report.inputs = tensors(found or ITEMS.inputs)
        report.outputs = None if found else tensors(ITEMS.outputs)


def _front(model: Any) -> Iterator[Any]:
    """The model, and what its columns are those of: the best one of a search, the first step of a pipeline."""
    for _ in range(_MOST_PARTS):
        yield model
        state = _state(model)
        inner = state.get("best_estimator_") or next((part for _, part in _steps(state)), None)
        if inner is None:
            return
        model = inner


def _parts(model: Made) -> Iterator[Made]:
    """An object, and the estimators that it is made of."""
    waiting, seen = [model], set[int]()
    while waiting and len(seen) < _MOST_PARTS:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        for name in PARTS:
            inner = _state(part).get(name)
            for each in entries(inner) or [inner]:
                # Pipelines and the like hold (name, part) or (name, part, columns).
                found = each[1] if isinstance(each, tuple) and len(each) > 1 else each
                if isinstance(found, Made) and not class_of(found).startswith(_ARRAYS):
                    waiting.append(found)


def _is_known(part: Made) -> bool:
    module, _, name = class_of(part).rpartition(".")
    return module.partition(".")[0] in KNOWN and name not in UNKNOWN


def _takes_text(part: Made) -> bool | None:
    """True for an encoder that was fitted on columns of text; None: it is an encoder, and does not tell."""
    kinds = [array_kind(each) for each in entries(_state(part).get("categories_"))]
    return None if None in kinds else any(kind in "OUS" for kind in kinds if kind)


def _steps(attributes: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    return [step for step in entries(attributes.get("steps")) if isinstance(step, tuple) and len(step) == 2]


def _state(value: Any) -> Mapping[str, Any]:
    return value.state.by_key if isinstance(value, Made) and isinstance(value.state, Many) else {}
