"""The description of the API, for programs and for people.

GET /openapi.json     OpenAPI 3.1, typed by the models' signatures
GET /docs             a page to try it on: one static file, no other host
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final

from paceline.server.app import App
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.openapi import document
from paceline.server.routes import Route

_HTML: Final = b"text/html; charset=utf-8"
_INLINE: Final = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)
_FRESH: Final = b"cache-control: no-cache\r\nx-content-type-options: nosniff\r\n"


def routes(app: App) -> list[Route]:
    """The routes of this protocol."""
    pages = _Pages(app)
    return [
        Route("GET", re.compile(r"/openapi\.json"), pages.openapi),
        Route("GET", re.compile("/docs"), pages.docs),
    ]


class _Pages:
    def __init__(self, app: App) -> None:
        self._app = app

    def openapi(self, http: HttpRequest) -> None:
        app = self._app
        app.reply(http, 200, dumps(document(app.engine, app.routed)), JSON, _FRESH)

    def docs(self, http: HttpRequest) -> None:
        page, policy = docs_page()
        self._app.reply(http, 200, page, _HTML, _FRESH + b"content-security-policy: %s\r\n" % policy)


@cache
def docs_page() -> tuple[bytes, bytes]:
    """The page, and a policy that lets it run its own script and talk to this server, and nothing else."""
    page = files("paceline.server").joinpath("static/docs.html").read_bytes()
    hashes: dict[bytes, list[bytes]] = {b"script": [], b"style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text).digest())
        hashes[kind].append(b"'sha256-%s'" % digest)
    policy = (
        b"default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src data:; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'"
    ) % (b" ".join(hashes[b"script"]), b" ".join(hashes[b"style"]))
    return page, policy
