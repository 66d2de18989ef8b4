"""What stands in for `azureml.contrib.services`, so that scoring scripts import unchanged?

`rawhttp` marks a `run` that takes the whole HTTP request; `AMLRequest` is that request, with the attributes of Flask's
that such scripts use; `AMLResponse` is an answer with a status and headers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

_F = TypeVar("_F", bound=Callable[..., Any])
RAW_MARK: Final = "__paceline_rawhttp__"


def rawhttp(function: _F) -> _F:
    """Mark a `run` that takes an `AMLRequest`."""
    function.__dict__[RAW_MARK] = True
    return function


class Headers(Mapping[str, str]):
    """Headers; names are looked up in any case."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name.lower(): value for name, value in values.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Arguments(dict[str, str]):
    """The first value of each name in a query or a form."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._pairs = parse_qsl(text, keep_blank_values=True)
        for name, value in self._pairs:
            self.setdefault(name, value)

    def getlist(self, name: str) -> list[str]:
        """All values of a name."""
        return [value for each, value in self._pairs if each == name]


class AMLRequest:
    """An HTTP request.

    Attributes:
        method: upper case.
        path: without the query.
        query_string: what follows `?`.
        headers: by name, in any case.
        args: of the query.
        data: the body.
    """

    def __init__(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.query_string = query.encode()
        self.headers = Headers(headers)
        self.args = Arguments(query)
        self.data = body

    @property
    def full_path(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query_string.decode()}"

    @property
    def content_type(self) -> str | None:
        """The header."""
        return self.headers.get("content-type")

    @property
    def mimetype(self) -> str:
        """The content type without parameters, in lower case."""
        return (self.content_type or "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        """True when the content type says so."""
        return self.mimetype == "application/json" or self.mimetype.endswith("+json")

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return self.get_json()

    @property
    def form(self) -> Arguments:
        """The fields of a form that is encoded as a query is."""
        return Arguments(self.data.decode() if self.mimetype == "application/x-www-form-urlencoded" else "")

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """The body, as bytes or as text."""
        return self.data.decode("utf-8") if as_text else self.data

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body, decoded; None where it is not said to be JSON, unless `force`.

        Raises:
            ValueError: it is none, unless `silent`.
        """
        if not force and not self.is_json:
            return None
        try:
            return json.loads(self.data)
        except ValueError:
            if silent:
                return None
            raise


class AMLResponse:
    """An HTTP response.

    Args:
        message: the body: bytes, text, or with `json_str` anything that JSON can carry; None: an empty object.
        response_headers: a value with commas is several headers.

    Attributes:
        status_code: as given.
        headers: names and values, in the order given.
        data: the body.
    """

    def __init__(
        self,
        message: Any,
        status_code: int = 200,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        self.status_code = int(status_code)
        kind = "text/html; charset=utf-8"
        if json_str or message is None:
            kind = "application/json"
            message = json.dumps({} if message is None else message)
        elif not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"AMLResponse: expected text or bytes, got {type(message).__name__}; or say json_str=True")
        self.data = message.encode() if isinstance(message, str) else bytes(message)
        self.headers: dict[str, str] = {"content-type": kind}
        self.run_function_failed = run_function_failed
        for name, value in (response_headers or {}).items():
            self.headers[name.lower()] = str(value)
