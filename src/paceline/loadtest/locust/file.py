"""What does a load test look like as a locustfile: a script of its own, which people read and change?

Rules:
- It needs Locust, and grpcio for gRPC; of Paceline, nothing.
- It sends what the target would be sent: the same bodies in turn, the same headers.
- A few short bodies stand in it; others lie in a file beside it, as lines of text where they are that.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Final

from paceline.core.errors import ConfigError
from paceline.loadtest.target import Target, authority

_MOST_INLINE_BYTES: Final = 20_000
_GIVEN_BY_GRPC: Final = ("content-type", "te", "user-agent", "content-length", "host")

_HTTP: Final = Template('''\
"""A load test for Locust, as `paceline bench --locustfile` writes it: change it as you like.

    $url

    pip install locust
    locust -f $name --headless -u 5 -r 5 -t 30s

Without --headless, its page is on http://localhost:8089.
"""

$imports

from locust import FastHttpUser, $wait_kind, task

HEADERS = $headers
$bodies

class Client(FastHttpUser):
    """Asks, waits for the answer, thinks, and asks again."""

    host = $host  # another one: --host
    wait_time = $wait
    connection_timeout = network_timeout = $timeout
    insecure = False  # True takes any certificate

    @task
    def predict(self):
        path, body = next(requests)
        with self.client.post(
            path, data=body, headers=HEADERS, catch_response=True, allow_redirects=False
        ) as answer:
            if answer.status_code and not 200 <= answer.status_code < 300:
                answer.failure(f"status {answer.status_code}")
''')

_GRPC: Final = Template('''\
"""A load test for Locust, as `paceline bench --locustfile` writes it: change it as you like.

    $url

    pip install locust grpcio
    locust -f $name --headless -u 5 -r 5 -t 30s

