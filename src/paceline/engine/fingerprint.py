"""Is this the code that made those predictions? A hash over a service's folder.

Rules:
- Every file in the folder of the code counts, for the code may read any of them: its path and its contents; of large
  files their size and the time of the last change.
- Hidden files, and what Python caches, do not count. Links are followed, each folder once.
- A folder with too many files has a fingerprint that is never seen again: then nothing kept before is used.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOST_FILES: Final = 10_000
_LARGE_BYTES: Final = 8 << 20
_CACHES: Final = ("__pycache__",)


def fingerprint(code: Path, name: str | None = None) -> str:
    """The fingerprint of a service. Blocks.

    Args:
        name: which of the things in the file.
    """
    digest = hashlib.blake2b(f"{code.name}\0{name or ''}".encode(), digest_size=16)
    for count, path in enumerate(_files(code.resolve().parent)):
        if count == _MOST_FILES:
            return secrets.token_hex(16)
        digest.update(_told(path, code.resolve().parent))
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in _CACHES)
        for each in sorted(files):
            if not each.startswith("."):
                yield Path(here, each)


def _told(path: Path, folder: Path) -> bytes:
    """What a file adds, in a form that tells names from contents."""
    name = os.fsencode(path.relative_to(folder))
    try:
        state = path.stat()
        if not path.is_file():
            contents = b"no file"
        elif state.st_size > _LARGE_BYTES:
            contents = f"{state.st_size} bytes of {state.st_mtime_ns}".encode()
        else:
            contents = hashlib.blake2b(path.read_bytes()).digest()
    except OSError as error:
        contents = f"error {error.errno}".encode()
    return b"%d:%b%d:%b" % (len(name), name, len(contents), contents)
