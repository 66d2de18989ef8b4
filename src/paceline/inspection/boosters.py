"""What is in a model of XGBoost, LightGBM or CatBoost, in the form of its own? None of these holds code.

Source: XGBoost's model.schema; LightGBM's `GBDT::SaveModelToString`; CatBoost's
model.fbs, whose fields keep their places.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from paceline.core.errors import ModelLoadError
from paceline.inspection.documents import NotJson, decoded, word
from paceline.inspection.flatbuffer import Damaged, Table
from paceline.inspection.report import Report, Tensor, listed, tensors
from paceline.runtimes import ubjson
from paceline.runtimes.wire import mapped
from paceline.workers.python.boosters import LIGHTGBM_CLASSIFIERS, is_classifier, real_names
from paceline.workers.python.estimators import inputs_of, output_names
from paceline.workers.service import ITEMS

_MOST_JSON_BYTES: Final = 2 << 30
_MOST_LINE: Final = 16 << 20
_MOST_HEAD_LINES: Final = 1000
_CBM: Final = b"CBM1"
_LABELS: Final = {"Integer": "INT64", "Float": "FP64", "Boolean": "BOOL", "String": "BYTES"}
_RELEASE: Final = re.compile(r"release (\d+(?:\.\d+)*)")


class _Parameters(msgspec.Struct):
    num_class: str = "0"
    num_feature: str = "0"
    num_nodes: str = "0"
    num_target: str = "1"


class _Tree(msgspec.Struct):
    tree_param: _Parameters = msgspec.field(default_factory=_Parameters)


class _Trees(msgspec.Struct):
    trees: list[_Tree] = []


class _Booster(msgspec.Struct):
    name: str = "gbtree"
    model: _Trees = msgspec.field(default_factory=_Trees)
    gbtree: _Booster | None = None  # of a dart, whose trees are one deeper


class _Objective(msgspec.Struct):
    name: str = "?"


class _Learner(msgspec.Struct):
    gradient_booster: _Booster
    learner_model_param: _Parameters
    objective: _Objective = msgspec.field(default_factory=_Objective)
    feature_names: list[str] = []


class _XGBoost(msgspec.Struct):
    """The parts that are told of XGBoost's document; the decoder steps over the others."""

    learner: _Learner
    version: list[int] = []


def read_xgboost(path: Path, report: Report) -> None:
    """Fill in the report of a model in JSON or Universal Binary JSON.

    Raises:
        ModelLoadError: it is neither, or no model.
    """
    data = mapped(path)
    if len(data) > _MOST_JSON_BYTES:
        raise _broken(path, f"it has {len(data)} bytes: at most {_MOST_JSON_BYTES} are read")
    try:
        model = _xgboost(data)
    except (msgspec.MsgspecError, ubjson.NotUbjson, UnicodeDecodeError, RecursionError) as error:
        raise _broken(path, str(error) or "nested too deeply") from error
    learner = model.learner
    booster = learner.gradient_booster.gbtree or learner.gradient_booster
    version = ".".join(map(str, model.version[:4]))
    report.made_by, report.versions["xgboost"] = f"XGBoost {version}", version
    report.operators = {learner.gradient_booster.name[:200]: 1}
    report.about["objective"] = learner.objective.name[:200]
    report.about["trees"] = len(booster.model.trees)
    report.about["nodes"] = sum(_number(tree.tree_param.num_nodes) for tree in booster.model.trees)
    told = learner.learner_model_param
    classes = _number(told.num_class)
    classifies = is_classifier(learner.objective.name)
    _about_classes(classes, report, classifies=classifies)
    _takes(_number(told.num_feature), learner.feature_names, report)
    _gives(classifies=classifies, width=max(classes, _number(told.num_target)), report=report)


