"""Which server does a URL mean, and which of its routes?

    localhost:8080                          a server: what it speaks is asked
    http://localhost:8080/models/ner        the same, and a model of it
    http://host:8501/v1/models/ner:predict  a route whose protocol is known by its path
    http://host:5000/anything?x=1           a route of which nothing is known
    grpc://host:8001                        a server that is asked over gRPC

Rules:
- What stands before a known route, as reverse proxies have it, is kept.
- Nothing is asked here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from paceline.core.errors import ConfigError
from paceline.loadtest.target import Protocol, Wire, base_url
from paceline.runtimes.formats import FORMATS

_SERVED: Final = (".py", ".r", ".toml", *(ending for each in FORMATS for ending in each.endings))
_OBJECT: Final = re.compile(r":[A-Za-z_]\w*\Z")
_DEFAULT_PORT: Final = 8080
_USUAL_PORTS: Final = {"http": 80, "https": 443}
_VERSION: Final = r"(?:/versions/(?P<version>[^/:]+))?"
_ROUTES: Final[tuple[tuple[Protocol | None, re.Pattern[str]], ...]] = (
    ("oip", re.compile(rf"(?P<prefix>.*?)/v2/models/(?P<model>[^/]+){_VERSION}(?P<verb>/infer)?/?")),
    ("tfs", re.compile(rf"(?P<prefix>.*?)/v1/models/(?P<model>[^/:]+){_VERSION}(?P<verb>:predict)?/?")),
    ("plain", re.compile(r"(?P<prefix>.*?)(?:/models/(?P<model>[^/]+))?/(?P<verb>predict|batch-predict|score)")),
    (None, re.compile(r"(?P<prefix>.*?)/models/(?P<model>[^/]+)/?")),
    ("oip-grpc", re.compile(r"/inference\.GRPCInferenceService/(?P<verb>ModelInfer)")),
    ("tfs-grpc", re.compile(r"/tensorflow\.serving\.PredictionService/(?P<verb>Predict)")),
)


class Address(NamedTuple):
    """What a URL says.

    Attributes:
        tls: the URL is one of https.
        wire: None: the URL does not say.
        prefix: of every path of the server, without a slash at the end.
        protocol: None: the URL does not say.
        model, version: "" where the URL has none.
        route: the whole path, and query, that requests go to; "" where the URL has none.
    """

    host: str
    port: int
    tls: bool = False
    wire: Wire | None = None
    prefix: str = ""
    protocol: Protocol | None = None
    model: str = ""
    version: str = ""
    route: str = ""

    @property
    def base(self) -> str:
        """The server, as one would type it."""
        return base_url(self.host, self.port, wire=self.wire, tls=self.tls) + self.prefix


def parse(url: str, *, tls: bool = False) -> Address:
    """Take a URL apart.

    Args:
        tls: https is spoken.

    Raises:
        ConfigError: it is none, or of a kind that cannot be spoken.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme == "grpcs" or (parts.scheme == "https" and not tls):
        raise ConfigError(
            f"{url}: TLS is not spoken",
            hint="test the server behind its proxy over http, or use --engine locust, which speaks https",
        )
    if parts.scheme not in ("http", "https", "grpc"):
        raise ConfigError(f"{url}: expected http://HOST:PORT or grpc://HOST:PORT, got the scheme '{parts.scheme}'")
    if parts.username is not None:
        raise ConfigError(f"{url}: a name and a password in a URL are not sent", hint="--header 'Authorization: ...'")
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: {str(error).lower()}") from error
    if not parts.hostname or port == 0:
        raise ConfigError(f"{url}: expected http://HOST:PORT, got no {'host' if port != 0 else 'port'}")
    usual = _USUAL_PORTS.get(parts.scheme, _DEFAULT_PORT) if "://" in url else _DEFAULT_PORT
    wire: Wire | None = "grpc" if parts.scheme == "grpc" else None
    address = Address(parts.hostname, port or usual, parts.scheme == "https", wire)
    return address._replace(**_route(parts.path, parts.query))


def is_served_here(target: str) -> bool:
    """True for what `paceline serve` takes, such as `service.py:Name`, also if there is no such file."""
    if "://" in target:
        return False
    path = Path(_OBJECT.sub("", target))
    return Path(target).exists() or path.exists() or path.suffix.lower() in _SERVED


def _route(path: str, query: str) -> dict[str, Any]:
    whole = f"{path}?{query}" if query else path
    for protocol, pattern in _ROUTES:
        match = pattern.fullmatch(path)
        if match:
            groups = match.groupdict()
            known = {name: unquote(groups.get(name) or "") for name in ("prefix", "model", "version")}
            return {**known, "protocol": protocol, "route": whole if groups.get("verb") else ""}
    return {"route": whole if whole != "/" else ""}
