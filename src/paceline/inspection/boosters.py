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
from paceline.inspection import ubjson
from paceline.inspection.documents import NotJson, decoded, word
from paceline.inspection.flatbuffer import Damaged, Table
from paceline.inspection.report import Report, Tensor, listed
from paceline.inspection.wire import mapped

_MOST_JSON_BYTES: Final = 2 << 30
_MOST_LINE: Final = 16 << 20
_MOST_HEAD_LINES: Final = 1000
_CBM: Final = b"CBM1"
_RELEASE: Final = re.compile(r"release (\d+(?:\.\d+)*)")


class _Parameters(msgspec.Struct):
    num_class: str = "0"
    num_feature: str = "0"
    num_nodes: str = "0"


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
    report.operators = {learner.gradient_booster.name: 1}
    report.about["objective"] = learner.objective.name[:200]
    report.about["trees"] = len(booster.model.trees)
    report.about["nodes"] = sum(_number(tree.tree_param.num_nodes) for tree in booster.model.trees)
    report.about["classes"] = _number(learner.learner_model_param.num_class)
    _columns(_number(learner.learner_model_param.num_feature), learner.feature_names, "FP32", report)


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
    report.about |= {"leaves": leaves, "classes": _number(head.get("num_class", "1"))}
    _columns(_number(head["max_feature_idx"]) + 1, head.get("feature_names", "").split(), "FP64", report)


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
    except Damaged as error:
        raise _broken(path, str(error)) from error
    report.operators = {"oblivious trees" if trees.length(10) == 0 else "trees": 1}
    version = _RELEASE.search(told.get("catboost_version_info", ""))
    report.made_by = f"CatBoost {version[1]}" if version else "CatBoost"
    report.about["objective"] = _loss(told.get("params", ""))
    report.about |= {"number columns": floats, "category columns": categories, "text columns": texts}
    _columns(floats + categories + texts, [], "FP32" if not categories + texts else None, report)


def _xgboost(data: memoryview) -> _XGBoost:
    # UBJSON has the type of the first key's length behind the brace; in JSON stands a quotation mark there.
    if len(data) > 1 and chr(data[1]) in "iUIlL#$":
        return msgspec.convert(ubjson.decoded(data), _XGBoost)
    return msgspec.json.decode(data, type=_XGBoost)


def _loss(parameters: str) -> str:
    try:
        return word(decoded(parameters.encode()), "loss_function", "type") or "?"
    except NotJson:
        return "?"


def _columns(count: int, names: list[str], datatype: str | None, report: Report) -> None:
    report.inputs = [Tensor(name="input", datatype=datatype, shape=[-1, count])]
    if names:
        report.about["columns"] = listed(names)[:1000]


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _broken(path: Path, why: str) -> ModelLoadError:
    return ModelLoadError(f"{path}: cannot be read: {why}", hint="save it again with save_model()")
