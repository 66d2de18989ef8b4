"""Where do requests go, and what is in them?"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

Wire = Literal["http1", "grpc"]
Protocol = Literal["plain", "oip", "oip-binary", "tfs", "oip-grpc", "tfs-grpc", "raw"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A route of a server, and the requests for it.

    Attributes:
        tls: only Locust speaks it.
        protocol: as reports call it; `raw`: bodies from a file that are sent as they are.
        path: of HTTP, with the query; for gRPC "/package.Service/Method".
        bodies: sent in turn; for gRPC the messages, without their frames. At least one.
        paths: of each body, where they differ; else empty.
        headers: sent with each; content-type among them. Host, content-length and what gRPC wants are added.
        rows: in each body.
        model: that is asked; "" if unknown.
        server: what says it is, such as "paceline 0.4"; "" if unknown.
        notes: what a reader of the numbers should know about the bodies, a sentence each.
    """

    host: str
    port: int
    wire: Wire = "http1"
    tls: bool = False
    protocol: str
    path: str
    bodies: tuple[bytes, ...]
    paths: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    rows: int = 1
    model: str = ""
    server: str = ""
    notes: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """As one would type it."""
        return base_url(self.host, self.port, wire=self.wire, tls=self.tls) + self.path

    def path_of(self, index: int) -> str:
        """Where the body of that index goes."""
        return self.paths[index] if self.paths else self.path


def authority(host: str, port: int) -> str:
    """Host and port as URLs and headers have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def base_url(host: str, port: int, *, wire: Wire | None, tls: bool) -> str:
    """A server, as one would type it."""
    return f"{'grpc' if wire == 'grpc' else 'http'}{'s' * tls}://{authority(host, port)}"
