import gc
import signal

from hypothesis import HealthCheck, settings

# How long an example takes is the machine's load, and a busy CI machine is no defect.
settings.register_profile("paceline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("paceline")

# A shell ignores SIGINT in what it starts in the background, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Modules stay: the garbage collector need not look at all of them each time, which takes a second."""
    gc.collect()
    gc.freeze()
