"""The pages written by hand name everything that the code can say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.config.settings import ServeSettings
from paceline.core import errors
from paceline.engine.engine import Engine
from paceline.server.app import App
from paceline.server.http1 import Limits
from paceline.server.metrics import exposition
from paceline.server.protocols import all_methods, all_routes
from paceline.server.routes import ANY_METHOD, Route
from paceline.testing import run_server
from support.models import identity
from support.wire import ask, get

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
WITH_REPLICAS_ONLY = {"paceline_replica_up", "paceline_replica_restarts_total"}
SOURCES = Path(__file__).parents[2] / "src" / "paceline"


def test_every_metric_is_described():
    assert families(exposition(App(Engine(), Limits()))) == described_metrics() - WITH_REPLICAS_ONLY


@pytest.mark.slow
def test_every_metric_of_replicas_is_described(tmp_path: Path):
    with run_server(identity(tmp_path / "echo.onnx"), ["--replicas", "1"]) as server:
        assert families(ask(server, get("/metrics")).body) == described_metrics()


def families(text: bytes) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))


def described_metrics() -> set[str]:
    return set(re.findall(r"^\| `(\S+)`", (REFERENCE / "metrics.md").read_text(), re.MULTILINE))


def test_every_error_code_is_described():
    page = (REFERENCE / "errors.md").read_text()
    described = set(re.findall(r"^\| \d+ \| `(\w+)`", page, re.MULTILINE))
    raised = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    at_start = {"config_error", "runtime_unavailable", "model_load_error", "address_unavailable", "unsafe_model"}
    of_a_command = {"generator_failed", "cannot_change", "step_failed"}  # no client of a server sees them
    by_reason = {"overloaded"}  # clients see the reason: queue_full, queue_bytes or deadline_unreachable
    assert raised - at_start - of_a_command - by_reason <= described
    assert by_the_wire() <= described


def by_the_wire() -> set[str]:
    """Codes of the rejections that are no error of the core."""
    text = "\n".join(path.read_text() for path in (SOURCES / "server").rglob("*.py"))
    return set(re.findall(r'(?:Rejection|_reject)\(\s*\d{3},\s*"(\w+)"', text))


def test_every_route_is_described_and_every_described_route_is_there():
    described = set(described_routes((REFERENCE / "http-api.md").read_text()))
    served = all_routes(App(Engine(), Limits()), ServeSettings())
    for route in served:
        assert any(leads_to(route, *each) for each in described), f"{route.method} {route.pattern.pattern}"
    for method, path in described:
        assert any(leads_to(route, method, path) for route in served), f"{method} {path}"


def described_routes(page: str) -> Iterator[tuple[str, str]]:
    """Method and whole path of each route in the tables; an optional part gives two paths."""
    for method, path in re.findall(r"`(GET|POST) (/[^`?]*)`(?=[^|\n]*\|)", page):
        path = path.replace("/versions/N", "/versions/1")
        yield method, re.sub(r"\[.*?\]", "", path)
        yield method, re.sub(r"[\[\]]", "", path)


def leads_to(route: Route, method: str, path: str) -> bool:
    return route.method in (method, ANY_METHOD) and route.pattern.fullmatch(path) is not None


def test_every_grpc_method_is_described_and_every_described_method_is_there():
    page = (REFERENCE / "http-api.md").read_text().partition("\n## gRPC\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", page, re.MULTILINE)
    described = {f"/{service}/{method}" for service, methods in rows for method in re.findall(r"`(\w+)`", methods)}
    served = {method.path.decode() for method in all_methods(App(Engine(), Limits()), ServeSettings())}
    assert described == served
