"""How is a model file of XGBoost, LightGBM or CatBoost made an estimator?

Rules:
- Such a file holds trees and no code: it needs no permission. What it holds is read by its own library.
- A classifier is told by the objective. Where the file does not name its classes, they are 0, 1, ...
- Where training has stopped early, the best iteration answers, as it does in the library's own estimators.
- Names that the library has made up, such as `Column_0`, are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from paceline.core.errors import ModelLoadError, RuntimeUnavailable, first_line
from paceline.core.tensors import Array
from paceline.runtimes.formats import FORMATS, Format
from paceline.runtimes.ubjson import NotUbjson, decoded

_MARGIN_OF_CLASSES: Final = "multi:softmax"  # whose prediction is a class, and no probability
LIGHTGBM_CLASSIFIERS: Final = ("binary", "multiclass")
"""How the objectives of LightGBM's classifiers begin."""
EXPONENTS: Final = ("Poisson", "Tweedie")  # objectives of CatBoost whose sums are logarithms


class Boosted(Protocol):
    """A model of boosted trees, as `Estimator` takes it.

    Attributes:
        library: that it is of, such as `xgboost`.
        classes_: of a classifier; else None.
        feature_names_in_: None: the file names none.
        takes_text: some columns are categories, given as text.
    """

    library: str
    classes_: Array | None
    n_features_in_: int
    feature_names_in_: list[str] | None
    takes_text: bool

    def predict(self, rows: Any) -> Array:
        """Labels of a classifier; else numbers."""

    def predict_proba(self, rows: Any) -> Array:
        """Probabilities by class, of shape [rows, classes]."""


def format_of(path: Path) -> Format | None:
    """The format of a file that `load` reads; None: it is none of them."""
    return next((each for each in FORMATS if each.name in _READERS and each.matches(path)), None)


def load(path: Path, name: str) -> Boosted:
    """Read a file in the format of that name.

    Raises:
        ModelLoadError: it is corrupt, or of something else.
        RuntimeUnavailable: its library is not installed.
    """
    try:
        return _READERS[name](path)
    except ImportError as error:
        raise RuntimeUnavailable(
            f"{path.name}: needs {error.name}, which is not installed", hint=f"pip install 'paceline[{name}]'"
        ) from None
    except ModelLoadError:
        raise
    except Exception as error:  # the libraries' own errors, which are of many classes
        raise ModelLoadError(f"{path.name}: cannot be loaded by {name}: {_said(error)}") from error


