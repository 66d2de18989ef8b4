"""Files of settings for tests."""

from __future__ import annotations

from pathlib import Path

ARTICLE = """\
max_batch_size { value: 20 }
batch_timeout_micros { value: 500000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 8 }
"""
"""Batching parameters as they are commonly written for TensorFlow Serving."""


def write(path: Path, text: str) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
