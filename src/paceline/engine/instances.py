"""A thread per instance: runs the batches it is handed, and says when each is done.

Short batches never come here: they run on the event loop itself, for waking a thread and being woken by it
costs more than they take.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class InstanceThread:
    """Runs jobs one after the other.

    Daemonic on purpose: a model that hangs in native code cannot be interrupted, and must not keep the process
    from exiting after its grace time.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopped = False
        # Bounded by construction: the scheduler gives an instance one batch at a time.
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._start()

    def run(self, job: Callable[[], None]) -> None:
        """Run `job` on the thread. It must not raise.

        After `stop`, on a thread for this job alone: a request that found the model just before it was replaced is
        not lost.
        """
        self._jobs.put(job)
        if self._stopped:
            self._jobs.put(None)
            self._start()

    def stop(self) -> None:
        """Let the thread end after the job it may have."""
        if not self._stopped:
            self._stopped = True
            self._jobs.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it holds its batch, and the next may be long in coming
