"""What came of each candidate, kept on disk: a study that was interrupted goes on where it was.

Rules:
- A record counts for the same question only: same model, rows, metric, batch sizes, threads, machine, versions.
- What failed, was skipped for lack of time, or may be faster or not, is tried again.
- One study works in a folder at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline.core.errors import ConfigError
from paceline.optimize.candidate import Candidate
from paceline.optimize.measure import WORTH_IT
from paceline.optimize.processes.steps import write_whole
from paceline.optimize.result import Tried

_KEPT: Final = ("accepted", "rejected")
_LOCK: Final = "lock"


class _Record(msgspec.Struct):
    key: str
    tried: Tried


class _Count(msgspec.Struct):
    question: Any
    count: int


class Records:
    """Those of one question.

    Args:
        question: everything that a result depends on, besides the candidate; as JSON has it.
    """

    def __init__(self, folder: Path, question: Any) -> None:
        self._folder = folder
        self._question = msgspec.json.encode(question)
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, candidate: Candidate) -> Tried | None:
        """What came of it before."""
        try:
            record = msgspec.json.decode(self._path(candidate).read_bytes(), type=_Record)
        except (OSError, msgspec.DecodeError):
            return None
        same = record.key == self._key(candidate) and record.tried.status in _KEPT
        return record.tried if same and not _is_undecided(record.tried) else None

    def keep(self, tried: Tried) -> None:
        """Write it down."""
        record = _Record(self._key(tried.candidate), tried)
        write_whole(self._path(tried.candidate), msgspec.json.format(msgspec.json.encode(record), indent=1))

    def _path(self, candidate: Candidate) -> Path:
        return self._folder / f"{candidate.name}.json"

    def _key(self, candidate: Candidate) -> str:
        return hashlib.sha256(self._question + msgspec.json.encode(candidate)).hexdigest()


def count_once(path: Path, question: dict[str, Any], count: Callable[[], int]) -> int:
    """What was counted when this question was asked first; the file keeps the answer to one question, the last.

    Args:
        question: everything that the count depends on, but for chance; as JSON has it.
    """
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Count)
    except (OSError, msgspec.DecodeError):
        kept = None
    if kept is None or kept.question != question:
        kept = _Count(question, count())
        write_whole(path, msgspec.json.encode(kept))
    return kept.count


def not_written(out: Path, error: OSError) -> ConfigError:
    """What to say of a folder for what is found that cannot be made, or is full."""
    why = (error.strerror or str(error)).lower()
    return ConfigError(f"--out: nothing can be written in {out}: {why}", hint="choose another folder with --out")


def _is_undecided(tried: Tried) -> bool:
    """True when the machine was too busy to tell whether it is faster."""
    return any(each.ratio >= WORTH_IT and each.ratio_low <= 1.0 for each in tried.speeds[:1])


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While this lasts, no other study works in the folder, which is made.

    Raises:
        ConfigError: one does, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise not_written(folder.parent, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        hint = "wait for it, or choose another folder with --out"
        raise ConfigError(f"{folder.parent}: another study works there", hint=hint) from None
    finally:
        os.close(descriptor)
