"""The JSON of Studio's request-response service.

    {"Inputs": {"input1": {"ColumnNames": ["a"], "Values": [["1"]]}}, "GlobalParameters": {}}
    {"Results": {"output1": {"type": "table", "value": {"ColumnNames": ["b"], "ColumnTypes": ["Int64"],
                                                        "Values": [["2"]]}}}}

Rules:
- `input1` and `input2` are the two tables of a module. Inputs of other names are taken in the order they come.
- Every value in an answer is a string or null, as in Studio. Its clients send strings as well, for numbers too: such a
  table is typed by whoever runs the module (`workers/studio_types.py`). `ColumnTypes` in a request says the types.
- `format=swagger` has a list of objects in place of each table, in both directions.
- Names and rows are moved, and not decoded, on the way in.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from paceline.core.errors import Detail, InvalidRequest, ModelFailed, PacelineError, SignatureMismatch
from paceline.server.json_tensors import decode
from paceline.workers.studio_items import PORTS, Table

_INPUTS: Final = ("input1", "input2")
_IN_THEIR_WORDS: Final = re.compile(r"^(dataframe[12])(\.rows|\.columns|\.types)?|^parameters\b")
_THEIR_WORDS: Final = {
    "dataframe1": "Inputs.input1",
    "dataframe2": "Inputs.input2",
    ".rows": ".Values",
    ".columns": ".ColumnNames",
    ".types": ".ColumnTypes",
}
_WORDS: Final = {True: "True", False: "False"}


class Wanted(NamedTuple):
    """How an answer is written.

    Attributes:
        details: with the types of columns.
        as_objects: tables as lists of objects.
    """

    details: bool
    as_objects: bool


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    Inputs: dict[str, msgspec.Raw] | None = None
    GlobalParameters: dict[str, msgspec.Raw] | None = None


class _Table(msgspec.Struct):
    ColumnNames: list[str]
    Values: list[msgspec.Raw]
    ColumnTypes: list[str] | None = None


class _Outputs(msgspec.Struct):
    tables: list[Table | None]


_REQUEST: Final = msgspec.json.Decoder(_Request)
_TABLE: Final = msgspec.json.Decoder(_Table)
_OBJECTS: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_OUTPUTS: Final = msgspec.json.Decoder(_Outputs)


def item(body: Any) -> bytes:
    """The item that a request is, for the worker.

    Raises:
        DecodeError, SignatureMismatch: it is no request.
    """
    request: _Request = decode(body, _REQUEST)
    _require_utf_8(body)
    document: dict[str, Any] = dict.fromkeys(PORTS)
    document.update(_tables(request.Inputs or {}))
    document["parameters"] = request.GlobalParameters or {}
    return msgspec.json.encode(document)


def results(prediction: bytes, wanted: Wanted) -> bytes:
    """The answer that a prediction is.

    Raises:
        ModelFailed: it is none.
    """
    try:
        tables = _OUTPUTS.decode(prediction).tables
    except msgspec.MsgspecError as error:
        raise ModelFailed(f"the module answered with no tables: {error}", code="bad_model_output") from None
    written = {
        f"output{number}": _written(table, wanted) for number, table in enumerate(tables, 1) if table is not None
    }
    return orjson.dumps({"Results": written})


def error(problem: PacelineError, status: int, body: bytes) -> bytes:
    """The body of an error, as Studio has it, with ours beside it."""
    ours = orjson.loads(body)
    code, message, detail = _described(problem, status)
    told = _IN_THEIR_WORDS.sub(_their_word, ours["error"]) if isinstance(problem, InvalidRequest) else ours["error"]
    details = [{"code": detail, "message": told}]
    return orjson.dumps({**ours, "error": {"code": code, "message": message, "details": details}})


def _tables(inputs: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """The tables, by port."""
    if len(inputs) > len(PORTS):
        raise SignatureMismatch(f"Inputs: a module takes two tables, got {len(inputs)}")
    named = inputs.keys() <= set(_INPUTS)
    ports = {name: PORTS[_INPUTS.index(name) if named else place] for place, name in enumerate(inputs)}
    return {ports[name]: _table(raw, f"Inputs.{name}") for name, raw in inputs.items()}


def _table(raw: msgspec.Raw, where: str) -> dict[str, Any] | None:
    text = bytes(raw)
    if text == b"null":
        return None
    if text.startswith(b"["):
        return _of_objects(decode(text, _OBJECTS, where))
    table: _Table = decode(text, _TABLE, where)
    document: dict[str, Any] = {"columns": table.ColumnNames, "rows": table.Values}
    if table.ColumnTypes is None:
        document["typed"] = False
    else:
        document["types"] = table.ColumnTypes
    return document


def _of_objects(objects: list[dict[str, msgspec.Raw]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(name for each in objects for name in each))
    rows = [[each.get(name) for name in columns] for each in objects]
    return {"columns": columns, "rows": rows, "typed": False}


def _written(table: Table, wanted: Wanted) -> Any:
    rows = [[_text(value) for value in row] for row in table.rows]
    if wanted.as_objects:
        return [dict(zip(table.columns, row, strict=True)) for row in rows]
    value: dict[str, Any] = {"ColumnNames": table.columns}
    if wanted.details:
        value["ColumnTypes"] = table.types or ["String"] * len(table.columns)
    return {"type": "table", "value": {**value, "Values": rows}}


def _text(value: Any) -> str | None:
    """A value as .NET writes it: a float that is whole has no point."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return _WORDS[value]
    text = orjson.dumps(value).decode()
    return text.removesuffix(".0") if isinstance(value, float) else text


def _described(problem: PacelineError, status: int) -> tuple[str, str, str]:
    """Code, message and code of the detail, out of Studio's list."""
    if isinstance(problem, ModelFailed):
        return "ModuleExecutionError", "Module execution encountered an error.", problem.code
    if isinstance(problem, InvalidRequest) and status == 400:
        return "BadArgument", "Invalid argument provided.", "RequestBodyInvalid"
    return {
        404: ("NotFound", "Resource not found.", "WebServiceNotFound"),
        413: ("BadArgument", "Invalid argument provided.", "RequestBodyInvalid"),
        503: ("ServiceUnavailable", "Service is temporarily unavailable.", problem.code),
        504: (
            "GatewayTimeout",
            "The operation could not be completed within the permitted time.",
            "BackendScoreTimeout",
        ),
    }.get(status, ("InternalError", "Execution encountered an internal error.", problem.code))


def _their_word(found: re.Match[str]) -> str:
    return "".join(_THEIR_WORDS[each] for each in found.groups() if each is not None) or "GlobalParameters"


def _require_utf_8(body: Any) -> None:
    """What is moved as it is has not been looked at."""
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as bad:
        text = f"the body is not valid UTF-8 at byte {bad.start}"
        raise InvalidRequest(text, details=[Detail("", text)]) from None
