"""Which rows have killed workers, and are not to be run again for a while?

Rules:
- Guilty is a row that workers died of twice, the last time alone: after a first death the scheduler runs every row
  alone. A row whose batch died with others in it is a suspect of nothing, and one that has run since is no more.
- What is remembered is bounded in number and in time, and gone when the model is loaded anew. A row is known by
  a digest of its bytes.
- While nothing is held, a request costs one look at that.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import Final, TypeVar

from paceline.core.errors import Quarantined
from paceline.core.tensors import Array, Tensors

_T = TypeVar("_T")

QUARANTINE_S: Final = 600.0
"""How long a row is held, or suspected."""

MOST_ROWS: Final = 1024
"""How many rows are held at most, and as many suspected; the oldest makes room."""

_GUILTY: Final = 2
_DIGEST_BYTES: Final = 16


class Quarantine:
    """The rows of one model that must not run.

    Args:
        model: name for messages.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._suspects: dict[bytes, tuple[int, float]] = {}
        self._held: dict[bytes, float] = {}

    def __len__(self) -> int:
        """How many rows are held."""
        now = time.monotonic()
        for digest in [digest for digest, until in self._held.items() if until <= now]:
            del self._held[digest]
        return len(self._held)

    @property
    def has_suspects(self) -> bool:
        """True while a row has killed once."""
        return bool(self._suspects)

    def killed(self, inputs: Tensors, deaths: int) -> bool:
        """A worker died while it ran one row alone; True when that makes the row guilty.

        Args:
            deaths: how many its request has seen, with this one.
        """
        now = time.monotonic()
        digest = _digest(inputs, 0)
        before, until = self._suspects.pop(digest, (0, 0.0))
        deaths = max(deaths, 1 + (before if until > now else 0))
        if deaths >= _GUILTY:
            self._held.pop(digest, None)
            _remember(self._held, digest, now + QUARANTINE_S)
            return True
        _remember(self._suspects, digest, (deaths, now + QUARANTINE_S))
        return False

    def survived(self, inputs: Tensors) -> None:
        """A worker has run these rows, and lives: it was not they that killed another."""
        for row in range(len(inputs[0])):
            self._suspects.pop(_digest(inputs, row), None)

    def check(self, inputs: Tensors) -> None:
        """Refuse a request that holds such a row.

        Raises:
            Quarantined: it does.
        """
        if not self._held:
            return
        now = time.monotonic()
        for row in range(len(inputs[0])):
            until = self._held.get(_digest(inputs, row), 0.0)
            if until > now:
                raise self.error(f" (row {row})" if len(inputs[0]) > 1 else "", until - now)

    def error(self, where: str = "", left_s: float = QUARANTINE_S) -> Quarantined:
        """What the clients of such a row are told."""
        return Quarantined(
            f"workers of '{self._model}' have died of these inputs{where}: they are not run for {left_s:.0f} s",
            hint="the log says what the workers died of",
            model=self._model,
        )


def _remember(where: dict[bytes, _T], digest: bytes, what: _T) -> None:
    if len(where) >= MOST_ROWS:
        del where[next(iter(where))]
    where[digest] = what


def _digest(inputs: Tensors, row: int) -> bytes:
    found = blake2b(digest_size=_DIGEST_BYTES)
    for column in inputs:
        data = _bytes(column, row)
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.digest()


def _bytes(column: Array, row: int) -> bytes:
    if column.dtype != object:
        return bytes(column[row].tobytes())
    elements = column[row : row + 1].reshape(-1).tolist()
    texts = [each.encode() if isinstance(each, str) else bytes(each) for each in elements]
    return b"".join([len(text).to_bytes(8, "little") + text for text in texts])
