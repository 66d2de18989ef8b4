"""N server processes (replicas) on one port: started, watched, replaced.

Standard library only: the supervisor costs a few megabytes, and outlives every change of the code that it starts.
"""

VARIABLE = "_PACELINE_REPLICA"
"""Tells a process that it is a replica, and what it is given. Not PACELINE_...: those are settings."""
