"""Which handler answers a method and a path?

A route is a method, a regular expression over the percent-decoded path, and a handler that takes the request
and the named groups. What a raw path resolves to is remembered, so the hot path is one dictionary look-up; the memory
is bounded, because clients choose paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from paceline.server.http1 import HttpRequest
from paceline.server.status import Rejection

ANY_METHOD = "*"
_REMEMBERED = 1024
_ORIGIN = re.compile(rb"\Ahttps?://[^/]*", re.IGNORECASE)

Handler = Callable[[HttpRequest], None]


@dataclass(frozen=True)
class Route:
    """One line of the table.

    Attributes:
        method: upper case, or `ANY_METHOD`.
    """

    method: str
    pattern: re.Pattern[str]
    handler: Callable[..., None]


class Unrouted(Exception):
    """No handler for this method and path."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


class Router:
    """The table of routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = list(routes)
        self._known: dict[tuple[bytes, bytes], Handler] = {}

    def find(self, method: bytes, path: bytes) -> Handler:
        """The handler of a request.

        Raises:
            Unrouted: 404, or 405 with the methods that would do.
        """
        handler = self._known.get((method, path))
        if handler is None:
            handler = self._resolve(method, path)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[method, path] = handler
        return handler

    def _resolve(self, method: bytes, path: bytes) -> Handler:
        text = _decoded(path)
        asked = "GET" if method == b"HEAD" else method.decode("ascii")
        allowed: set[str] = set()
        for route in self._routes:
            match = route.pattern.fullmatch(text)
            if match is None:
                continue
            if route.method in (asked, ANY_METHOD):
                groups: dict[str, Any] = match.groupdict()
                return partial(route.handler, **groups) if groups else route.handler
            allowed |= {"GET", "HEAD"} if route.method == "GET" else {route.method}
        if allowed:
            names = ", ".join(sorted(allowed))
            raise Unrouted(
                Rejection(405, "method_not_allowed", "Method Not Allowed", f"allow: {names}\r\n".encode("ascii"))
            )
        raise Unrouted(Rejection(404, "not_found", "Not Found"))


def _decoded(path: bytes) -> str:
    """The path with its escapes resolved; what is not UTF-8 matches no route."""
    if not path.startswith(b"/"):
        path = _ORIGIN.sub(b"", path)  # `GET http://host/path` is for every server to accept (RFC 9112, 3.2.2)
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return "\0"
