"""Is the body of a type that the route reads?"""

from __future__ import annotations

from typing import Final

from paceline.server.http1 import JSON, HttpRequest
from paceline.server.routes import Unrouted
from paceline.server.status import Rejection

# `curl -d` says form-urlencoded whatever it sends; examples all over the world rely on servers not minding.
_READ_AS_JSON: Final = frozenset((JSON, b"text/json", b"application/x-www-form-urlencoded"))


def require_json(http: HttpRequest) -> None:
    """Refuse bodies that say they are something else than JSON.

    Raises:
        Unrouted: 415.
    """
    given = http.headers.get(b"content-type")
    if given is None or given == JSON:
        return
    kind = given.partition(b";")[0].strip().lower()
    if kind not in _READ_AS_JSON and not kind.endswith(b"+json"):
        shown = kind[:80].decode("latin-1")
        raise Unrouted(
            Rejection(415, "unsupported_media_type", f"content-type '{shown}' is not supported: application/json")
        )
