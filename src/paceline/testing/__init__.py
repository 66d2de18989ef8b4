"""Help for testing against Paceline: a real server process in one line."""

from paceline.testing.server import RunningServer, run_server

__all__ = ["RunningServer", "run_server"]
