"""Which requests are sent to a route, once it is known what it takes?

Rules:
- Whole bodies and recordings are sent as they are; rows of a file are written in the route's protocol; without either,
  inputs are made (`payloads`), and where that takes guessing, the first guess that the server accepts is taken.
- The first request of every target has been answered with a prediction.
- What the bodies are, and what that means for the numbers, is in the target's notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from paceline.core.errors import ConfigError, PacelineError
from paceline.core.tensors import Signature, Tensors
from paceline.engine import examples
from paceline.loadtest.requests import encodings, files, payloads
from paceline.loadtest.requests.address import Address
from paceline.loadtest.requests.encodings import Encoded
from paceline.loadtest.requests.probe import Probed, probe, refused
from paceline.loadtest.requests.replay import Replay
from paceline.loadtest.requests.servers import Model
from paceline.loadtest.target import Protocol, Target

_BODIES: Final = 100
# More than are under way at once: two items of the same bytes may run as one.
_ITEM_BODIES: Final = 1000
_MOST_BYTES: Final = 64 << 20
_MAKES: Final = "--data FILE with rows, or --body FILE with a whole request"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line says.

    Attributes:
        files: whole bodies.
        content_type: of whole bodies; None: as their names say.
    """

    model: str = ""
    protocol: Protocol | None = None
    rows: int = 1
    data: Path | None = None
    files: Sequence[Path] = ()
    content_type: str | None = None
    replay: Replay | None = None
    headers: Mapping[str, str]
    timeout_s: float
    seed: int = 0

    @property
    def as_they_are(self) -> bool:
        """Bodies are given, and not made."""
        return bool(self.files) or self.replay is not None

    @property
    def says_where(self) -> bool:
        """Every request of the recording has its path."""
        return self.replay is not None and all(self.replay.paths)

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: it does.
        """
        if self.rows < 1:
            raise ConfigError(f"--rows: expected 1 or more, got {self.rows}")
        sources = {"--data": self.data is not None, "--body": bool(self.files), "--replay": self.replay is not None}
        several = [name for name, is_given in sources.items() if is_given]
        if len(several) > 1:
            raise ConfigError(f"{' and '.join(several)}: give one of them")
        if self.protocol == "raw" and not self.as_they_are:
            raise ConfigError("--protocol raw sends bodies as they are, and none is given", hint="--body FILE")


class Place(NamedTuple):
    """Where requests go.

    Attributes:
        says: what the server says it is.
    """

    address: Address
    protocol: Protocol
    says: str
    model: Model


def target_at(place: Place, wanted: Wanted) -> Target:
    """The requests for a place, the first of which it has answered.

    Raises:
        ConfigError: there are none that are valid.
    """
    if wanted.as_they_are:
        return _answered(_as_they_are(place, wanted), wanted)
    _check_rows(place, wanted)
    if wanted.data is not None:
        return _answered(_of_rows(place, wanted, wanted.data), wanted)
    return _made(place, wanted)


# -- as they are ----------------------------------------------------------------------------------------------


def _as_they_are(place: Place, wanted: Wanted) -> Target:
    route = encodings.route(place.protocol, place.model)
    path = place.address.route or _whole_path(place, route.path, route.wire)
    replay, content_type = wanted.replay, wanted.content_type
    paths: tuple[str, ...] = ()
    if replay is None:
        bodies, content_type = files.bodies(wanted.files, content_type)
    else:
        bodies = replay.bodies
        paths = tuple(each or path for each in replay.paths) if any(replay.paths) else ()
        content_type = content_type or ("application/json" if replay.is_json else "application/octet-stream")
    headers = () if route.wire == "grpc" else (("content-type", content_type),)
    encoded = Encoded(paths[0] if paths else path, bodies, headers, route.wire)
    return msgspec.structs.replace(_target(place, wanted, encoded), protocol="raw", path=encoded.path, paths=paths)


# -- rows of a file -------------------------------------------------------------------------------------------


def _of_rows(place: Place, wanted: Wanted, path: Path) -> Target:
    model = place.model
    if model.signature is None and place.protocol not in ("plain", "tfs"):
        raise _unknown(place)
    found = files.inputs(path, model.signature, wanted.rows, as_items=place.protocol == "plain")
    notes = [found.note] if found.note else []
    encoded = encodings.encode(place.protocol, replace(model, signature=found.signature), found.requests)
    if model.signature is not None and model.signature.items and (few := len(set(encoded.bodies))) < _ITEM_BODIES:
        notes.append(f"distinct requests: {few}; equal items that are under way at once run once")
    return _target(place, wanted, encoded, notes)


# -- made -----------------------------------------------------------------------------------------------------


class _Try(NamedTuple):
    """Inputs that may be accepted.

    Attributes:
        make: so many requests.
        most: that are worth making.
        note: for the reader of the numbers.
    """

    make: Callable[[int], Sequence[Tensors]]
    most: int
    note: str = ""


def _made(place: Place, wanted: Wanted) -> Target:
    first: tuple[Target, Probed] | None = None
    for each in _tries(place.model, wanted):
        target = _target(place, wanted, encodings.encode(place.protocol, place.model, each.make(1)), [each.note])
        probed = probe(target, wanted.timeout_s)
        if not probed.refusal:
            count = max(1, min(each.most, _MOST_BYTES // max(1, len(target.bodies[0]))))
            encoded = encodings.encode(place.protocol, place.model, each.make(count))
            return _target(place, wanted, encoded, [each.note, *_notes_on(probed)])
        first = first or (target, probed)
        if not probed.by_inputs:
            break
    if first is None:
        raise _unknown(place)
    raise refused(*first)


def _tries(model: Model, wanted: Wanted) -> Iterator[_Try]:
    signature, item, rows, seed = model.signature, model.example, wanted.rows, wanted.seed
    if signature is None or (signature.items and item is None):
        return
    if item is not None and signature.items:
        note = _note_on_items(len(payloads.variants(item, rows * _ITEM_BODIES)), rows)
        yield _Try(partial(payloads.rewritten, item, rows), _ITEM_BODIES, note)
    elif item is not None:
        example = _tensors(model, signature, item)
        varied = partial(payloads.varied, example, signature, rows, seed=seed)
        if payloads.lacks_words(example):
            yield _Try(partial(varied, words=True), _BODIES)
        note = "" if payloads.varies(example, signature) else "all requests have the values of the model's example"
        yield _Try(varied, _BODIES, note)
    else:
        for guess in payloads.guesses(signature):
            note = _note_on_guess(signature, guess)
            yield _Try(partial(payloads.generated, signature, rows, guess, seed=seed), _BODIES, note)


def _tensors(model: Model, signature: Signature, item: bytes) -> Tensors:
    try:
        return examples.from_items([item], signature)
    except PacelineError as error:
        raise ConfigError(f"the example of model '{model.name}' does not fit it: {error.message}") from error


# -- targets --------------------------------------------------------------------------------------------------


def _target(place: Place, wanted: Wanted, encoded: Encoded, notes: Sequence[str] = ()) -> Target:
    headers = {**dict(encoded.headers), **{name.lower(): value for name, value in wanted.headers.items()}}
    return Target(
        host=place.address.host,
        port=place.address.port,
        tls=place.address.tls,
        wire=encoded.wire,
        protocol=place.protocol,
        path=_whole_path(place, encoded.path, encoded.wire),
        bodies=encoded.bodies,
        headers=tuple(headers.items()),
        rows=wanted.rows,
        model=place.model.name,
        server=place.says,
        notes=tuple(note for note in notes if note),
    )


def _whole_path(place: Place, path: str, wire: str) -> str:
    return path if wire == "grpc" else place.address.prefix + path


def _answered(target: Target, wanted: Wanted) -> Target:
    probed = probe(target, wanted.timeout_s)
    if probed.refusal:
        raise refused(target, probed)
    return msgspec.structs.replace(target, notes=(*target.notes, *_notes_on(probed)))


def _check_rows(place: Place, wanted: Wanted) -> None:
    signature = place.model.signature
    one_row = place.protocol == "plain" and not place.model.lists_path
    if wanted.rows > 1 and (one_row or (signature is not None and not signature.batched)):
        raise ConfigError(f"--rows {wanted.rows}: model '{place.model.name}' takes one at a time")


def _unknown(place: Place) -> ConfigError:
    what = f"model '{place.model.name}'" if place.model.name else place.address.route or "the server"
    if place.says.startswith("paceline "):
        hint = f"give it an example: example() in a service, --examples for a model; or {_MAKES}"
    else:
        hint = _MAKES
    return ConfigError(f"{place.address.base}: it is not known what {what} takes", hint=hint)


# -- notes ----------------------------------------------------------------------------------------------------


def _note_on_items(ways: int, rows: int) -> str:
    if ways < rows * _ITEM_BODIES:
        return (
            f"the example can be written in {ways} way{'s' * (ways != 1)} only, and equal items that are under way at "
            "once run once: --data FILE with other items"
        )
    return (
        "every item is the model's example, written in another way so that no two share an answer: "
        "--data FILE for items that differ"
    )


def _note_on_guess(signature: Signature, guess: payloads.Guess) -> str:
    open_behind = any(-1 in (spec.shape[1:] if signature.batched else spec.shape) for spec in signature.inputs)
    return f"open dimensions have size {guess.open_size}: --data FILE for others" if open_behind else ""


def _notes_on(probed: Probed) -> list[str]:
    if "x-cache" not in probed.headers:
        return []
    return ["the server keeps predictions (X-Cache): what it has answered once, it answers from there"]
