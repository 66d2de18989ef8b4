"""Does a path stay in a folder? Names come from files that anybody may have made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_LONGEST_BYTES: Final = 255  # longer ones no file system has: to ask for them is an error


def is_inside(path: Path, folder: Path) -> bool:
    """True when a path leads into a folder, or to it, once links are followed. What is no path at all does not."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, a circle of links
        return False


def names_inside(name: str, folder: Path) -> bool:
    """True when a name in a file is that of something in a folder: relative, without a way up, and after all links."""
    path = Path(name)
    if "\0" in name or "\\" in name or ".." in path.parts or path.is_absolute():
        return False
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_BYTES for part in path.parts):
        return False
    return is_inside(folder / path, folder) and (folder / path).resolve() != folder.resolve()
