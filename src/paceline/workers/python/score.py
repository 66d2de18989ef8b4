"""How is a scoring script of an Azure ML online endpoint, `init()` and `run(data)`, served?

Rules:
- `init` is called once for each worker, `run` once for each request. `run` gets the body as it came: a string of JSON.
- What `run` returns is written as JSON, strings included, as in Azure: a script that returns `json.dumps(...)` answers
  with a JSON string. An `AMLResponse` is the answer as it is.
- `@rawhttp` gives `run` the request; so that it can, the item is then a whole request (`Request`), and the prediction
  what `_whole` says. An item of any other form is a body, so `/predict` works as well.
- `run(data, request_headers)` gets the headers, too. With `@input_schema` of inference-schema, `run` gets the members
  of the body by name.
"""

from __future__ import annotations

import base64
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

import msgspec

from paceline.core.errors import InvalidRequest, ModelLoadError
from paceline.workers.frames import About, Setup
from paceline.workers.python import aml
from paceline.workers.python.loops import OwnLoop
from paceline.workers.python.reading import failed
from paceline.workers.python.service import Failed, Service
from paceline.workers.python.studio import examples_of

_HEADERS: Final = "request_headers"
_ANSWERS: Final = "aml_response"


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A whole HTTP request as an item; the body is base64."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def recognise(module: ModuleType) -> Service | None:
    """The service of a module that defines `init` and `run`.

    Raises:
        ModelLoadError: it does, but `run` cannot be called.
    """
    init, run = getattr(module, "init", None), getattr(module, "run", None)
    if not callable(init) or not callable(run):
        return None
    return ScoreService(init, Runner(run), _may_answer_whole(), module)


class Runner:
    """The function `run`, and what it is called with.

    Attributes:
        raw: it takes the request.
        takes_headers: it takes those of the request, too.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run
        inner = inspect.unwrap(run)
        arguments = [name for name in inspect.signature(inner).parameters if name != _HEADERS]
        if not arguments:
            raise ModelLoadError("run(): expected a parameter for the data, as in `def run(data)`")
        self.raw = aml.RAW_MARK in getattr(inner, "__dict__", {}) or _installed_rawhttp()
        self.takes_headers = _HEADERS in inspect.signature(inner).parameters
        self._members = inspect.signature(inner).parameters if _has_schema(run) else None

    def __call__(self, request: Request) -> Any:
        """Call `run` for a request."""
        named: dict[str, Any] = {_HEADERS: request.headers} if self.takes_headers else {}
        if self.raw:
            return self._run(_raw(request), **named)
        if self._members is None:
            return self._run(_text(request), **named)
        return self._run(**self._by_name(request.body), **named)

    @property
    def says(self) -> str:
        """How `run` is called, for people."""
        if self.raw:
            return "run(request), raw HTTP"
        if self._members is None:
            return "run(data)"
        return f"run({', '.join(self._members)}) by @input_schema"

    def _by_name(self, body: bytes) -> dict[str, Any]:
        assert self._members is not None
        try:
            given = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise InvalidRequest("the body: expected an object with the arguments of run by name")
        found = {}
        for name, parameter in self._members.items():
            if name == _HEADERS:
                continue
            if name not in given and parameter.default is parameter.empty:
                raise InvalidRequest(f"the body: {name!r} is missing")
            found[name] = given.get(name, parameter.default)
        return found


class ScoreService:
    """`init` and `run`.

    Args:
        whole: `run` may answer with an `AMLResponse`.
        beside: where `example()` is, and `deterministic = False` where equal requests may have different answers.

    Attributes:
        about, wants_text: see `Service`.
    """

    wants_text = True

    def __init__(self, init: Callable[[], Any], run: Runner, whole: bool, beside: ModuleType) -> None:
        self._init = init
        self._example = getattr(beside, "example", None)
        self._run = run
        self._raw = run.raw or run.takes_headers or whole
        self._loop = OwnLoop()
        self.about = About(
            says=[f"Azure ML scoring script: init() once, {run.says}, /score"],
            routes=["score"],
            raw=self._raw,
            max_batch_rows=1,
            deterministic=bool(getattr(beside, "deterministic", True)),
        )

    def setup(self, setup: Setup) -> Sequence[Any]:
        self._finished(self._init())
        return examples_of(self._example)

    def predict(self, items: list[Any]) -> Sequence[Any]:
        return [self._alone(item) for item in items]

    def _alone(self, item: bytes) -> Any:
        try:
            return self._one(item)
        except Exception as error:
            return failed(error, "run")

    def _one(self, item: bytes) -> Any:
        request = _request_of(item) if self._raw else None
        if request is None:
            plain = Request("POST", "/predict", "", {"content-type": "application/json"}, bytes(item))
            return _plain(self._finished(self._run(plain)))
        return _whole(self._finished(self._run(request)))

    def _finished(self, returned: Any) -> Any:
        """What a function returned, which may be `async`."""
        return self._loop.wait(returned) if inspect.iscoroutine(returned) else returned


def _request_of(item: bytes) -> Request | None:
    """The request that an item is; None: it is a body."""
    try:
        return msgspec.json.decode(item, type=Request)
    except msgspec.MsgspecError:
        return None


def _raw(request: Request) -> aml.AMLRequest:
    return aml.AMLRequest(request.method, request.path, request.query, request.headers, request.body)


def _text(request: Request) -> str:
    try:
        return request.body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not valid UTF-8 at byte {error.start}") from None


def _whole(returned: Any) -> Any:
    """What to answer a request with: `{"status", "headers", "body"}` with the body in base64, or `{"json"}`."""
    if not _is_response(returned):
        return {"json": returned}
    headers = {str(name): str(value) for name, value in dict(returned.headers).items()}
    return {
        "status": int(returned.status_code),
        "headers": headers,
        "body": base64.b64encode(_body_of(returned)).decode(),
    }


def _plain(returned: Any) -> Any:
    """The prediction for a body."""
    if not _is_response(returned):
        return returned
    body = _body_of(returned)
    if returned.status_code >= 400:
        code = "invalid_item" if returned.status_code < 500 else "model_failed"
        return Failed(f"run answered with {returned.status_code}: {body[:200].decode(errors='replace')}", code)
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return body.decode(errors="replace")


def _is_response(returned: Any) -> bool:
    """True for an AMLResponse, ours or the real one, and for a response of Flask's."""
    return hasattr(returned, "status_code") and hasattr(returned, "headers") and hasattr(returned, "data")


def _body_of(returned: Any) -> bytes:
    data = returned.data if not hasattr(returned, "get_data") else returned.get_data()
    return data.encode() if isinstance(data, str) else bytes(data)


def _installed_rawhttp() -> bool:
    """True when the real package is in use, and its `rawhttp`, which marks no function but the process."""
    module = sys.modules.get("azureml_inference_server_http.api.aml_request")
    return bool(getattr(module, "_rawHttpRequested", False))


def _may_answer_whole() -> bool:
    """True when an AMLResponse may come: the script, or what it imported, knows the class."""
    return any(name.endswith(_ANSWERS) for name in sys.modules)


def _has_schema(run: Callable[..., Any]) -> bool:
    schemas = sys.modules.get("inference_schema.schema_util")
    return schemas is not None and bool(schemas.is_schema_decorated(run))
