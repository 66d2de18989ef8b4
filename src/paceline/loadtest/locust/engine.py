"""How are requests sent with Locust instead of our own client? A process of it, which speaks as ours does."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Final

from paceline.core.errors import ConfigError, RuntimeUnavailable
from paceline.loadtest.generator import Generator
from paceline.loadtest.steps import Step, Users
from paceline.loadtest.target import Target

_NEEDED: Final = {"http1": ("locust",), "grpc": ("locust", "grpc")}
_PACKAGES: Final = {"locust": "'paceline[locust]'", "grpc": "grpcio"}


class LocustGenerator(Generator):
    """The process of Locust that sends requests to one target, step by step; see `Generator`.

    Raises:
        RuntimeUnavailable: Locust is not installed, or grpcio, for gRPC.
        GeneratorFailed: the process did not start.
    """

    module: ClassVar[str] = "paceline.loadtest.locust.client"

    def __init__(self, target: Target) -> None:
        missing = [_PACKAGES[name] for name in _NEEDED[target.wire] if find_spec(name) is None]
        if missing:
            raise RuntimeUnavailable(
                f"--engine locust: not installed: {' '.join(missing)}", hint=f"pip install {' '.join(missing)}"
            )
        super().__init__(target)

    def begin(self, step: Step) -> None:
        """Start a step; the last one has ended.

        Raises:
            ConfigError: the step is none of users.
            GeneratorFailed: the process died.
        """
        if not isinstance(step.load, Users):
            raise ConfigError(
                "--engine locust: Locust has users, who wait for their answers, and no rates",
                hint="give users, such as --users 1,5,20, or leave --engine out",
            )
        super().begin(step)
