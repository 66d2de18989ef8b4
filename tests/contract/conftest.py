from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.served import Served, ServedModels


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModels]:
    """Servers that several contracts are tested against; `served[name]` for one of them."""
    running = ServedModels(tmp_path_factory.mktemp("models"))
    yield running
    running.close()


@pytest.fixture
def half(served: ServedModels) -> Served:
    """TensorFlow Serving's own example model."""
    return served["half_plus_two"]
