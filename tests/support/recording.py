"""A service that writes down every batch that it runs, and waits where a test wants it to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paceline.testing import RunningServer, run_server
from support.served import Served
from support.wire import metric, until

CODE = """
import json, os, time

def predict(batch: list):
    with open(os.environ["RECORD"], "a") as file:
        file.write(json.dumps(batch) + "\\n")
    for item in batch:
        if isinstance(item, dict) and "gate" in item:
            while not os.path.exists(item["gate"]):
                time.sleep(0.002)
    if any(item == "poison" or isinstance(item, dict) and "poison" in item for item in batch):
        raise ValueError("poison")
    return [{{"item": item, "by": {by!r}}} for item in batch]
"""


class Recording(Served):
    """The service behind a server of its own.

    Args:
        folder: where gates are.
        record: the file that the service writes.
    """

    def __init__(self, server: RunningServer, folder: Path, record: Path) -> None:
        super().__init__("recording", folder / "recording.py", server)
        self.folder = folder
        self._record = record

    @property
    def ran(self) -> list[Any]:
        """The items that have run, one by one."""
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        return [item for line in lines for item in json.loads(line)]

    def wait_until_runs(self, item: Any) -> None:
        """Wait until an item is in the hands of the code."""
        until(lambda: item in self.ran)

    def gate(self, name: str) -> Any:
        """An item that waits until `open` is called with its name."""
        return {"gate": str(self.folder / name)}

    def open(self, name: str) -> None:
        (self.folder / name).touch()

    def metric(self, name: str) -> float:
        """A metric, summed over its labels."""
        return metric(self.server, name)


@contextmanager
def recording(
    folder: Path, *flags: str, by: str = "code", code: str = "", record: Path | None = None
) -> Iterator[Recording]:
    """Serve it with one worker.

    Args:
        by: what the predictions say of who made them.
        code: put behind it.
        record: another file for it to write than one beside it.
    """
    path, record = folder / "recording.py", record or folder / "record"
    path.write_text(CODE.format(by=by) + code)
    flags = ("--instances", "1", "--warmup-s", "0", *flags)
    with run_server(path, flags, env={"RECORD": str(record)}) as server:
        yield Recording(server, folder, record)
