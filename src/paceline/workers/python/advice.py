"""What can the author of code that did not start do about it? The mistakes that most people make once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MADE_IN_SCRIPT: Final = (
    "the script that pickled it had defined this: put the definition in a module beside it, and import that"
)


def advice(error: BaseException, code: Path) -> str | None:
    """A hint to what code has raised when it was imported or initialised; None: it speaks for itself.

    Args:
        code: the file that was to be served.
    """
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name}, or list it in a requirements.txt beside {code.name}"
    if isinstance(error, FileNotFoundError):
        return _of_missing_file(error, code)
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return MADE_IN_SCRIPT
    return None


def _of_missing_file(error: FileNotFoundError, code: Path) -> str | None:
    if not isinstance(error.filename, str) or Path(error.filename).is_absolute():
        return None
    beside = code.parent / error.filename
    if not beside.exists():
        return f"{error.filename!r} is relative to the working directory, {Path.cwd()}"
    path = f"Path(__file__).parent / {error.filename!r}"
    return f"it lies beside {code.name}, and the working directory is {Path.cwd()}: open {path}"
