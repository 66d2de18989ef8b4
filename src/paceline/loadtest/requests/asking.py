"""What does a server say when it is asked one thing over HTTP/1.1?

Rules:
- An answer comes within its deadline as a whole, however slowly its bytes drip.
- No proxy of the environment is used, and no redirect followed: the numbers would be those of somebody else.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

import msgspec

from paceline.core.errors import ConfigError, Unreachable
from paceline.loadtest.requests.address import Address

_MOST_BYTES: Final = 256 << 20
_SHOWN: Final = 500
_READ: Final = 1 << 20
_GRPC: Final = "a gRPC server is grpc://HOST:PORT"
_TRACEBACK: Final = "Traceback (most recent call last)"


class NotHttp(ConfigError):
    """What answers there does not speak HTTP/1.1."""


class Reply(NamedTuple):
    """An answer.

    Attributes:
        headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """The status is one of success."""
        return 200 <= self.status < 300

    @property
    def document(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    @property
    def says(self) -> str:
        """What an error says, for people."""
        document = self.document
        if isinstance(document, dict):
            for key in ("error", "detail", "message"):
                value = document.get(key)
                if value:
                    return value if isinstance(value, str) else msgspec.json.encode(value).decode()[:_SHOWN]
        text = self.body[-_READ:].decode(errors="replace").strip()
        if _TRACEBACK in text:
            text = text.rpartition("\n")[2]
        return " ".join(text.split())[:_SHOWN] or "nothing"


class Asker:
    """Asks one server.

    Args:
        headers: sent with every question.
        timeout_s: for each answer.
    """

    def __init__(self, address: Address, headers: Mapping[str, str], timeout_s: float) -> None:
        self._address = address
        self._headers = headers
        self._timeout_s = timeout_s

    def get(self, path: str) -> Reply:
        """GET a path of the server, behind its prefix.

        Raises:
            Unreachable, NotHttp: there is no answer.
        """
        return self.ask("GET", self._address.prefix + path)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST to a path of the server, behind its prefix.

        Raises:
            Unreachable, NotHttp: there is no answer.
        """
        return self.ask("POST", self._address.prefix + path, body, headers)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Ask anything, by its whole path.

        Raises:
            Unreachable, NotHttp: there is no answer.
        """
        with self._connected() as connection:
            connection.request(method, path, body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            data = response.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise NotHttp(f"{self._address.base}: {method} {path}: the answer is larger than {_MOST_BYTES} bytes")
            if response.length:
                raise http.client.IncompleteRead(data, response.length)
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, data)

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        where, late = self._address.base, threading.Event()
        kind = http.client.HTTPSConnection if self._address.tls else http.client.HTTPConnection
        connection = kind(self._address.host, self._address.port, timeout=self._timeout_s)

        def cut() -> None:
            late.set()
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout_s, cut)
        try:
            connection.connect()
            connected = connection.sock  # the connection forgets it when the answer is to be the last
            timer.start()
            yield connection
            if late.is_set():  # what was cut may look like an end
                raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise Unreachable(f"{where}: no answer within {self._timeout_s:g} s") from error
            raise unreachable(where, error) from error
        finally:
            timer.cancel()
            connection.close()


def unreachable(where: str, error: Exception) -> ConfigError:
    """The error for a server that could not be asked."""
    if isinstance(error, socket.gaierror):
        return Unreachable(f"{where}: the name of the host cannot be resolved")
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"{where}: nothing listens there", hint="start a server: paceline serve MODEL")
    if isinstance(error, ConnectionError):
        return NotHttp(f"{where}: closes the connection without an answer", hint=_GRPC)
    if isinstance(error, http.client.HTTPException):
        return NotHttp(f"{where}: what answers does not speak HTTP/1.1", hint=_GRPC)
    if isinstance(error, ValueError):  # of http.client: characters that a header or a path may not have
        return NotHttp(f"{where}: {error}")
    return Unreachable(f"{where}: {str(getattr(error, 'strerror', '') or error).lower()}")
