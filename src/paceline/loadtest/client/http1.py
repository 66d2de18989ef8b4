"""How does the client speak HTTP/1.1: requests that are made before the test, answers that are read and not kept?

Rules:
- The same answer comes out however the bytes are cut into reads.
- What is no answer raises `Malformed`; nothing that a server sends takes more memory than a head may have.
- Bodies are counted, not kept: what is asked is how fast an answer came, not what it says.
- Bytes after an answer are tolerated, as browsers do, but nothing more is asked on that connection.
"""

from __future__ import annotations

import re
from typing import Final

from paceline.loadtest.client.codec import Answer, Malformed
from paceline.loadtest.client.server_timing import NO_TIMING, timing
from paceline.loadtest.target import Target, authority

_LONGEST_HEAD: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 12
_MOST_KNOWN: Final = 64
_LONGEST_KNOWN: Final = 1 << 12
_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?\r\n")
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_BODY: Final = (204, 304)
_SWITCHING: Final = 101


class Shared:
    """What all connections to a target have in common.

    Attributes:
        requests: the bytes of each.
        known: whole answers that have come before.

    Raises:
        ValueError: the target has a header or a path that cannot be sent.
    """

    def __init__(self, target: Target) -> None:
        self.requests = _requests(target)
        self.known: dict[bytes, Answer] = {}


class Http1:
    """The client's side of one connection; see `Codec`.

    Args:
        shared: what all connections to the target have in common; made anew without it.

    Raises:
        ValueError: the target has a header or a path that cannot be sent.
    """

    def __init__(self, target: Target, shared: Shared | None = None) -> None:
        shared = shared or Shared(target)
        self._requests = shared.requests
        self._known = shared.known
        self._waiting = False
        self._head = bytearray()
        self._body: _Sized | _Chunked | _UntilClose | None = None
        self._answer = _NOTHING

    def greeting(self) -> bytes:
        """Nothing: HTTP/1.1 begins with a request."""
        return b""

    def request(self, index: int) -> bytes:
        """The bytes of a request with the body of that index."""
        self._waiting = True
        return self._requests[index]

    def pending(self) -> bytes:
        """Nothing: HTTP/1.1 acknowledges nothing."""
        return b""

    def receive(self, data: bytes) -> Answer | None:
        """Take what came; the answer, once it is complete.

        Raises:
            Malformed: it is no HTTP/1.1, or nobody has asked.
        """
        known = self._known.get(data)
        if known is not None and self._waiting and self._body is None and not self._head:
            self._waiting = False
            return known
        answer = self._received(data)
        if answer is not None:
            self._waiting, self._body = False, None
        return answer

    def end(self) -> Answer | None:
        """The server has closed: that ends a body whose length it has not said."""
        if isinstance(self._body, _UntilClose):
            self._waiting, self._body = False, None
            return self._answer
        return None

    def _received(self, data: bytes) -> Answer | None:
        if not self._waiting:
            raise Malformed("bytes that nobody has asked for")
        if self._body is not None:
            return self._complete(data, 0)
        is_whole = not self._head
        received = data if is_whole else self._with_head(data)
        if not received:
            return None
        begin = self._read_head(received)
        if begin < 0:
            self._head += received[-begin - 1 :]
            return None
        answer = self._complete(received, begin)
        if answer is not None and is_whole and not answer.closes:
            self._remember(data, answer)
        return answer

    def _with_head(self, data: bytes) -> bytes:
        """All that has come of a head, once that may be complete; until then it is kept, and looked at once."""
        looked_at = max(0, len(self._head) - len(_END) + 1)
        self._head += data
        if self._head.find(_END, looked_at) < 0:
            _check_beginning(self._head, 0)
            return b""
        received = bytes(self._head)
        self._head.clear()
        return received

    def _read_head(self, data: bytes) -> int:
        """Where the body begins; -1 - n: the head, which begins at n, is not complete."""
        begin = 0
        while True:
            end = data.find(_END, begin)
            if end < 0 or end - begin > _LONGEST_HEAD:
                _check_beginning(data, begin)
                return -1 - begin
            status = _STATUS.match(data, begin, end + 2)
            if status is None:
                raise Malformed(f"no status line of HTTP/1.1: {data[begin : begin + 64]!r}")
            code = int(status[2])
            if code >= 200:
                self._understand(code, status[1] == b"0", data[begin : end + 2])
                return end + 4
            if code == _SWITCHING:
                raise Malformed("the server changes to another protocol")
            begin = end + 4  # an interim answer: the real one follows

    def _understand(self, code: int, is_old: bool, head: bytes) -> None:
        head = head.lower()
        options = _field(head, b"\r\nconnection:")
        closes = b"close" in options or (is_old and b"keep-alive" not in options)
        self._body = body = _body(code, head)
        server = _field(head, b"\r\nserver-timing:")
        said = timing(server, _field(head, b"\r\nx-batch-size:")) if server else NO_TIMING
        self._answer = Answer(200 <= code < 300, code, *said, closes or isinstance(body, _UntilClose))

    def _complete(self, data: bytes, begin: int) -> Answer | None:
        """The answer, if its body is; more bytes than it has end the use of the connection."""
        assert self._body is not None
        left_over = self._body.left_over(data, begin)
        if left_over < 0:
            return None
        return self._answer._replace(closes=True) if left_over else self._answer

    def _remember(self, data: bytes, answer: Answer) -> None:
        """A server that answers the same again is not read again."""
        if len(data) > _LONGEST_KNOWN or answer.batch_rows:
            return  # times differ from answer to answer
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[data] = answer


