"""The standard health service of gRPC: Kubernetes' probes, and clients that choose among servers.

grpc.health.v1.Health/Check     the state now
grpc.health.v1.Health/Watch     the state now, and again whenever it changes

Rules:
- The server and its services are SERVING when the server is ready, which it is not while it warms up or drains. A
  model is asked for by its name.
- Services of TensorFlow Serving are known by their short names too, which its clients use.
- What is not known is NOT_FOUND for Check. Watch says SERVICE_UNKNOWN and goes on: it may come.
- Watch says NOT_SERVING when the server begins to drain, and ends when its connection does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from paceline.core.errors import ModelNotFound
from paceline.engine.engine import Phase
from paceline.server.app import App
from paceline.server.grpc import GrpcCall, Method
from paceline.server.messages import message, parsed

SERVICE: Final = "grpc.health.v1.Health"
_SHORT_NAMES: Final = ("PredictionService", "ModelService")
_REQUEST: Final = message("grpc.health.v1.HealthCheckRequest")
_RESPONSE: Final = message("grpc.health.v1.HealthCheckResponse")


def methods(app: App, services: set[str]) -> list[Method]:
    """The methods of this service.

    Args:
        services: full names of all that the server offers.
    """
    health = _Health(app, {"", SERVICE, *services, *_SHORT_NAMES})
    return [
        Method(f"/{SERVICE}/Check".encode(), health.check),
        Method(f"/{SERVICE}/Watch".encode(), health.watch),
    ]


class _Health:
    def __init__(self, app: App, services: set[str]) -> None:
        self._app = app
        self._services = services

    def check(self, call: GrpcCall) -> None:
        """Check."""
        service = parsed(_REQUEST, call.body).service
        state = self.state(service)
        if state == "SERVICE_UNKNOWN":
            raise ModelNotFound(f"unknown service: '{service[:200]}'")
        call.send(_encoded(state))
        call.finish()

    def watch(self, call: GrpcCall) -> None:
        """Watch."""
        _Watch(call, functools.partial(self.state, parsed(_REQUEST, call.body).service), self._app).look()

    def state(self, service: str) -> str:
        """The state of a service or model."""
        app = self._app
        if service in self._services:
            good = app.ready
        elif service in app.engine.names():
            good = app.engine.entry(service).phase is Phase.AVAILABLE
        else:
            return "SERVICE_UNKNOWN"
        return "SERVING" if good and not app.draining else "NOT_SERVING"


class _Watch:
    """One client that watches."""

    def __init__(self, call: GrpcCall, state: Callable[[], str], app: App) -> None:
        self._call = call
        self._state = state
        self._app = app
        self._told = ""
        app.engine.on_change.add(self.look)
        call.on_disconnect = self._leave
        call.on_drain = call.dismiss

    def look(self) -> None:
        """Tell the client what has changed."""
        state = self._state()
        if state != self._told:
            self._told = state
            self._call.send(_encoded(state))

    def _leave(self) -> None:
        self._call.on_disconnect = self._call.on_drain = None
        self._app.engine.on_change.discard(self.look)


def _encoded(state: str) -> bytes:
    encoded: Any = _RESPONSE(status=state).SerializeToString()
    return bytes(encoded)
