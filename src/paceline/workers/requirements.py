"""What does a `requirements.txt` ask for? Its lines, with those of the files that it includes.

Rules:
- Only to tell one list from another: what the lines mean is pip's business.
- A comment, a blank line or another line break asks for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError

# As pip reads them: a `#` starts a comment at the start of a line or after a space, for URLs have fragments.
_COMMENT: Final = re.compile(r"(^|\s+)#.*$")
_BROKEN: Final = re.compile(r"\\\r?\n")
_INCLUDED: Final = re.compile(r"(?:-[rc]\s*|--(?:requirement|constraint)(?:\s*=\s*|\s+))(?P<file>.+)")
_NOT_A_FILE: Final = ("://", "${")


def read(file: Path) -> list[str]:
    """The lines of a file, those of included ones in their place.

    Raises:
        ModelLoadError: it, or one that it includes, cannot be read.
    """
    return list(_lines(file, file.name, frozenset()))


def _lines(file: Path, named: str, including: frozenset[Path]) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ModelLoadError(f"{named}: cannot be read: {why}") from error
    for line in _BROKEN.sub("", text).splitlines():
        line = _COMMENT.sub("", line).strip()
        match = _INCLUDED.fullmatch(line)
        if match is not None and not any(sign in line for sign in _NOT_A_FILE):
            other = file.parent / match["file"].strip("\"'")
            if other not in including:
                yield from _lines(other, f"{named}: {match['file']}", including | {file})
        elif line:
            yield line