def read_lightgbm(path: Path, report: Report) -> None:
    """Fill in the report of a model in LightGBM's text.

    Raises:
        ModelLoadError: it is none.
    """
    head: dict[str, str] = {}
    trees, leaves = 0, 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(_MOST_LINE):
                key, _, value = line.rstrip("\n").partition("=")
                trees += key == "Tree"
                if trees == 0 and len(head) < _MOST_HEAD_LINES:
                    head[key] = value
                elif key == "num_leaves":
                    leaves += _number(value)
    except OSError as error:
        raise _broken(path, (error.strerror or "cannot be read").lower()) from error
    if "max_feature_idx" not in head:
        raise _broken(path, "it has no max_feature_idx")
    report.made_by, report.versions["format"] = "LightGBM", head.get("version", "?")[:32]
    report.operators = {"gbdt": 1}
    report.about |= {"objective": head.get("objective", "none: it is the user's own")[:200], "trees": trees}
    classes = _number(head.get("num_class", "1"))
    classifies = head.get("objective", "").startswith(LIGHTGBM_CLASSIFIERS)
    report.about["leaves"] = leaves
    _about_classes(classes, report, classifies=classifies)
    _takes(_number(head["max_feature_idx"]) + 1, head.get("feature_names", "").split(), report)
    _gives(classifies=classifies, width=classes, report=report)


def read_catboost(path: Path, report: Report) -> None:
    """Fill in the report of a .cbm file.

    Raises:
        ModelLoadError: it is none.
    """
    data = mapped(path)
    size = int.from_bytes(data[4:8], "little")
    if bytes(data[:4]) != _CBM or size > len(data) - 8:
        raise _broken(path, "it is cut off, or no model of CatBoost")
    try:
        core = Table.root(data[8 : 8 + size])
        report.versions["format"] = core.text(0)[:32]
        told = {entry.text(0): entry.text(1) for entry in core.tables(2)}
        trees = core.table(1)
        report.about |= {"trees": trees.length(2), "leaves": trees.length(8), "outputs": trees.number(0, 1)}
        floats, categories, texts = trees.length(5), trees.length(4), trees.length(12)
        named = sorted((feature.number(2), feature.text(4)) for feature in trees.tables(5))
    except Damaged as error:
        raise _broken(path, str(error)) from error
    report.operators = {"oblivious trees" if trees.length(10) == 0 else "trees": 1}
    version = _RELEASE.search(told.get("catboost_version_info", ""))
    report.made_by = f"CatBoost {version[1]}" if version else "CatBoost"
    report.about["objective"] = _word_in(told.get("params", ""), "loss_function", "type") or "?"
    report.about |= {"number columns": floats, "category columns": categories, "text columns": texts}
    if categories or texts:
        report.inputs, report.outputs = tensors(ITEMS.inputs), tensors(ITEMS.outputs)
        return
    _takes(floats, [name or str(place) for place, name in named], report)
    _gives(
        classifies="class_params" in told,
        width=int(report.about["outputs"]),
        report=report,
        label=_LABELS.get(_word_in(told.get("class_params", ""), "class_label_type")),
    )


def _xgboost(data: memoryview) -> _XGBoost:
    # UBJSON has the type of the first key's length behind the brace; in JSON stands a quotation mark there.
    if len(data) > 1 and chr(data[1]) in "iUIlL#$":
        return msgspec.convert(ubjson.decoded(data), _XGBoost)
    return msgspec.json.decode(data, type=_XGBoost)


def _word_in(text: str, *keys: str) -> str:
    """What stands in a document under a path of keys; "" where there is nothing."""
    try:
        return word(decoded(text.encode()), *keys)
    except NotJson:
        return ""


def _about_classes(told: int, report: Report, *, classifies: bool) -> None:
    """Of two classes, which have one score, XGBoost says that there are 0, and LightGBM 1; both do so of numbers."""
    if classifies:
        report.about["classes"] = max(2, told)


def _takes(count: int, names: list[str], report: Report) -> None:
    report.inputs = tensors(inputs_of(count, real_names(names), needs_frame=False, takes_text=False))
    if names:
        report.about["columns"] = listed(names)[:1000]


def _gives(*, classifies: bool, width: int, report: Report, label: str | None = "INT64") -> None:
    """Say what it puts out.

    Args:
        width: of what the trees add up for a row; at most 1: a number, or the probability of the second of two classes.
    """
    shapes: dict[str, tuple[str | None, list[int | str]]] = {
        "label": (label, [-1]),
        "probabilities": ("FP64", [-1, max(2, width)]),
        "prediction": ("FP64", [-1, width] if width > 1 else [-1]),
    }
    names = output_names(classifies=classifies, has_probabilities=True)
    report.outputs = [Tensor(name=name, datatype=shapes[name][0], shape=shapes[name][1]) for name in names]


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _broken(path: Path, why: str) -> ModelLoadError:
    return ModelLoadError(f"{path}: cannot be read: {why}", hint="save it again with save_model()")
