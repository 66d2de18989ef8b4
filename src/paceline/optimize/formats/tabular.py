"""What do the two forms of an estimator answer to the user's rows: its library's, and the converted one?

Rules:
- The converted model's inputs and outputs are called as those of the service. Columns that a service takes as objects
  of JSON, for they hold text, are a tensor each.
- A row is a tie when the library answers its features, rounded to single precision, as the converted model does.
- Rows that lack a feature must be answered as the library does, each of them: there are other rules for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import CannotChange, ConfigError
from paceline.core.tensors import Array
from paceline.optimize.comparing import Mask, compare, rows_apart
from paceline.optimize.data.rows import Rows
from paceline.optimize.formats.equality import FILE, answers_of
from paceline.optimize.formats.graphs import Graph, OwnGraph, Value, joined_columns, save
from paceline.optimize.formats.trees import Ensemble, write_classes
from paceline.optimize.result import Converted, Equality
from paceline.workers.frames import Tensor
from paceline.workers.python.estimators import Estimator, service_of

MATRIX: Final = "input"
"""The name of the one input of an estimator whose columns have no names."""
_MOST_UNEXPLAINED: Final = 0.01  # of the rows: more than that is another model


class Tabular:
    """An estimator and the rows that it is tried on.

    Attributes:
        columns: the features by input: FP64 or text, of shape [rows]; or one matrix of shape [rows, features].
        answers: the library's own, by name.

    Raises:
        CannotChange: it takes what is neither numbers nor named columns.
        ConfigError: the rows are of something else.
    """

    def __init__(self, estimator: Estimator, rows: Path) -> None:
        self.estimator = estimator
        declared: list[Tensor] = service_of(estimator, []).about.inputs
        self._framed = not declared
        if self._framed and estimator.names is None:
            raise CannotChange(
                "it takes texts, or lists that hold text: its service takes items of JSON, and ONNX tensors"
            )
        names = [each.name for each in declared] or estimator.names or []
        self.columns = _columns(Rows.load(rows), names)
        estimator.make_ready()
        self.answers = self._ask(self.columns)

    @property
    def is_matrix(self) -> bool:
        """True when all features are one input."""
        return next(iter(self.columns.values())).ndim > 1

    @property
    def has_text(self) -> bool:
        """True when a column holds text."""
        return any(array.dtype.kind == "U" for array in self.columns.values())

    def values(self, kind: str) -> list[Value]:
        """The inputs of a converted model whose numbers are of this type."""
        return [
            Value(name, "object" if array.dtype.kind == "U" else kind, (None, *array.shape[1:]))
            for name, array in self.columns.items()
        ]

    def rows_of(self, graph: Graph) -> str:
        """Add nodes that make one tensor of the inputs, which are numbers."""
        names = list(self.columns)
        return names[0] if self.is_matrix else joined_columns(graph, names)

    def outputs(self, graph: Graph, scores: str, count: int) -> dict[str, Value]:
        """Add nodes that make the service's outputs of scores, FP32 of shape [rows, `count`]; see `OwnGraph.model`."""
        classes = self.estimator.classes
        if classes is None:
            return self.prediction(graph, scores, "float32")
        kind = self.answers["label"].dtype
        label, probabilities = write_classes(graph, scores, count, classes.astype(kind))
        return {
            label: Value("label", kind.str, (None,)),
            probabilities: Value("probabilities", "float32", (None, len(classes))),
        }

    def prediction(self, graph: Graph, scores: str, kind: str) -> dict[str, Value]:
        """Add nodes that give the output `prediction` the service's shape."""
        shape = self.answers["prediction"].shape[1:]
        flat = graph.node("Reshape", [scores, graph.constant(np.array([-1, *shape], np.int64))])
        return {flat: Value("prediction", kind, (None, *shape))}

    def equality(self, model: Any) -> Equality:
        """Run the converted model, a `ModelProto`, and compare.

        Raises:
            CannotChange: it does not run, has other outputs, or takes rows that lack a feature otherwise.
        """
        with TemporaryDirectory() as folder:
            save(model, Path(folder, FILE))
            got = answers_of(Path(folder, FILE), Rows(self.columns))
        apart = rows_apart(self.answers, got)
        if (lacking := apart & self._lacking).any():
            raise CannotChange(f"converted, it answers {lacking.sum()} rows otherwise in which a feature is missing")
        ties = self._ties(got, apart)
        return compare(self.answers, got, ties=ties, notes=_notes(apart, ties))

    def converted(
        self, model: Any, folder: Path, equality: Equality | None = None, notes: Sequence[str] = ()
    ) -> Converted:
        """Write a converted model, with the names of the classes.

        Args:
            equality: None: it is found out.

        Raises:
            CannotChange: it does not run, or answers otherwise, and ties do not explain it.
        """
        equality = equality or self.equality(model)
        unexplained = equality.rows_apart - equality.ties
        if unexplained > _MOST_UNEXPLAINED * equality.rows:
            raise CannotChange(
                f"converted, it answers {unexplained} of {equality.rows} rows otherwise: "
                f"by up to {equality.largest_error:.3g}"
            )
        from paceline.runtimes.onnx import COLUMN_NAMES

        if "probabilities" in self.answers and self.estimator.classes is not None:
            names = list(map(str, self.estimator.classes))
            model.metadata_props.add(key=COLUMN_NAMES, value=msgspec.json.encode({"probabilities": names}).decode())
        save(model, folder / FILE)
        return Converted(file=FILE, equality=equality, notes=list(notes))

    def _ask(self, columns: Mapping[str, Array]) -> dict[str, Array]:
        rows: Any = next(iter(columns.values()))
        if self._framed:
            import pandas

            rows = pandas.DataFrame({name: list(array) for name, array in columns.items()})
        elif rows.ndim == 1:
            rows = np.column_stack(list(columns.values()))
        return dict(zip(self.estimator.outputs, self.estimator(rows), strict=True))

    def _ties(self, got: Mapping[str, Array], apart: Mask) -> Mask:
        """Which of the rows that are apart are ties."""
        ties = np.zeros(len(apart), bool)
        if not apart.any():
            return ties
        theirs = {name: got[name][apart] for name in self.answers}
        for towards in (None, np.inf, -np.inf):
            near = {name: _rounded(array[apart], towards) for name, array in self.columns.items()}
            ties[apart] |= ~rows_apart(self._ask(near), theirs)
        return ties

    @property
    def _lacking(self) -> Mask:
        """Rows that lack a feature, of shape [rows]."""
        numbers = [array for array in self.columns.values() if array.dtype.kind == "f"]
        return np.isnan(np.column_stack(numbers)).any(axis=1) if numbers else np.zeros(1, bool)


