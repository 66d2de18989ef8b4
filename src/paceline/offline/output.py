"""Where do the predictions go, and what is left when the process is interrupted?

Rules:
- Until it is complete the output is called `OUT.part`, and beside it `OUT.part.json` says how far it is good, and of
  which input. Then it is renamed: a file that is called `OUT` has every row.
- What a checkpoint speaks of is on the disk before the checkpoint is. Going on cuts off what was written after it.
- An interrupted output is not overwritten, and not mixed with the rows of another input.
- What cannot be read or written twice, a pipe, cannot be gone on with.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from paceline.core.errors import ConfigError
from paceline.offline.lines import CsvLines, JsonLines, Lines, Scored
from paceline.offline.rows import STDIN, Format, Identity

STDOUT: Final = STDIN
_CHECKPOINT_S: Final = 1.0


class Checkpoint(msgspec.Struct, kw_only=True):
    """How far an output is good.

    Attributes:
        input: whose rows these are.
        model: digest of the model's file.
        rows, failed: written so far.
        size_bytes: of the output so far.
        columns: of an output in CSV.
    """

    version: int = 1
    format: str
    input: Identity
    model: str
    rows: int = 0
    failed: int = 0
    size_bytes: int = 0
    columns: list[str] | None = None


class Output:
    """A file that is written once, row by row.

    Args:
        path: `-` is the standard output.
        new: the checkpoint before the first row; None: the input cannot be read twice.
        resume: go on with what was interrupted, if anything was.

    Attributes:
        rows, failed: that it has.
        resumed: rows that it had when it was opened.
        kept: rows that would be there if the process ended now.
        complete: there is nothing left to do.
        note: what the operator should know; empty when there is nothing.

    Raises:
        ConfigError: it cannot be written, or there is something of that name that this is not.
    """

    def __init__(self, path: str, form: Format, new: Checkpoint | None, *, resume: bool = False) -> None:
        self.path = path
        self.note = ""
        self.complete = self._broken = False
        self.rows = self.failed = self.resumed = self.kept = 0
        self._part = Path(f"{path}.part")
        self._beside = Path(f"{path}.part.json")
        self._has_part = path != STDOUT and (Path(path).is_file() or not Path(path).exists())
        self._last = new if self._has_part else None
        self._next_checkpoint = time.monotonic() + _CHECKPOINT_S
        self.complete = resume and self._has_part and not self._part.exists() and Path(path).exists()
        if not self.complete:
            self._file = self._opened(resume)
        columns = None if self._last is None else self._last.columns
        self._lines: Lines = CsvLines(columns) if form == "csv" else JsonLines()

    @property
    def resumable(self) -> bool:
        """True when `--resume` can go on with it."""
        return self._last is not None

    def write(self, scored: Sequence[Scored]) -> None:
        """Write what became of the next rows.

        Raises:
            ConfigError: it cannot be written; up to the last checkpoint it is good.
            BrokenPipeError: nobody reads the standard output any more.
        """
        self._put(self._lines.write(scored))
        self.rows += len(scored)
        self.failed += sum(each.failed for each in scored)
        if time.monotonic() >= self._next_checkpoint:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make sure that what is written can be gone on with."""
        if self._last is None or self._lines.held or self.complete or self._broken:
            return
        with _named(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._last = msgspec.structs.replace(
                self._last,
                rows=self.rows,
                failed=self.failed,
                size_bytes=self._file.tell(),
                columns=self._lines.columns,
            )
            self._say(self._last)
        self.kept = self.rows
        self._next_checkpoint = time.monotonic() + _CHECKPOINT_S

    def finish(self) -> None:
        """There are no more rows."""
        self._put(self._lines.end())
        self.checkpoint()
        with _named(self.path):
            self._file.close()
            if self._has_part:
                self._part.replace(self.path)
                self._beside.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file, complete or not; one without a row is nothing to go on with."""
        if self.complete or self._file.closed:
            return
        with suppress(OSError):  # whoever cannot write has been told
            self._file.close()
        if self._has_part and not self.kept:
            self._part.unlink(missing_ok=True)
            self._beside.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        self._broken = True  # until all is written: a part of it must not get into a checkpoint
        with _named(self.path):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._broken = False

    # -- opening ----------------------------------------------------------------------------------------------

    def _opened(self, resume: bool) -> IO[bytes]:
        if self.path == STDOUT:
            return os.fdopen(os.dup(1), "wb", buffering=0)
        if not self._has_part:
            return _open(Path(self.path), "wb")  # a pipe, a device
        if self._last is None:
            return self._locked("wb")
        if not self._part.exists():
            file = self._locked("xb")
            with _named(self.path):
                self._say(self._last)
            return file
        if not resume and self._part.stat().st_size:
            text = f"{self.path}: an interrupted output is there: {self._part}"
            raise ConfigError(text, hint=f"--resume goes on with it; to begin anew, delete {self._part}")
        file = self._locked("r+b")
        try:
            if os.fstat(file.fileno()).st_size:
                self._go_on(file, self._read_checkpoint(), self._last)
            else:
                self._say(self._last)  # whoever began it was killed before the first row
        except BaseException:
            file.close()
            raise
        return file

    def _locked(self, mode: str) -> IO[bytes]:
        file = _open(self._part, mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise ConfigError(f"{self._part}: another process writes it") from error
        return file

    def _read_checkpoint(self) -> Checkpoint:
        try:
            return msgspec.json.decode(self._beside.read_bytes(), type=Checkpoint)
        except (OSError, msgspec.MsgspecError) as error:
            text = f"{self._part}: there is no {self._beside.name} that says how far it is good"
            raise ConfigError(text, hint=f"to begin anew, delete {self._part}") from error

    def _go_on(self, file: IO[bytes], before: Checkpoint, new: Checkpoint) -> None:
        if before.input != new.input:
            raise ConfigError(
                f"{self._part}: it was made of another input, or the input has changed: "
                f"it had {before.input.size_bytes} bytes and now has {new.input.size_bytes}",
                hint=f"to begin anew, delete {self._part}",
            )
        if before.format != new.format:
            raise ConfigError(f"{self._part}: it is {before.format}, not {new.format}")
        held = os.fstat(file.fileno()).st_size
        if held < before.size_bytes:
            raise ConfigError(f"{self._part}: expected at least {before.size_bytes} bytes, got {held}")
        if before.model != new.model:
            self.note = f"the model has changed: the rows after {before.rows} are scored by the new one"
        file.truncate(before.size_bytes)
        file.seek(before.size_bytes)
        self._last = msgspec.structs.replace(before, model=new.model)
        self.rows = self.resumed = self.kept = before.rows
        self.failed = before.failed

    def _say(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint: whoever reads it finds the old one or the new one."""
        new = self._beside.with_name(f"{self._beside.name}.new")
        try:
            with new.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(checkpoint), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._beside)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def _open(path: Path, mode: str) -> IO[bytes]:
    with _named(str(path)):
        return path.open(mode)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Say which output it is that cannot be written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error


__all__ = ["STDOUT", "Checkpoint", "Output"]
