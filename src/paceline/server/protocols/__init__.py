"""One file per public contract. A protocol only translates: it takes no decision and knows no model."""

from __future__ import annotations

from paceline.config.settings import ServeSettings
from paceline.server.app import App
from paceline.server.protocols import oip, openapi, operations, plain, tfs
from paceline.server.routes import Route


def all_routes(app: App, settings: ServeSettings) -> list[Route]:
    """The routes of every protocol."""
    return [
        *plain.routes(app),
        *oip.routes(app, settings),
        *operations.routes(app),
        *openapi.routes(app),
        *tfs.routes(app, settings),
    ]
