"""Decides which requests run together, when, and which are refused.

Pure: no clock, thread, socket or event loop. Time is an argument, in monotonic seconds; the same events give
the same decisions, in the server, in the simulator and in a test that takes a millisecond.
"""

from paceline.scheduling.batch import Batch, Policy
from paceline.scheduling.latency import LatencyModel, Unpredictable
from paceline.scheduling.scheduler import Scheduler

__all__ = ["Batch", "LatencyModel", "Policy", "Scheduler", "Unpredictable"]
