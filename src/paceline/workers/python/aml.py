"""What stands in for `azureml.contrib.services`, so that scoring scripts import unchanged?

`rawhttp` marks a `run` that takes the whole HTTP request; `AMLRequest` is that request, with the attributes of Flask's
that such scripts use; `AMLResponse` is an answer with a status and headers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from email import message_from_bytes
from email.message import Message
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

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._pairs = list(pairs)
        for name, value in self._pairs:
            self.setdefault(name, value)

    def getlist(self, name: str) -> list[str]:
        """All values of a name."""
        return [value for each, value in self._pairs if each == name]


class UploadedFile(io.BytesIO):
    """A file in a form: it can be read, and handed to what opens files."""

    def __init__(self, data: bytes, name: str, content_type: str) -> None:
        super().__init__(data)
        self.filename = name
        self.content_type = content_type


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
        self.args = Arguments(parse_qsl(query, keep_blank_values=True))
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
        """The fields of a form that are no files."""
        if self.mimetype == "application/x-www-form-urlencoded":
            return Arguments(parse_qsl(self.data.decode(), keep_blank_values=True))
        return Arguments((name, data.decode()) for name, head, data in self._parts() if head.get_filename() is None)

    @property
    def files(self) -> dict[str, UploadedFile]:
        """The files of a form, by the name of their field."""
        parts = ((name, head.get_filename(), head, data) for name, head, data in self._parts())
        return {name: UploadedFile(data, file, head.get_content_type()) for name, file, head, data in parts if file}

    def _parts(self) -> Iterator[tuple[str, Message, bytes]]:
        """Name, headers and content of each part of a form."""
        kind = message_from_bytes(f"content-type: {self.content_type}\r\n\r\n".encode("latin-1", "replace"))
        boundary = kind.get_boundary()
        if self.mimetype != "multipart/form-data" or not boundary:
            return
        for part in (b"\r\n" + self.data).split(b"\r\n--" + boundary.encode())[1:]:
            if part.startswith(b"--"):
                return
            lines, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            head = message_from_bytes(lines + b"\r\n\r\n")
            yield str(head.get_param("name", "", "content-disposition")), head, data

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