class _Sized:
    """A body of so many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def left_over(self, data: bytes, begin: int) -> int:
        """How many bytes of `data`, which is from `begin` on the body's, come after its end; -1: more is to come."""
        self._size -= len(data) - begin
        return -1 if self._size > 0 else -self._size


class _UntilClose:
    """A body that ends with the connection."""

    def left_over(self, data: bytes, begin: int) -> int:
        """Never complete."""
        return -1


class _Chunked:
    """A body in chunks; their sizes stand before them, lines of trailers after them."""

    def __init__(self) -> None:
        self._data_left = 0  # of the chunk, with its line end
        self._line = b""
        self._in_trailers = False

    def left_over(self, data: bytes, begin: int) -> int:
        """How many bytes of `data`, which is from `begin` on the body's, come after its end; -1: more is to come."""
        while begin < len(data):
            if self._data_left:
                begin = self._skip(data, begin)
                continue
            end = data.find(b"\n", begin) + 1
            self._line += data[begin : end or len(data)]
            if len(self._line) > _LONGEST_LINE:
                raise Malformed("a line among the chunks without an end")
            if not end:
                return -1
            begin = end
            if self._is_last_line():
                return len(data) - begin
        return -1

    def _skip(self, data: bytes, begin: int) -> int:
        """Pass over the chunk's bytes; its last two are a line end."""
        stop = min(len(data), begin + self._data_left)
        for place in range(max(begin, begin + self._data_left - 2), stop):
            if data[place] != b"\r\n"[place - begin - self._data_left]:
                raise Malformed("a chunk that is longer than its size")
        self._data_left -= stop - begin
        return stop

    def _is_last_line(self) -> bool:
        line, self._line = self._line, b""
        if self._in_trailers:
            return line in (b"\r\n", b"\n")
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise Malformed(f"no size of a chunk: {line[:32]!r}")
        size = int(match[1], 16)
        self._data_left = size + 2 if size else 0
        self._in_trailers = not size
        return False


def _requests(target: Target) -> tuple[bytes, ...]:
    given = {name.lower() for name, _ in target.headers}
    lines = [] if "host" in given else [f"Host: {authority(target.host, target.port)}"]
    lines += [] if "user-agent" in given else ["User-Agent: paceline-bench"]
    for name, value in target.headers:
        if not _TOKEN.fullmatch(name.encode("latin-1", "replace")) or "\r" in value or "\n" in value:
            raise ValueError(f"header {name!r} cannot be sent with the value {value!r}")
        if name.lower() not in ("content-length", "transfer-encoding"):
            lines.append(f"{name}: {value}")
    head = "\r\n".join(lines).encode()
    return tuple(_request(target.path_of(index), head, body) for index, body in enumerate(target.bodies))


def _request(path: str, head: bytes, body: bytes) -> bytes:
    if not path.isprintable() or " " in path:
        raise ValueError(f"path {path!r} cannot be sent: expected no spaces, no control characters")
    first = b"POST %s HTTP/1.1\r\n" % (path.encode() or b"/")
    return b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (first, head, len(body), body)


def _check_beginning(data: bytes | bytearray, begin: int) -> None:
    """Raise as soon as it is clear that no head of HTTP/1.1 will come of this."""
    if len(data) - begin > _LONGEST_HEAD:
        raise Malformed("a head without an end")
    if data[begin : begin + 7] != b"HTTP/1."[: len(data) - begin]:
        raise Malformed(f"no status line of HTTP/1.1: {bytes(data[begin : begin + 64])!r}")


def _field(head: bytes, start: bytes) -> bytes:
    """The value of a header, from its line's start on; "" without one; several are joined."""
    at = head.find(start)
    if at < 0:
        return b""
    begin = at + len(start)
    value = head[begin : head.find(b"\r\n", begin)].strip()
    if head.find(start, begin) < 0:
        return value
    return value + b", " + _field(head[begin:], start)


def _body(code: int, head: bytes) -> _Sized | _Chunked | _UntilClose:
    """Which kind of body follows: RFC 9112, section 6.3."""
    if code in _NO_BODY:
        return _Sized(0)
    coding = _field(head, b"\r\ntransfer-encoding:")
    if coding:
        return _Chunked() if coding.rpartition(b",")[2].strip() == b"chunked" else _UntilClose()
    length = _field(head, b"\r\ncontent-length:")
    if not length:
        return _UntilClose()
    if b"," in length and len({each.strip() for each in length.split(b",")}) == 1:
        length = length.partition(b",")[0].strip()  # said twice
    if not length.isdigit() or len(length) > 18:
        raise Malformed(f"content-length: expected a number, got {length[:32]!r}")
    return _Sized(int(length))


_NOTHING: Final = Answer(False, 0)
