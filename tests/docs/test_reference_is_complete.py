"""The pages written by hand name everything that the code can say."""

import re
from collections.abc import Iterator
from pathlib import Path

from paceline.config.settings import ServeSettings
from paceline.core import errors
from paceline.engine.engine import Engine
from paceline.server.app import App
from paceline.server.http1 import Limits
from paceline.server.metrics import exposition
from paceline.server.protocols import all_routes
from paceline.server.routes import Route

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
SOURCES = Path(__file__).parents[2] / "src" / "paceline"


def test_every_metric_is_described():
    page = (REFERENCE / "metrics.md").read_text()
    written = set(re.findall(r"^# TYPE (\S+)", exposition(App(Engine(), Limits())).decode(), re.MULTILINE))
    described = set(re.findall(r"^\| `(\S+)`", page, re.MULTILINE))
    assert written == described


def test_every_error_code_is_described():
    page = (REFERENCE / "errors.md").read_text()
    described = set(re.findall(r"^\| \d+ \| `(\w+)`", page, re.MULTILINE))
    raised = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    at_start = {"config_error", "runtime_unavailable", "model_load_error", "address_unavailable"}
    by_reason = {"overloaded"}  # clients see the reason: queue_full, queue_bytes or deadline_unreachable
    assert raised - at_start - by_reason <= described
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
    return route.method == method and route.pattern.fullmatch(path) is not None
