"""By which measure are two models compared, and which one fits what this model answers?

Rules:
- Metrics with labels measure against what is true, the others against what the original says.
- A single column of numbers, and columns that are no probabilities and are not called so, are numbers: what is measured
  strictly where it need not be loses speed, and never quality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import against_labels, against_original, answers
from paceline.optimize.judging.answers import Outputs
from paceline.optimize.judging.paired import LABELS, Comparison

_EMBEDDING_WORDS: Final = ("embed", "hidden", "pool", "sentence", "feature")


@dataclass(frozen=True)
class Metric:
    """A way to compare models.

    Attributes:
        name: as `--metric` has it.
        title: in sentences.
        labelled: it needs to know what is true.
        falls: worse is less.
        in_points: a drop of 1 % is one of 0.01; else one of a hundredth of the original's value.
        interval: of the difference; `paired` and `share` are of rows that are right or wrong, `rates` is of numbers
            between 0 and 1 that few rows decide.
    """

    name: str
    title: str
    labelled: bool
    compare: Callable[[Outputs, Outputs, Rows], Comparison]
    falls: bool = True
    in_points: bool = True
    interval: Literal["bootstrap", "rates", "paired", "share"] = "bootstrap"

    @property
    def counts(self) -> bool:
        """Rows are right or wrong, so that few of them tell something."""
        return self.interval in ("paired", "share")


def named(name: str, *, labelled: bool) -> Metric:
    """The metric of that name.

    Raises:
        ConfigError: there is none, or it needs labels that are not there.
    """
    found = METRICS.get(name)
    if found is None:
        raise ConfigError(f"unknown metric {name!r}", hint=f"one of {', '.join(METRICS)}")
    if found.labelled and not labelled:
        raise ConfigError(f"the metric {name} needs labels", hint=LABELS)
    return found


def choose(outputs: Outputs, rows: Rows) -> Metric:
    """The metric that fits what the original answers, and what is known.

    Raises:
        ConfigError: there are no answers that could be compared.
    """
    if not outputs or rows.count == 0:
        raise ConfigError("the model answers nothing that could be compared")
    return METRICS[_with_labels(outputs, rows.labels) if rows.labels is not None else _without(outputs)]


def _with_labels(outputs: Outputs, labels: Array) -> str:
    if answers.find_classes(outputs):
        return "accuracy"
    scores = answers.find_scores(outputs)
    classes = labels.ndim == 1 and answers.are_classes(labels)
    if scores is None or not classes:
        return "rmse"
    if scores.form == "second":
        return "accuracy" if len(np.unique(labels)) <= 2 else "rmse"
    return "accuracy"


def _without(outputs: Outputs) -> str:
    if answers.find_classes(outputs):
        return "agreement"
    for name in answers.find_numbers(outputs):
        array = outputs[name]
        if answers.are_probabilities(array) or (array.ndim == 2 and answers.is_called_scores(name)):
            return "agreement"
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] > 1 and _is_embedding(name, array)):
            return "cosine"
    return "relative_error"


def _is_embedding(name: str, array: Array) -> bool:
    lengths = np.linalg.norm(array.astype(np.float64), axis=1)
    return any(word in name.lower() for word in _EMBEDDING_WORDS) or bool(np.allclose(lengths, 1.0, atol=1e-3))


def _beside(compare: Callable[[Outputs, Outputs], Comparison]) -> Callable[[Outputs, Outputs, Rows], Comparison]:
    return lambda old, new, _: compare(old, new)


_ALL: Final = (
    Metric("accuracy", "accuracy", True, against_labels.accuracy, interval="paired"),
    Metric("f1", "F1", True, against_labels.f1("auto")),
    Metric("f1_macro", "macro F1", True, against_labels.f1("macro")),
    Metric("roc_auc", "ROC AUC", True, against_labels.roc_auc, interval="rates"),
    Metric("log_loss", "log loss", True, against_labels.log_loss, falls=False, in_points=False),
    Metric("rmse", "RMSE", True, against_labels.rmse, falls=False, in_points=False),
    Metric("mae", "MAE", True, against_labels.mae, falls=False, in_points=False),
    Metric("r2", "R2", True, against_labels.r2),
    Metric("agreement", "agreement", False, _beside(against_original.agreement), interval="share"),
    Metric("relative_error", "relative error", False, _beside(against_original.relative_error), falls=False),
    Metric("cosine", "cosine similarity", False, _beside(against_original.cosine)),
)

METRICS: Final[Mapping[str, Metric]] = {each.name: each for each in _ALL}
"""By the name that `--metric` takes."""
