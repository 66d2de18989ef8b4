"""One file per public contract. A protocol only translates: it takes no decision and knows no model."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Final

from paceline.config.settings import ServeSettings
from paceline.server.app import App
from paceline.server.grpc import Method
from paceline.server.protocols import azure, oip, openapi, operations, plain, tfs
from paceline.server.routes import Route

_GRPC: Final = ("health_grpc", "oip_grpc", "reflection", "tfs_grpc")


def all_routes(app: App, settings: ServeSettings) -> list[Route]:
    """The routes of every protocol."""
    return [
        *plain.routes(app),
        *azure.routes(app),
        *oip.routes(app, settings),
        *operations.routes(app),
        *openapi.routes(app),
        *tfs.routes(app, settings),
    ]


def preload() -> None:
    """Import what gRPC needs: so late because protobuf would delay the start, and before a call has to wait for it."""
    with suppress(OSError):  # out of files, say: then the first call has to wait, if not to fail
        for name in _GRPC:
            import_module(f"{__name__}.{name}")


def all_methods(app: App, settings: ServeSettings) -> list[Method]:
    """The methods of every gRPC service."""
    from paceline.server.protocols import health_grpc, oip_grpc, reflection, tfs_grpc

    own = [
        *oip_grpc.methods(app, settings),
        *tfs_grpc.methods(app, settings),
    ]
    services = {method.path.split(b"/")[1].decode() for method in own}
    return [
        *own,
        *health_grpc.methods(app, services),
        *reflection.methods({*services, health_grpc.SERVICE}),
    ]
