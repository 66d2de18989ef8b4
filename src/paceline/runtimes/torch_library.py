"""Is PyTorch there, and what does it say when something is wrong?"""

from __future__ import annotations

from typing import Any

from paceline.core import errors
from paceline.core.errors import RuntimeUnavailable


def library() -> Any:
    """PyTorch.

    Raises:
        RuntimeUnavailable: it is not installed, or broken.
    """
    try:
        import torch
    except ImportError as error:
        raise RuntimeUnavailable(
            f"PyTorch cannot be imported: {first_line(error)}", hint="pip install 'paceline[torch]'"
        ) from error
    return torch


def first_line(error: BaseException) -> str:
    """The first line of what PyTorch says; for TorchScript, which begins with the way there, the last."""
    first = errors.first_line(error)
    return str(error).strip().splitlines()[-1].strip() if first.startswith("The following operation failed") else first
