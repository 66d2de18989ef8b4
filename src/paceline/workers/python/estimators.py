"""What does a fitted scikit-learn estimator take, and what does it give?

Rules:
- Numbers are tensors, which every protocol can carry: `input` of FP64, or one FP64 tensor for each column when the
  estimator was fitted on a few named ones. Columns that hold text, or that only a data frame can carry, are items:
  objects by name. An estimator that does not say how many features it takes gets its items as they are: texts.
- A classifier gives `label` and, when it can, `probabilities` by class; anything else gives `prediction`.
- No estimator starts threads of its own: at the sizes of requests, that costs five times what it saves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.core.tensors import Array, Tensors
from paceline.workers.frames import About, Readiness, Setup, Tensor
from paceline.workers.python.boosters import real_names
from paceline.workers.python.forests import hasten
from paceline.workers.python.service import INVALID, Failed, Service, TensorService, run_good

_MOST_NAMED_INPUTS: Final = 64
KNOWN: Final = ("sklearn", "xgboost", "lightgbm", "catboost", "imblearn", "paceline")
# Whose own `predict` is the class with the highest probability: one pass is enough for both.
_LABEL_IS_LIKELIEST: Final = (
    "BaggingClassifier",
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
    "ExtraTreesClassifier",
    "RandomForestClassifier",
    "LGBMClassifier",
    "LightGBMModel",
    "XGBClassifier",
    "XGBoostModel",
)
# Attributes that hold other estimators.
PARTS: Final = (
    "steps",
    "transformer_list",
    "transformers_",
    "estimator",
    "estimator_",
    "estimators_",
    "best_estimator_",
    "calibrated_classifiers_",
)
# Their functions may want a data frame, or text.
UNKNOWN: Final = ("FunctionTransformer",)
_DATATYPES: Final = {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP64"}


class Estimator:
    """A fitted estimator, and what it says of itself.

    Attributes:
        last: the part that predicts.
        features, names: how many columns it takes, and what they are called; None: it does not say.
        classes: of a classifier with one output; else None.
    """

    def __init__(self, fitted: Any) -> None:
        self.fitted = fitted
        self.parts = list(_parts(fitted, set()))
        self.last = _last(fitted)
        # CatBoost forgets the number of features in a pickle, and remembers their names.
        counted = getattr(fitted, "n_features_in_", 0) or len(getattr(fitted, "feature_names_", ()))
        self.features: int | None = counted or None
        names = getattr(fitted, "feature_names_in_", None)
        self.names: list[str] | None = None if names is None else real_names([str(name) for name in names])
        classes = getattr(fitted, "classes_", None)
        is_plain = isinstance(classes, np.ndarray) and classes.ndim == 1 and classes.size
        self.classes: Array | None = classes if is_plain else None
        self._has_probabilities = self.classes is not None and hasattr(fitted, "predict_proba")
        self._label_is_likeliest = type(self.last).__name__ in _LABEL_IS_LIKELIEST and _is_known(self.last)

    @property
    def library(self) -> str:
        """Where its class comes from, such as `sklearn`."""
        named: str = getattr(self.fitted, "library", "")
        return named or type(self.fitted).__module__.partition(".")[0]

    @property
    def needs_frame(self) -> bool:
        """True when a part of it picks columns by name, or is code that nobody knows."""
        return any(hasattr(part, "transformers_") or not _is_known(part) for part in self.parts)

    @property
    def takes_text(self) -> bool:
        """True when it was fitted on columns of text."""
        return bool(getattr(self.fitted, "takes_text", False)) or any(
            values.dtype.kind in "OUS" for part in self.parts for values in _categories(part)
        )

    def make_ready(self) -> None:
        """Let no part start threads, for workers are what runs side by side; make forests quick."""
        # Fitted on a data frame, and given an array: the columns are in order, for they were put so by name.
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        for part in self.parts:
            if getattr(part, "n_jobs", None) is not None:
                part.n_jobs = 1
            hasten(part)

    @property
    def outputs(self) -> list[str]:
        """What the arrays of `__call__` are called."""
        return output_names(classifies=self.classes is not None, has_probabilities=self._has_probabilities)

    def __call__(self, rows: Any) -> list[Array]:
        """Predict some rows: an array for each output."""
        if not self._has_probabilities:
            return [_plain(np.asarray(self.fitted.predict(rows)))]
        assert self.classes is not None
        probabilities = np.asarray(self.fitted.predict_proba(rows), np.float64)
        if self._label_is_likeliest:
            labels = self.classes.take(probabilities.argmax(axis=1))
        else:
            labels = np.asarray(self.fitted.predict(rows))
        if labels.shape[1:] == (1,):  # of CatBoost
            labels = labels[:, 0]
        return [_plain(labels), probabilities]

    def described(self, arrays: Sequence[Array]) -> list[Tensor]:
        """The outputs that these are."""
        return [
            Tensor(
                name,
                _DATATYPES.get(array.dtype.kind, "BYTES"),
                [-1, *array.shape[1:]],
                list(map(str, self.classes)) if name == "probabilities" and self.classes is not None else [],
            )
            for name, array in zip(self.outputs, arrays, strict=True)
        ]


def service_of(estimator: Estimator, notes: Sequence[str]) -> Service | TensorService:
    """The service that fits an estimator.

    Raises:
        ModelLoadError: it is not fitted.
        RuntimeUnavailable: it needs a library that is not installed.
    """
    _require_fitted(estimator)
    kind: type[_Numbers | _Columns | _Items] = _Numbers
    if estimator.features is None:
        kind = _Items
    elif not inputs_of(
        estimator.features, estimator.names, needs_frame=estimator.needs_frame, takes_text=estimator.takes_text
    ):
        kind = _Columns
    return kind(estimator, _about(estimator, kind, notes))


def inputs_of(count: int, names: Sequence[str] | None, *, needs_frame: bool, takes_text: bool) -> list[Tensor]:
    """The tensors that hold the columns of an estimator; none: it takes items.

    Args:
        count, names: of the columns; None: they have no names.
    """
    if takes_text or (names is not None and needs_frame):
        return []
    if names is not None and count <= _MOST_NAMED_INPUTS:
        return [Tensor(name, "FP64", [-1]) for name in names]
    return [Tensor("input", "FP64", [-1, count], list(names or ()))]


def output_names(*, classifies: bool, has_probabilities: bool) -> list[str]:
    """What the outputs of an estimator are called."""
    if not classifies:
        return ["prediction"]
    return ["label", "probabilities"] if has_probabilities else ["label"]


def _about(estimator: Estimator, kind: type[_Numbers | _Columns | _Items], notes: Sequence[str]) -> About:
    outer, last = (type(each).__name__ for each in (estimator.fitted, _last(estimator.fitted)))
    what = outer if outer == last else f"{outer} with {last}"
    by_name = ", by name" if estimator.names is not None else ""
    takes = {
        _Numbers: f"{estimator.features} numbers",
        _Columns: f"{estimator.features} columns{by_name}",
        _Items: "items as they are",
    }
    said = f"{what} ({estimator.library}): {takes[kind]} -> {', '.join(estimator.outputs)}"
    return About(platform=estimator.library, says=[said, *notes])


class _Numbers:
    """An estimator of numbers, behind tensors."""

    def __init__(self, estimator: Estimator, about: About) -> None:
        self.about = about
        self._estimator = estimator
        assert estimator.features is not None
        about.inputs = inputs_of(estimator.features, estimator.names, needs_frame=False, takes_text=False)
        self._by_name = len(about.inputs[0].shape) == 1
        about.outputs = [
            Tensor(name, "FP64", [-1]) for name in estimator.outputs
        ]  # until `setup_tensors` has seen them

    def setup_tensors(self, setup: Setup) -> Readiness:
        estimator, names = self._estimator, self._estimator.names
        estimator.make_ready()
        row, outputs = self._first_run()
        example: Any = dict(zip(names or [], row, strict=True)) if self._by_name else row
        return Readiness([msgspec.Raw(msgspec.json.encode(example))], self.about.inputs, estimator.described(outputs))

    def _first_run(self) -> tuple[list[float], list[Array]]:
        """A row that the estimator takes, and what it makes of it."""
        rows = np.zeros((1, self._estimator.features or 0))
        try:
            outputs = self._estimator(rows)
        except ValueError:  # one that takes logarithms, say
            rows += 1.0
            outputs = self._estimator(rows)
        return rows[0].tolist(), outputs

    def predict_tensors(self, inputs: Tensors) -> Tensors:
        return tuple(self._estimator(np.column_stack(inputs) if self._by_name else inputs[0]))


class _Rows:
    """An estimator behind items of JSON."""

    wants_text = False

    def __init__(self, estimator: Estimator, about: About) -> None:
        self.about = about
        self._estimator = estimator

    def _predictions(self, rows: Any) -> list[Any]:
        """One for each row: a bare value, or an object by output."""
        estimator = self._estimator
        arrays = estimator(rows)
        if estimator.classes is None:
            return list(arrays[0].tolist())
        if len(arrays) == 1:
            return [{"label": label} for label in arrays[0].tolist()]
        classes = list(map(str, estimator.classes))
        return [
            {"label": label, "probabilities": dict(zip(classes, row, strict=True))}
            for label, row in zip(arrays[0].tolist(), arrays[1].tolist(), strict=True)
        ]

    def _good(self, examples: list[Any]) -> list[Any]:
        """Those that it takes: what its parts have seen is known, what they are for is not."""
        try:
            self._predictions(self._shaped(examples))
        except Exception:
            return []
        return examples

    def _shaped(self, items: list[Any]) -> Any:
        raise NotImplementedError


class _Columns(_Rows):
    """An estimator of columns that hold text, or of a data frame."""

    def __init__(self, estimator: Estimator, about: About) -> None:
        super().__init__(estimator, about)
        self._names = estimator.names
        self._framed = self._names is not None and estimator.needs_frame
        if self._framed:
            _require_pandas(type(estimator.fitted).__name__)

    def setup(self, setup: Setup) -> Sequence[Any]:
        self._estimator.make_ready()
        example: list[Any] = [0.0] * (self._estimator.features or 0)
        for column, value in _seen(self._estimator):
            example[column] = value
        return self._good([dict(zip(self._names, example, strict=True)) if self._names else example])

    def predict(self, items: list[Any]) -> Sequence[Any]:
        return run_good([self._row(item) for item in items], lambda rows: self._predictions(self._shaped(rows)))

    def _shaped(self, items: list[Any]) -> Any:
        rows = [list(item.values()) if isinstance(item, dict) else item for item in items]
        if self._framed:
            import pandas

            return pandas.DataFrame(rows, columns=self._names)
        array = np.empty((len(rows), self._estimator.features or 0), object)
        array[:] = rows
        return array

    def _row(self, item: Any) -> list[Any] | Failed:
        """The values in order; None, which JSON has for what is missing, as NaN."""
        names, count = self._names, self._estimator.features
        if isinstance(item, dict) and names is not None:
            wrong = [f"'{name}' is missing" for name in names if name not in item]
            wrong += [f"'{name}' is no column" for name in item if name not in names]
            if wrong:
                return Failed(f"the item: {wrong[0]}; the columns are {', '.join(names)}", INVALID)
            values = [item[name] for name in names]
        elif isinstance(item, list) and len(item) == count:
            values = item
        else:
            got = f"a list of {len(item)}" if isinstance(item, list) else _KINDS[type(item)]
            either = "an object by column, or " if names is not None else ""
            return Failed(f"the item: expected {either}a list of {count} values, got {got}", INVALID)
        for place, value in enumerate(values):
            if isinstance(value, (list, dict)):
                where = names[place] if names is not None else f"[{place}]"
                return Failed(f"{where}: expected a number or a text, got {_KINDS[type(value)]}", INVALID)
        return [np.nan if value is None else value for value in values]


class _Items(_Rows):
    """An estimator that does not say what it takes: the first part of it does, such as a vectorizer of texts."""

    def setup(self, setup: Setup) -> Sequence[Any]:
        self._estimator.make_ready()
        return self._good(["text"]) if any(hasattr(part, "build_analyzer") for part in self._estimator.parts) else []

    def predict(self, items: list[Any]) -> Sequence[Any]:
        return self._predictions(items)

    def _shaped(self, items: list[Any]) -> Any:
        return items


_KINDS: Final = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "a text",
    type(None): "null",
}


def _parts(estimator: Any, seen: set[int]) -> Iterator[Any]:
    """An estimator, and those that it is made of."""
    if id(estimator) in seen or isinstance(estimator, (str, type(None), type)) or callable(estimator):
        return
    seen.add(id(estimator))
    yield estimator
    for name in PARTS:
        inner = getattr(estimator, name, None)
        several = inner.ravel().tolist() if isinstance(inner, np.ndarray) else inner
        for each in several if isinstance(several, (list, tuple)) else [several]:
            # Pipelines and the like hold (name, part) or (name, part, columns).
            yield from _parts(each[1] if isinstance(each, tuple) and len(each) > 1 else each, seen)


def _last(estimator: Any) -> Any:
    """The part that predicts."""
    for inner in (getattr(estimator, "best_estimator_", None), getattr(estimator, "_final_estimator", None)):
        if inner is not None:
            return _last(inner)
    return estimator


def _is_known(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] in KNOWN and type(part).__name__ not in UNKNOWN


def _categories(part: Any) -> list[Array]:
    """The values that an encoder of categories has seen, by column."""
    found = getattr(part, "categories_", None)
    return [each for each in found if isinstance(each, np.ndarray)] if isinstance(found, list) else []


def _seen(estimator: Estimator) -> Iterator[tuple[int, Any]]:
    """Columns that hold categories, each with one of them."""
    names = estimator.names or []
    for part in estimator.parts:
        if len(_categories(part)) == estimator.features:
            yield from ((place, values.tolist()[0]) for place, values in enumerate(_categories(part)) if len(values))
        for _, transformer, columns in getattr(part, "transformers_", ()):
            for encoder in _parts(transformer, set()):
                for column, values in zip(columns, _categories(encoder), strict=False):
                    place = names.index(column) if column in names else column
                    if isinstance(place, int) and len(values):
                        yield place, values.tolist()[0]


def _plain(array: Array) -> Array:
    """As a tensor that the protocols know: the widest of its kind; what is no number, as text."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    if array.dtype.kind == "b":
        return array
    texts = np.empty(array.shape, object)
    texts.reshape(-1)[:] = [str(each) for each in array.reshape(-1).tolist()]
    return texts


def _require_fitted(estimator: Estimator) -> None:
    if estimator.features is not None or estimator.library != "sklearn":
        return
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator.fitted)
    except NotFittedError:
        kind = type(estimator.fitted).__name__
        raise ModelLoadError(f"{kind}: expected a fitted estimator, got one that is not", hint="fit it first") from None


def _require_pandas(what: str) -> None:
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise RuntimeUnavailable(
            f"{what}: picks columns by name, for which pandas is needed, and it is not installed",
            hint="pip install pandas",
        ) from None
