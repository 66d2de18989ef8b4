"""Small networks of PyTorch, trained on scikit-learn's digits, and their files."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Floats = NDArray[np.float32]
ROWS = torch.export.Dim("rows")


class Mlp(torch.nn.Module):
    """One tensor in, one out."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(64, 32)
        self.drop = torch.nn.Dropout(0.2)
        self.out = torch.nn.Linear(32, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.out(self.drop(torch.relu(self.hidden(pixels))))
        return scores


class Cnn(torch.nn.Module):
    """A dict of outputs, of two types."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(128, 10),
        )

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.layers(image)
        return {"scores": scores.softmax(1), "label": scores.argmax(1)}


@cache
def digits() -> tuple[Floats, NDArray[np.int64]]:
    """Pixels from 0 to 1, of shape [1797, 64], and what they show."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels.astype(np.int64)


def mlp() -> Mlp:
    return cast(Mlp, trained(Mlp(), digits()[0], lambda output: output))


def cnn() -> Cnn:
    images = digits()[0].reshape(-1, 1, 8, 8)
    return cast(Cnn, trained(Cnn(), images, lambda output: torch.log(output["scores"])))


def trained(module: torch.nn.Module, inputs: Floats, logits: Callable[[Any], torch.Tensor]) -> torch.nn.Module:
    """After a few steps on all rows: enough to be right most of the time."""
    torch.manual_seed(0)
    given, labels = torch.tensor(inputs), torch.tensor(digits()[1])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(module(given)), labels).backward()
        optimizer.step()
    return module.eval()


def exported(module: torch.nn.Module, *examples: torch.Tensor, to: Path, is_open: bool = True) -> Path:
    """A .pt2 file; rows are open, unless told otherwise."""
    shapes = tuple({0: ROWS} for _ in examples) if is_open else None
    torch.export.save(torch.export.export(module, examples, dynamic_shapes=shapes), str(to))
    return to


def traced(module: torch.nn.Module, example: torch.Tensor, to: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(module, example, strict=False).save(str(to))
    return to


def scripted(module: torch.nn.Module, to: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(to))
    return to


def rewritten(path: Path, change: Callable[[str, bytes], bytes], added: dict[str, bytes] | None = None) -> Path:
    """The same archive with other contents: what somebody else may have made of a file.

    Args:
        change: from a record's name, without the archive's, and its bytes to new bytes.
    """
    with zipfile.ZipFile(path) as archive:
        held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, data in {**held, **(added or {})}.items():
        if name not in ("version", ".data/version", ".data/serialization_id"):  # it writes those itself
            data = change(name, data)
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return path
