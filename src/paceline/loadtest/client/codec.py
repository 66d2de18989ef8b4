"""What does a protocol do on one connection of the client? No socket here: bytes in, bytes out.

One request is under way on a connection at a time.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Answer(NamedTuple):
    """A complete answer.

    Attributes:
        ok: it is a prediction.
        status: of HTTP, or of gRPC.
        queue_s, infer_s: how long the request waited and its batch ran, as the server says; nan: it does not.
        batch_rows: of the batch that it ran in; 0: the server does not say.
        closes: no other request may follow on this connection.
    """

    ok: bool
    status: int
    queue_s: float = float("nan")
    infer_s: float = float("nan")
    batch_rows: int = 0
    closes: bool = False


class Malformed(Exception):
    """What came is none of the protocol."""


class Codec(Protocol):
    """The client's side of one connection."""

    def greeting(self) -> bytes:
        """What to send once connected, before any request."""

    def request(self, index: int) -> bytes:
        """The bytes of a request with the body of that index; it is under way from now on."""

    def receive(self, data: bytes) -> Answer | None:
        """Take what came; the answer to the request under way, once it is complete.

        Raises:
            Malformed: the connection is of no more use.
        """

    def end(self) -> Answer | None:
        """The server has closed its side; the answer, if that is what completes it."""

    def pending(self) -> bytes:
        """What the protocol itself wants to send now, such as acknowledgements; then it is gone from here."""
