"""How is a zip read that may be a bomb? Names and sizes first; then single entries, each up to a bound.

Rules:
- Nothing is extracted. An entry is read whole, up to what its reader wants at most, or piece by piece.
- The size has no bound of its own: models are large.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from paceline.core.errors import ModelLoadError

MOST_ENTRIES: Final = 10_000
MOST_RATIO: Final = 200
RATIO_FREE_BYTES: Final = 64 << 20  # a small bomb does no harm, and small texts compress well
ENCRYPTED: Final = 0x1
"""The flag of an entry behind a password."""

_PIECE_BYTES: Final = 1 << 18
_MOST_CONTENTS: Final = 16 << 20  # of the list of names: ten times what MOST_ENTRIES usual ones take


class Bounded(io.BufferedReader):
    """The archive. `zipfile` reads the list of names at once, whatever its length: there it ends."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_CONTENTS:
            raise zipfile.BadZipFile(f"its list of names has {size} bytes: at most {_MOST_CONTENTS}")
        return super().read(size)


class Archive:
    """An opened zip.

    Raises:
        ModelLoadError: it is none, or a bomb.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = Bounded(path.open("rb", buffering=0))
        except OSError as error:
            raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._check()
        except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError, OSError) as error:
            self._file.close()
            raise self.broken(str(error)) from error
        except ModelLoadError:
            self._file.close()
            raise

    @property
    def entries(self) -> dict[str, int]:
        """Bytes of each entry, unpacked, by name."""
        return {info.filename: info.file_size for info in self._zip.infolist() if not info.is_dir()}

    def find(self, ending: str) -> str | None:
        """The first entry whose name ends so, at any depth."""
        return next((name for name in self.entries if name == ending or name.endswith(f"/{ending}")), None)

    def read(self, name: str, most_bytes: int) -> bytes:
        """An entry's contents.

        Raises:
            ModelLoadError: it is not there, is longer, or cannot be unpacked.
        """
        size = self.entries.get(name)
        if size is None:
            raise self.broken(f"it has no {name}")
        if size > most_bytes:
            raise self.broken(f"{name} has {size} bytes: at most {most_bytes} are read")
        return b"".join(self.pieces(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """An entry, piece by piece; errors come as in `read`."""
        try:
            with self._zip.open(name) as entry:
                yield from iter(lambda: entry.read(_PIECE_BYTES), b"")
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            EOFError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            raise self.broken(f"{name}: {error}") from error

    def broken(self, why: str) -> ModelLoadError:
        """The error that says that this archive cannot be read."""
        return ModelLoadError(f"{self.path}: cannot be read: {why}", hint="it may be cut off, or in another format")

    def _check(self) -> None:
        infos = self._zip.infolist()
        if problem := too_much(infos, self.path.stat().st_size):
            raise self.broken(problem)
        if len({info.filename for info in infos}) < len(infos):
            raise self.broken("it holds a file twice")
        if any(info.flag_bits & ENCRYPTED for info in infos):
            raise self.broken("it is encrypted")

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()


def too_much(infos: Sequence[zipfile.ZipInfo], archive_bytes: int) -> str | None:
    """Why nothing should be unpacked of an archive with these entries; None: it may be."""
    if len(infos) > MOST_ENTRIES:
        return f"it has {len(infos)} entries: at most {MOST_ENTRIES}"
    full = sum(info.file_size for info in infos)
    # Entries may lie over one another.
    packed = min(sum(info.compress_size for info in infos), archive_bytes)
    if full > RATIO_FREE_BYTES and full > MOST_RATIO * packed:
        return f"{packed} bytes unpack to {full}: a bomb"
    return None
