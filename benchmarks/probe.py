"""How is a server doing while others load it? Asks its health and reads its memory."""

from __future__ import annotations

import http.client
import threading
import time
from typing import Any

from benchmarks.processes import Server

_HEALTH = "/healthz"
_NO_ANSWER_MS = 5000.0


class Probe:
    """Between enter and exit, a thread asks for health and reads the resident memory at a fixed interval."""

    def __init__(self, server: Server, every_s: float) -> None:
        self.health_ms: list[float] = []
        self.rss_mib: list[float] = []
        self._server = server
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def as_data(self) -> dict[str, Any]:
        """For the report."""
        return {"health_ms": self.health_ms, "rss_mib": self.rss_mib}

    def _watch(self) -> None:
        while True:
            # A new connection each time, as a load balancer or an orchestrator opens them.
            self.health_ms.append(self._ask_ms())
            self.rss_mib.append(self._server.rss_mib)
            if self._stop.wait(self._every_s):
                return

    def _ask_ms(self) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=_NO_ANSWER_MS / 1e3)
        begun = time.perf_counter()
        try:
            connection.request("GET", _HEALTH)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return _NO_ANSWER_MS
        finally:
            connection.close()
        return (time.perf_counter() - begun) * 1e3 if status == 200 else _NO_ANSWER_MS
