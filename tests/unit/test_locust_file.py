"""The locustfile that is written for a target: what it holds, and where it may be written."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import ConfigError
from paceline.loadtest.locust import file as locust_file
from paceline.loadtest.target import Target


def target(*bodies: bytes, **changes: Any) -> Target:
    return Target(
        **{
            "host": "localhost",
            "port": 8080,
            "protocol": "plain",
            "path": "/predict",
            "headers": (("content-type", "application/json"),),
            "bodies": bodies,
            **changes,
        }
    )


def constants(script: str) -> dict[str, Any]:
    """What stands in the script, by name."""
    found = {}
    for line in ast.parse(script).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                found[line.targets[0].id] = ast.literal_eval(line.value)
            except ValueError:
                continue  # it is computed
    return found


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.binary(), min_size=1, max_size=4), TEXT, TEXT, st.sampled_from(["http1", "grpc"]))
def test_whatever_is_sent_stands_in_the_script(bodies: list[bytes], path: str, value: str, wire: str) -> None:
    script = locust_file.text(target(*bodies, wire=wire, path=path, headers=(("x-odd", value),)))
    found = constants(script)
    assert found["BODIES"] == bodies
    assert found["PATH"] == path
    assert found["METADATA" if wire == "grpc" else "HEADERS"] in ({"x-odd": value}, [("x-odd", value)])


def test_bodies_with_paths_of_their_own() -> None:
    script = locust_file.text(target(b"a", b"b", paths=("/one", "/two")))
    assert constants(script)["PATHS"] == ["/one", "/two"]
    assert "zip(PATHS, BODIES)" in script


def test_the_address_and_the_pauses_are_the_user_s_to_change() -> None:
    script = locust_file.text(target(b"", host="::1", tls=True), (1.0, 2.5), timeout_s=7.0)
    assert 'host = "https://[::1]:8080"' in script
    assert "wait_time = between(1, 2.5)" in script
    assert "network_timeout = 7\n" in script
    assert "wait_time = constant(0)" in locust_file.text(target(b""))


def test_headers_that_grpcio_sends_itself_are_left_out() -> None:
    headers = (("Content-Type", "application/grpc"), ("Authorization", "Bearer x"))
    script = locust_file.text(target(b"", wire="grpc", path="/a.B/c", headers=headers))
    assert constants(script)["METADATA"] == [("authorization", "Bearer x")]
    assert 'host = "localhost:8080"' in script


@pytest.mark.parametrize(
    ("bodies", "first"),
    [
        ((b'{"x": 1}' + b" " * 30_000, b"", b'{"x": "\\n"}'), b'{"x": 1}'),
        ((bytes(range(256)) * 100, b"", b"\n"), b"AAECAwQFBgcICQoL"),
        (("größe".encode() * 4000, b"x"), b"Z3LDtsOfZ"),
    ],
)
def test_long_bodies_lie_beside_the_script(tmp_path: Path, bodies: tuple[bytes, ...], first: bytes) -> None:
    written = locust_file.write(tmp_path / "out.py", target(*bodies))
    assert written == [tmp_path / "out.py", tmp_path / "out.bodies"]
    script = written[0].read_text()
    assert len(script) < 3000
    names: dict[str, Any] = {"__file__": str(written[0])}
    reading = [line for line in script.splitlines() if line.startswith(("import base64", "from pathlib", "BODIES"))]
    exec("\n".join(reading), names)
    assert tuple(names["BODIES"]) == bodies
    assert written[1].read_bytes().startswith(first)


def test_a_name_that_locust_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.py") as raised:
        locust_file.write(tmp_path / "out.txt", target(b""))
    assert raised.value.hint == f"--locustfile {tmp_path / 'out.py'}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["out.py", "out.bodies"])
def test_nothing_is_written_over_unless_it_is_asked_for(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    long = target(bytes(50_000))
    with pytest.raises(ConfigError, match=there):
        locust_file.write(tmp_path / "out.py", long)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]
    locust_file.write(tmp_path / "out.py", long, force=True)
    assert (tmp_path / there).read_text() != "mine"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        locust_file.write(tmp_path / "none" / "out.py", target(b""))