Without --headless, its page is on http://localhost:8089.
"""

$imports

import grpc
import grpc.experimental.gevent
from locust import User, $wait_kind, task

grpc.experimental.gevent.init_gevent()

METADATA = $headers
OPTIONS = {
    "grpc.use_local_subchannel_pool": 1,  # a connection for each user
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
}
$bodies

class Client(User):
    """Calls, waits for the answer, thinks, and calls again. Messages are bytes: they are neither made nor read."""

    host = $host  # another one: --host
    wait_time = $wait
    network_timeout = $timeout

    def on_start(self):
        self.channel = grpc.insecure_channel(self.host, options=list(OPTIONS.items()))

    def on_stop(self):
        self.channel.close()

    @task
    def predict(self):
        path, body = next(requests)
        answer, error = b"", None
        start_time, started = time.time(), time.perf_counter()
        try:
            answer = self.channel.unary_unary(path)(body, metadata=METADATA, timeout=self.network_timeout)
        except grpc.RpcError as failure:
            error = failure
        self.environment.events.request.fire(
            request_type="gRPC",
            name=path,
            response_time=(time.perf_counter() - started) * 1e3,
            response_length=len(answer),
            exception=error,
            context={},
            start_time=start_time,
        )
''')


def text(
    target: Target,
    think_s: tuple[float, float] = (0.0, 0.0),
    *,
    timeout_s: float = 30.0,
    name: str = "locustfile.py",
) -> str:
    """The script.

    Args:
        think_s: shortest and longest time between an answer and the next request.
        name: of the script's file. Long bodies are read from one of that name with another ending, which `write` makes.
    """
    is_grpc = target.wire == "grpc"
    low, high = think_s
    where = authority(target.host, target.port)
    wait = f"between({low:g}, {high:g})" if high > low else f"constant({low:g})"
    return (_GRPC if is_grpc else _HTTP).substitute(
        url=target.url.encode("unicode_escape").decode().replace('"', '\\"'),
        name=name,
        imports=_imports(target),
        wait_kind=wait.partition("(")[0],
        wait=wait,
        headers=_metadata(target) if is_grpc else _headers(target),
        bodies=_requests(target, name),
        host=_literal(where if is_grpc else f"http{'s' * target.tls}://{where}"),
        timeout=f"{timeout_s:g}",
    )


def write(
    path: Path,
    target: Target,
    think_s: tuple[float, float] = (0.0, 0.0),
    *,
    timeout_s: float = 30.0,
    force: bool = False,
) -> list[Path]:
    """Write the script, and its bodies beside it if they are long; the files that were written.

    Raises:
        ConfigError: the name is none of a Python script, a file is there already, or it cannot be written.
    """
    if path.suffix != ".py":
        raise ConfigError(
            f"--locustfile: expected a name that ends in .py, which Locust asks for, got '{path}'",
            hint=f"--locustfile {path.with_suffix('.py')}",
        )
    files = {path: text(target, think_s, timeout_s=timeout_s, name=path.name).encode()}
    if not _is_short(target):
        files[_bodies_beside(path)] = _lines(target)
    for each in () if force else files:
        if each.exists():
            raise ConfigError(f"--locustfile: {each} is there already", hint="--force writes over it")
    try:
        for each, content in files.items():
            each.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--locustfile: {path}: {error.strerror or error}") from error
    return list(files)


def _bodies_beside(path: Path) -> Path:
    """Where the bodies of a script lie that does not hold them."""
    return path.with_suffix(".bodies")


def _lines(target: Target) -> bytes:
    """The bodies for the file beside the script, one a line."""
    encode = bytes if _are_lines(target) else base64.b64encode
    return b"".join(encode(body) + b"\n" for body in target.bodies)


def _are_lines(target: Target) -> bool:
    """True if every body is a line of text, as compact JSON is; else base64 makes them that."""
    return all(body.isascii() and not {*b"\r\n"}.intersection(body) for body in target.bodies)


def _is_short(target: Target) -> bool:
    """True if the bodies can stand in the script."""
    return sum(map(len, target.bodies)) <= _MOST_INLINE_BYTES


def _imports(target: Target) -> str:
    """Of the standard library."""
    is_beside = not _is_short(target)
    modules = ["base64"] * (is_beside and not _are_lines(target)) + ["itertools"] + ["time"] * (target.wire == "grpc")
    return "\n".join([f"import {module}" for module in modules] + ["from pathlib import Path"] * is_beside)


def _requests(target: Target, name: str) -> str:
    """Lines that define the paths and bodies, and how they take turns."""
    if _is_short(target):
        bodies = _list(map(_literal, target.bodies))
    else:
        read = f"Path(__file__).with_name({_literal(_bodies_beside(Path(name)).name)}).read_bytes().splitlines()"
        bodies = read if _are_lines(target) else f"[base64.b64decode(line) for line in {read}]"
    if target.paths:
        paths, turns = f"PATHS = {_list(map(_literal, target.paths))}", "zip(PATHS, BODIES)"
    else:
        paths, turns = f"PATH = {_literal(target.path)}", "(PATH, body) for body in BODIES"
    return f"""\
{paths}
BODIES = {bodies}
# In turn, whichever user comes next.
requests = itertools.cycle({turns})
"""


def _headers(target: Target) -> str:
    pairs = [f"{_literal(name)}: {_literal(value)}" for name, value in target.headers]
    return "{" + "".join(f"\n    {pair}," for pair in pairs) + "\n" * bool(pairs) + "}"


def _metadata(target: Target) -> str:
    """Headers as grpcio takes them; it sends some itself."""
    pairs = [(name.lower(), value) for name, value in target.headers if name.lower() not in _GIVEN_BY_GRPC]
    return _list(f"({_literal(name)}, {_literal(value)})" for name, value in pairs)


def _list(items: Iterable[str]) -> str:
    shown = "".join(f"\n    {item}," for item in items)
    return f"[{shown}\n]" if shown else "[]"


def _literal(value: str | bytes) -> str:
    """As Python has it, with double quotes where they need no escape."""
    shown = repr(value)
    prefix = "b" if isinstance(value, bytes) else ""
    plain = shown.removeprefix(prefix)[1:-1]
    return shown if '"' in plain or "\\'" in plain else f'{prefix}"{plain}"'
