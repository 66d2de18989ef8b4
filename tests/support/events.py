"""A client of server-sent events that accepts no framing but the exact one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from paceline.testing import RunningServer
from support.wire import NotHttp, Wire, post


class Event(NamedTuple):
    """One event; `part` is what an event without a name is."""

    name: str
    data: Any


class EventClient(Wire):
    """One connection, which asks for streams one after another, and may ask for others before they have ended."""

    def ask(self, item: Any, *headers: str) -> EventClient:
        """Send an item, and read the head of the answer."""
        self.send(post(json.dumps(item).encode(), *headers))
        return self.begin()

    def begin(self) -> EventClient:
        """Read the head of the next answer."""
        status_line, *lines = self._head().decode("latin-1").split("\r\n")
        self.status = int(status_line.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return self

    def events(self) -> Iterator[Event]:
        """The events, each as soon as it is there, to the end of the answer."""
        text = b""
        while chunk := self._chunk():
            text += chunk
            while b"\n\n" in text:
                event, _, text = text.partition(b"\n\n")
                if not event.startswith(b":"):
                    yield parsed(event)
        if text:
            raise NotHttp(f"the answer ends in the middle of an event: {text!r}")

    def _chunk(self) -> bytes:
        while b"\r\n" not in self._received:
            self._more("in the middle of an answer in chunks")
        size, _, self._received = self._received.partition(b"\r\n")
        chunk = self._exactly(int(size, 16) + 2)
        if not chunk.endswith(b"\r\n"):
            raise NotHttp(f"behind a chunk: {chunk[-2:]!r}")
        return chunk[:-2]


def stream(server: RunningServer, item: Any, *headers: str) -> list[Event]:
    """All events of one answer."""
    with EventClient(server, 60.0) as client:
        client.ask(item, *headers)
        assert (client.status, client.headers["content-type"]) == (200, "text/event-stream")
        return list(client.events())


def parsed(event: bytes) -> Event:
    """An event from its lines."""
    fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
    assert fields.keys() <= {b"event", b"data"}, event
    return Event(fields.get(b"event", b"part").decode(), json.loads(fields[b"data"]))
