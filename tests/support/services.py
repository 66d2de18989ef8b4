"""Code served by a server process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from paceline.testing import run_server
from support.served import Served


@contextmanager
def serving(
    path: Path, flags: Sequence[str] = (), *, instances: int = 1, env: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Serve a file, such as `service.py`, until the block ends."""
    with run_server(path, ["--instances", str(instances), "--threads", "1", *flags], env=env) as server:
        yield Served(path.stem, path, server)


def write(folder: Path, **files: str) -> Path:
    """Write files into a folder that is made: `clean_py="..."` becomes `clean.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder
