"""Is PyTorch there, and what does it say when something is wrong?"""

from __future__ import annotations

from typing import Any

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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if lines[0].startswith("The following operation failed") else lines[0]
