"""What does Ctrl-C mean while a load test runs? The first ends the test, the second everything.

SIGTERM means the same. What was measured until the first is reported, also where that comes while reports are written;
after the second nothing is.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Final

from paceline.loadtest.runner import Run

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Takes both signals while the context lasts; raises KeyboardInterrupt where there is no test to end.

    Attributes:
        test: that the first one ends, or that is over.
        number: of the first signal; 0: none has come.
    """

    def __init__(self) -> None:
        self.test: Run | None = None
        self.number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._came) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """As a shell has it; 0: nothing came."""
        return 128 + self.number if self.number else 0

    def _came(self, number: int, frame: FrameType | None) -> None:
        is_second = self.number != 0
        self.number = self.number or number
        if self.test is None or is_second:
            raise KeyboardInterrupt
        self.test.end()
