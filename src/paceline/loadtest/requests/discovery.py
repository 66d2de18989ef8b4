"""What is to be sent, and where? A server is asked until that is known, and its answer to a first request is good.

Rules:
- What the command line says is taken; what it does not say is asked; what nobody says is an error that names the flag.
- Whatever is wrong is a `ConfigError`: a load test that could not be made is none that has failed.
- A server that is not ready is waited for, for a while, and it is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from paceline.core.errors import ConfigError
from paceline.loadtest.requests import grpc_server, servers
from paceline.loadtest.requests.address import Address, parse
from paceline.loadtest.requests.asking import Asker, NotHttp
from paceline.loadtest.requests.bodies import Place, Wanted, target_at
from paceline.loadtest.requests.encodings import carries
from paceline.loadtest.requests.replay import Replay
from paceline.loadtest.requests.servers import Elsewhere, Model, Paceline, Server
from paceline.loadtest.target import PROTOCOLS, Protocol, Target

READY_S: Final = 60.0
"""How long a model that is not ready is waited for."""

_POLL_S: Final = 0.1


def find(
    url: str,
    *,
    model: str | None = None,
    protocol: str | None = None,
    rows: int = 1,
    data: Path | None = None,
    body: Path | Sequence[Path] | None = None,
    content_type: str | None = None,
    replay: Replay | None = None,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    timeout_s: float = 10.0,
    seed: int = 0,
    tls: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Target:
    """Find out what a load test of a URL sends.

    Args:
        url: of a server, or of one of its routes.
        protocol: one of `PROTOCOLS`.
        rows: in each request.
        data: a file of rows.
        body: files that are sent as they are.
        content_type: of `body` and `replay`.
        headers: sent with every request, and every question.
        timeout_s: for each answer.
        tls: what sends the requests speaks https.
        say: told what takes time.

    Raises:
        ConfigError: the server cannot be reached or understood, or does not accept what would be sent.
    """
    wanted = Wanted(
        model=model or "",
        protocol=_known(protocol),
        rows=rows,
        data=data,
        files=(body,) if isinstance(body, Path) else tuple(body or ()),
        content_type=content_type,
        replay=replay,
        headers=dict(headers),
        timeout_s=timeout_s,
        seed=seed,
    )
    wanted.check()
    address = parse(url, tls=tls)
    return target_at(_place(address, wanted, _server(address, wanted), say), wanted)


def _known(protocol: str | None) -> Protocol | None:
    found: Protocol | None = next((each for each in PROTOCOLS if each == protocol), None)
    if protocol is not None and found is None:
        raise ConfigError(f"--protocol: expected one of {', '.join(PROTOCOLS)}, got '{protocol}'")
    return found


def _server(address: Address, wanted: Wanted) -> Server:
    protocol = wanted.protocol or address.protocol
    route = address.route.removeprefix(address.prefix) if address.protocol in (None, "plain") else ""
    try:
        asker = Asker(address, wanted.headers, wanted.timeout_s)
        return servers.identify(asker, route, address.model or wanted.model)
    except NotHttp:
        if address.wire != "grpc" and not (protocol or "").endswith("-grpc"):
            raise
    if wanted.as_they_are and address.route:
        return Elsewhere({}, address.route)  # of any service
    return grpc_server.identify(address, protocol, wanted.headers, wanted.timeout_s)


def _place(address: Address, wanted: Wanted, server: Server, say: Callable[[str], None]) -> Place:
    if wanted.as_they_are and (address.route or wanted.says_where):
        model = Model(name=address.model or wanted.model)  # no need to know more
        return Place(address, _protocol(address, wanted, server, model), server.says, model)
    if isinstance(server, Paceline) and address.route and address.protocol is None:
        hint = f"leave the path out: {address.base}; or name one of a model, such as {address.base}/predict"
        raise ConfigError(f"{address.base}{address.route}: {server.says} has no predictions there", hint=hint)
    name = _name(address, wanted, server)
    _wait_until_ready(address, server, name, say)
    model = Model(name=name)
    if not isinstance(server, Elsewhere) or _is_plain(address, wanted):
        model = server.model(name, address.version)
    if isinstance(server, Paceline):
        model = _at_route(model, address)
    protocol = _protocol(address, wanted, server, model)
    if protocol == "plain" and not model.path:
        raise ConfigError(f"{address.base}: has no plain route that is known", hint="name it in the URL")
    return Place(address, protocol, server.says, model)


def _is_plain(address: Address, wanted: Wanted) -> bool:
    """Nothing says that another protocol is spoken."""
    return (wanted.protocol or address.protocol) in (None, "plain", "raw")


def _at_route(model: Model, address: Address) -> Model:
    """The model by the plain route that the URL names."""
    if address.route.endswith("/score"):
        return replace(model, path=address.route.removeprefix(address.prefix), lists_path="")
    if address.route.endswith("/batch-predict"):
        return replace(model, path=model.lists_path, takes_lists=True)
    return model


def _protocol(address: Address, wanted: Wanted, server: Server, model: Model) -> Protocol:
    """The one asked for, or the first that the server speaks and that has the model's datatypes."""
    chosen = wanted.protocol or address.protocol
    if chosen is not None and chosen != "raw":
        return chosen
    speaks = [each for each in server.protocols if address.wire != "grpc" or each.endswith("-grpc")]
    can: list[Protocol] = [each for each in speaks if carries(each, model.signature)]
    return next(iter(can or speaks), "oip-grpc")


def _name(address: Address, wanted: Wanted, server: Server) -> str:
    """The model to ask; "" where no name is needed."""
    if address.model and wanted.model not in ("", address.model):
        raise ConfigError(f"--model {wanted.model}: the URL names the model '{address.model}'")
    name, known = address.model or wanted.model, server.names()
    if name and known and name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"served: {', '.join(known)}"
        raise ConfigError(f"{address.base}: no model is called '{name}'", hint=hint)
    if name or (isinstance(server, Elsewhere) and _is_plain(address, wanted)):
        return name
    if len(known) == 1:
        return known[0]
    if known:
        text = f"{address.base}: serves {len(known)} models: {', '.join(known)}"
        raise ConfigError(text, hint="say which: --model NAME")
    text = f"{address.base}: {server.says or 'the server'} does not list its models"
    raise ConfigError(text, hint="say which to ask: --model NAME")


def _wait_until_ready(address: Address, server: Server, name: str, say: Callable[[str], None]) -> None:
    until, said = time.monotonic() + READY_S, ""
    while why := server.not_ready(name):
        if time.monotonic() > until:
            raise ConfigError(f"{address.base}: model '{name}' is not ready after {READY_S:g} s: {why}")
        if why != said:
            say(f"waiting for model '{name}': {why}")
            said = why
        time.sleep(_POLL_S)