def of_trees(tabular: Tabular, treelite_model: Any) -> Any:
    """Trees as a `ModelProto`."""
    ensemble = Ensemble(treelite_model)
    graph = OwnGraph()
    scores = ensemble.write(graph, tabular.rows_of(graph))
    outputs = tabular.outputs(graph, scores, ensemble.outputs)
    return graph.model(tabular.values(ensemble.type.name), outputs)


def _columns(rows: Rows, names: list[str]) -> dict[str, Array]:
    missing = [name for name in names if name not in rows.inputs]
    if missing:
        raise ConfigError(f"the rows have no '{missing[0]}'; they have {', '.join(rows.inputs)}")
    if names == [MATRIX]:
        return {MATRIX: rows.inputs[MATRIX].reshape(rows.count, -1).astype(np.float64)}
    flat = {name: rows.inputs[name].reshape(rows.count) for name in names}
    return {name: array if array.dtype.kind == "U" else array.astype(np.float64) for name, array in flat.items()}


def _rounded(array: Array, towards: float | None) -> Array:
    """In single precision, or the number next to that."""
    if array.dtype.kind != "f":
        return array
    single = array.astype(np.float32)
    return (single if towards is None else np.nextafter(single, np.float32(towards))).astype(np.float64)


def _notes(apart: Mask, ties: Mask) -> list[str]:
    if not ties.any():
        return []
    return [
        f"{int(ties.sum())} of the {int(apart.sum())} rows that differ are ties: a feature lies on a threshold, to "
        "within the rounding of single precision, and the library itself answers so when its features are rounded"
    ]
