"""What has all user code in a worker in common? It is made once, its coroutines have a loop, it may say how it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from paceline.workers.frames import About
from paceline.workers.python.contract import Contract
from paceline.workers.python.loops import Loop, LoopThread, OwnLoop

Function = Callable[..., Any]


class Code:
    """A function or a class.

    Attributes:
        loop: where its coroutines run.
        health: asks the code whether it is well, once it is made; None: it does not say.
    """

    def __init__(self, contract: Contract, about: About) -> None:
        self.contract = contract
        self.about = about
        self.loop: Loop = LoopThread() if "fetch" in contract.parts and not contract.streams else OwnLoop()
        self.health: Function | None = None

    def make_parts(self) -> dict[str, Function]:
        """Make the object and let it initialise; its parts."""
        made = self.contract.create()
        parts: dict[str, Function] = {part: getattr(made, name) for part, name in self.contract.parts.items()}
        if "setup" in parts:
            self.finished(parts["setup"]())
        self._predict = parts["predict"]
        self.health = parts.get("health")
        return parts

    def finished(self, result: Any) -> Any:
        """What a coroutine returns, or what is none."""
        return self.loop.wait(result) if inspect.iscoroutine(result) else result
