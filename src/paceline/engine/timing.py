"""How long does a run take, and how much do instances get done side by side?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from paceline.core.tensors import Tensors
from paceline.engine.instances import InstanceThread
from paceline.engine.running import joined
from paceline.runtimes.base import Instance

# A request may have to wait for two batches: the one that runs when it comes, and its own.
LONG_BATCH_S = 0.025
_PATIENCE_S = 60.0


def run_joined(instance: Instance, pieces: list[Tensors]) -> Tensors:
    """Run the rows of several requests as the engine does: joining them is part of a batch."""
    return instance.run(joined(pieces))


def typical_run_s(run: Callable[[], Tensors], until: float, rest: float = 0.0) -> float:
    """Lower quartile of up to seven runs after an untimed one, since a busy machine only ever adds time.

    Args:
        rest: pause before each run, in times of the run before it: others need the cores as well.
    """
    run()
    times: list[float] = []
    while len(times) < 7:
        if rest and times:
            time.sleep(rest * times[-1])
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        if time.monotonic() > until and (len(times) >= 3 or times[-1] > LONG_BATCH_S):
            break
    return sorted(times)[len(times) // 4]


def concurrent_rate(instances: list[Instance], inputs: Tensors) -> float:
    """Batches per second of all instances at once; 0.0 when one of them fails or does not come back."""
    runs = 3
    barrier = threading.Barrier(len(instances) + 1)
    failures: list[Exception] = []

    def work(instance: Instance) -> None:
        try:
            instance.run(inputs)
            barrier.wait(_PATIENCE_S)
            for _ in range(runs):
                instance.run(inputs)
        except Exception as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(instance,), daemon=True) for instance in instances]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        barrier.wait(_PATIENCE_S)
    started = time.perf_counter()
    for thread in threads:  # also after a failure: what still runs would disturb the next measurement
        thread.join(max(0.0, started + _PATIENCE_S - time.perf_counter()))
    seconds = time.perf_counter() - started
    if failures or any(thread.is_alive() for thread in threads):
        return 0.0
    return runs * len(instances) / seconds


def handover_s() -> float:
    """Median seconds to wake a thread and be woken by it."""
    thread = InstanceThread("handover")
    times = []
    for _ in range(20):
        done = threading.Event()
        started = time.perf_counter()
        thread.run(done.set)
        done.wait(_PATIENCE_S)
        times.append(time.perf_counter() - started)
    thread.stop()
    return sorted(times)[len(times) // 2]
