"""Where do requests go, and what is in them?"""

from __future__ import annotations

from typing import Literal

import msgspec

Wire = Literal["http1", "grpc"]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A route of a server, and the requests for it.

    Attributes:
        protocol: as reports call it: `plain`, `oip`, `oip-binary`, `tfs`, `oip-grpc`, `tfs-grpc`, or `raw` for bodies
            from a file that are sent as they are.
        path: of HTTP; for gRPC "/package.Service/Method".
        bodies: sent in turn; for gRPC the messages, without their frames. At least one.
        headers: sent with each; content-type among them. Host, content-length and what gRPC wants are added.
        rows: in each body.
        model: that is asked; "" if unknown.
        server: what says it is, such as "paceline 0.4"; "" if unknown.
    """

    host: str
    port: int
    wire: Wire = "http1"
    protocol: str
    path: str
    bodies: tuple[bytes, ...]
    headers: tuple[tuple[str, str], ...] = ()
    rows: int = 1
    model: str = ""
    server: str = ""

    @property
    def url(self) -> str:
        """As one would type it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'grpc' if self.wire == 'grpc' else 'http'}://{host}:{self.port}{self.path}"
