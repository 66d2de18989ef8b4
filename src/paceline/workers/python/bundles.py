"""How does an attached zip bundle become files, and nothing else than files inside one private folder?

Rules:
- The whole list of names is judged before a byte is written: what leads outside, links, devices, duplicates, secrets
  behind a password and sizes past the bounds refuse the archive, not the entry.
- The declared sizes are bounded, and `zipfile` never writes more of an entry than it declares. Entries that lie over
  one another count as what they are: no more bytes than the archive has.
- A bundle is extracted once: into `.paceline/` beside it, under the hash of its bytes, with one rename at the end. The
  next worker, and the next start, find it there. Where that is not writable, a folder of the user's own in the
  temporary directory takes its place.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from paceline.core.errors import ModelLoadError
from paceline.runtimes.archive import ENCRYPTED, MOST_ENTRIES, Bounded, too_much

MOST_BYTES: Final = 4 << 30
MOST_DEPTH: Final = 32
_NAME_BYTES: Final = 255
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_COPY_BYTES: Final = 1 << 20
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Entry(NamedTuple):
    info: zipfile.ZipInfo
    path: PurePosixPath
    is_folder: bool


def beside(script: Path, given: Path | None = None) -> Path | None:
    """The bundle of a script: the one given, else `NAME.zip`, `Script Bundle.zip` or `bundle.zip` beside it.

    Raises:
        ModelLoadError: it is missing, or there are several.
    """
    if given is not None:
        if not given.is_file():
            raise ModelLoadError(f"{given}: no such bundle")
        return given
    names = dict.fromkeys((f"{script.stem}.zip", "Script Bundle.zip", "bundle.zip"))
    found = [script.parent / name for name in names if (script.parent / name).is_file()]
    if len(found) > 1:
        shown = " and ".join(repr(each.name) for each in found)
        raise ModelLoadError(f"{script.name}: {shown} lie beside it: which is its bundle?", hint="keep one of them")
    return found[0] if found else None


def extract(archive: Path, into: str) -> Path:
    """Extract a bundle, unless that has been done before.

    Args:
        into: the folder that scripts look for the files in: `Script Bundle` for Python, `src` for R.

    Returns:
        The folder that `into` lies in: the one to run the script in.

    Raises:
        ModelLoadError: it is no zip, or one that must not be extracted. Nothing has been written.
    """
    folder = _home(archive) / f"bundle-{_digest(archive)}-{into.lower().replace(' ', '-')}"
    if folder.is_dir():
        return folder
    try:
        with Bounded(io.FileIO(archive)) as file, zipfile.ZipFile(file) as opened:
            entries = list(_judged(opened, archive))
            _write_whole(opened, entries, folder, into)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{archive}: cannot be read as a zip: {error}") from None
    except OSError as error:
        raise ModelLoadError(f"{archive}: cannot be extracted to {folder}: {error.strerror or error}") from None
    return folder


def _judged(opened: zipfile.ZipFile, archive: Path) -> Iterator[_Entry]:
    """The entries, all of them harmless.

    Raises:
        ModelLoadError: one is not.
    """
    infos, name = opened.infolist(), archive.name
    full = sum(info.file_size for info in infos)
    if full > MOST_BYTES:
        raise _refused(name, f"its files have {full} bytes: at most {MOST_BYTES}")
    if problem := too_much(infos, archive.stat().st_size):
        raise _refused(name, problem)
    seen: dict[PurePosixPath, bool] = {}
    for info in infos:
        entry = _Entry(info, _path(info, name), info.filename.endswith(("/", "\\")))
        _check_kind(entry, name)
        _check_new(entry, seen, name)
        yield entry


def _path(info: zipfile.ZipInfo, name: str) -> PurePosixPath:
    # Archives made on Windows may have backslashes; `orig_filename` still has what a NUL hides.
    raw = info.orig_filename.replace("\\", "/")
    if _CONTROL.search(raw):
        raise _refused(name, f"{raw!r} has control characters")
    if raw.startswith("/") or _DRIVE.match(raw):
        raise _refused(name, f"{raw!r} is an absolute path")
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(name, f"{raw!r} leads outside")
    if not parts or len(parts) > MOST_DEPTH or any(len(part.encode()) > _NAME_BYTES for part in parts):
        raise _refused(name, f"{raw[:80]!r} is no usable path")
    return PurePosixPath(*parts)


def _check_kind(entry: _Entry, name: str) -> None:
    info = entry.info
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _refused(name, f"{info.filename!r} is a link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > entry.is_folder:
        raise _refused(name, f"{info.filename!r} is neither a file nor a folder")
    if info.flag_bits & ENCRYPTED:
        raise _refused(name, f"{info.filename!r} is encrypted")
    if info.compress_type not in _METHODS:
        raise _refused(name, f"{info.filename!r} is compressed in another way than by deflate")


def _check_new(entry: _Entry, seen: dict[PurePosixPath, bool], name: str) -> None:
    """Note an entry and the folders it implies: a file stands there once, and is never a folder as well."""
    path, *parents = entry.path, *list(entry.path.parents)[:-1]
    if path in seen and not (entry.is_folder and seen[path]):
        raise _refused(name, f"{str(path)!r} is there twice")
    seen[path] = entry.is_folder
    for parent in parents:
        if not seen.setdefault(parent, True):
            raise _refused(name, f"{str(parent)!r} is a file and a folder")
    if len(seen) > MOST_ENTRIES:
        raise _refused(name, f"it has more than {MOST_ENTRIES} files and folders")


def _write_whole(opened: zipfile.ZipFile, entries: list[_Entry], folder: Path, into: str) -> None:
    """Write all entries to `folder / into`, or nothing; another process may do the same at the same time."""
    if not folder.parent.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / ".gitignore").write_text("*\n")
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        root = building / into
        root.mkdir()
        for entry in entries:
            _write(opened, entry, root)
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir():  # else the other one was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(opened: zipfile.ZipFile, entry: _Entry, root: Path) -> None:
    target = root.joinpath(*entry.path.parts)
    if entry.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Read-only: every worker, and the next start, reads these files.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
    with os.fdopen(descriptor, "wb") as file, opened.open(entry.info) as source:
        shutil.copyfileobj(source, file, _COPY_BYTES)


def _home(archive: Path) -> Path:
    """Where extracted bundles are kept.

    Raises:
        ModelLoadError: the folder in the temporary directory is somebody else's.
    """
    beside_it = archive.resolve().parent / ".paceline"
    if os.access(beside_it if beside_it.is_dir() else beside_it.parent, os.W_OK | os.X_OK):
        return beside_it
    own = Path(tempfile.gettempdir()) / f"paceline-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            own.mkdir(mode=0o700)
        found = own.lstat()
    except OSError as error:
        raise ModelLoadError(f"{archive}: cannot be extracted to {own}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ModelLoadError(f"{archive}: {own} belongs to somebody else", hint="set TMPDIR to a folder of your own")
    return own


def _digest(archive: Path) -> str:
    try:
        with archive.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ModelLoadError(f"{archive}: cannot be read: {error.strerror}") from None


def _refused(name: str, why: str) -> ModelLoadError:
    return ModelLoadError(f"{name}: the bundle is refused: {why}")