class XGBoostModel:
    """A file of XGBoost, in JSON or UBJSON."""

    library = "xgboost"
    takes_text = False

    def __init__(self, path: Path) -> None:
        import xgboost

        content = path.read_bytes()
        if content.startswith(b"{L"):
            try:
                decoded(content)
            except NotUbjson as error:
                raise ModelLoadError(
                    f"{path.name}: cannot be loaded by xgboost: the file is cut off, or damaged: {error}"
                ) from error
        self.booster = xgboost.Booster({"nthread": 1}, model_file=str(path))
        learner = json.loads(self.booster.save_config())["learner"]
        self.objective: str = learner["objective"]["name"]
        self.n_features_in_ = int(self.booster.num_features())
        self.feature_names_in_ = real_names(self.booster.feature_names)
        several = int(learner["learner_model_param"]["num_class"])
        self.classes_: Array | None = np.arange(max(2, several)) if is_classifier(self.objective) else None
        self.is_linear = learner["gradient_booster"].get("name") == "gblinear"
        best = self.booster.attr("best_iteration")
        self.iterations = (0, 0) if best is None else (0, int(best) + 1)

    def predict(self, rows: Any) -> Array:
        """See `Boosted`."""
        if self.classes_ is not None:
            return np.asarray(self.predict_proba(rows).argmax(axis=1))
        return self._run(rows, "value")

    def predict_proba(self, rows: Any) -> Array:
        """See `Boosted`."""
        if self.objective == _MARGIN_OF_CLASSES:
            margins = self._run(rows, "margin")
            powers = np.exp(margins - margins.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return of_both_classes(self._run(rows, "value"))

    def _run(self, rows: Any, kind: str) -> Array:
        if self.is_linear:  # which has no `inplace_predict`
            import xgboost

            return np.asarray(self.booster.predict(xgboost.DMatrix(rows), output_margin=kind == "margin"))
        return np.asarray(
            self.booster.inplace_predict(
                rows, iteration_range=self.iterations, predict_type=kind, validate_features=False
            )
        )


class LightGBMModel:
    """A text file of LightGBM."""

    library = "lightgbm"
    takes_text = False

    def __init__(self, path: Path) -> None:
        import lightgbm

        text = path.read_text()
        if "\nend of trees" not in text:
            raise ModelLoadError(f"{path.name}: cannot be loaded by lightgbm: the file is cut off")
        self.booster = lightgbm.Booster(model_str=text)
        head = text.partition("\nTree=")[0]
        words = (_field(head, "objective") or "").split()
        self.objective = words[0] if words else ""
        self.n_features_in_ = int(self.booster.num_feature())
        self.feature_names_in_ = real_names(self.booster.feature_name())
        several = int(_field(head, "num_class") or 1)
        is_one = self.objective.startswith(LIGHTGBM_CLASSIFIERS)
        self.classes_: Array | None = np.arange(max(2, several)) if is_one else None

    def predict(self, rows: Any) -> Array:
        """See `Boosted`."""
        if self.classes_ is not None:
            return np.asarray(self.predict_proba(rows).argmax(axis=1))
        return np.asarray(self.booster.predict(rows, num_threads=1))

    def predict_proba(self, rows: Any) -> Array:
        """See `Boosted`."""
        return of_both_classes(np.asarray(self.booster.predict(rows, num_threads=1)))


class CatBoostModel:
    """A binary file of CatBoost."""

    library = "catboost"

    def __init__(self, path: Path) -> None:
        import catboost

        self.model = catboost.CatBoost()
        self.model.load_model(str(path))
        self.n_features_in_ = len(self.model.feature_names_)
        self.feature_names_in_ = real_names(self.model.feature_names_)
        classes = np.asarray(self.model.classes_)
        self.classes_: Array | None = classes if classes.size else None
        self.kind = "RawFormulaVal" if self.classes_ is None else "Class"
        if loss_of(self.model) in EXPONENTS:
            self.kind = "Exponent"
        self.takes_text = bool(self.model.get_cat_feature_indices() or self.model.get_text_feature_indices())

    def predict(self, rows: Any) -> Array:
        """See `Boosted`."""
        predicted = np.asarray(self.model.predict(rows, prediction_type=self.kind, thread_count=1))
        return predicted if self.classes_ is None else predicted.reshape(-1)

    def predict_proba(self, rows: Any) -> Array:
        """See `Boosted`."""
        return np.asarray(self.model.predict(rows, prediction_type="Probability", thread_count=1))


_READERS: Final[dict[str, Callable[[Path], Boosted]]] = {
    "xgboost": XGBoostModel,
    "lightgbm": LightGBMModel,
    "catboost": CatBoostModel,
}


def is_classifier(objective: str) -> bool:
    """Whether a model of XGBoost with this objective tells classes."""
    return objective.startswith(("binary:", "multi:")) and objective != "binary:logitraw"


def loss_of(model: Any) -> str:
    """What a model of CatBoost was trained to make small, such as `Logloss`; "" where it does not say."""
    parameters = json.loads(model.get_metadata().get("params", "{}"))
    return str(parameters.get("loss_function", {}).get("type", ""))


def real_names(names: Sequence[str] | None) -> list[str] | None:
    """The names of columns, where somebody has given them."""
    if not names or all(name in (f"Column_{place}", str(place)) for place, name in enumerate(names)):
        return None
    return list(names)


def of_both_classes(probabilities: Array) -> Array:
    """Of two classes, some libraries give that of the second alone."""
    if probabilities.ndim == 2:
        return probabilities
    return np.column_stack([1 - probabilities, probabilities])


def _field(head: str, name: str) -> str | None:
    """The value of a line `name=value`."""
    found = re.search(rf"^{name}=(.*)$", head, re.MULTILINE)
    return None if found is None else found[1]


def _said(error: Exception) -> str:
    """Without the frames of C++ that XGBoost appends."""
    return re.sub(r"^\[[\d:]+\] ", "", first_line(error))
