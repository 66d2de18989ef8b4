"""gzip and deflate, both ways: bodies in are inflated up to the limit, answers are compressed for who asks."""

from __future__ import annotations

import gzip
import zlib

from paceline.server.status import Rejection

MIN_COMPRESSED_BYTES = 1024
# The first level: on the loopback and in data centres, time is dearer than the last per cent of size.
_LEVEL = 1
_WINDOW_BYTES = 64 << 10
# A gzip body may be many members in a row, each with a cost of its own: fewer bytes than this each are an attack.
_MEMBER_BYTES = 1024


class BadEncoding(Exception):
    """The body cannot be inflated."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


class _OverLimit(Exception):
    """More comes out than is allowed."""


def inflate(body: bytes | bytearray | memoryview, encoding: bytes, limit_bytes: int) -> bytes:
    """Undo one `Content-Encoding`.

    Raises:
        BadEncoding: unknown encoding (415), corrupt data (400), or over the limit once inflated (413).
    """
    name = encoding.strip().lower()
    if name in (b"gzip", b"x-gzip"):
        return _inflated(body, 16 + zlib.MAX_WBITS, limit_bytes)
    if name == b"deflate":
        # zlib-wrapped by the standard, raw by some clients' mistake.
        wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
        return _inflated(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, limit_bytes)
    raise BadEncoding(
        Rejection(
            415,
            "unsupported_encoding",
            f"content-encoding '{name.decode('latin-1')}' is not supported: gzip, deflate, identity",
            b"accept-encoding: gzip, deflate\r\n",
        )
    )


def _inflated(body: bytes | bytearray | memoryview, window: int, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    view, at, left = memoryview(body), 0, limit_bytes
    members = len(body) // _MEMBER_BYTES + 1
    try:
        while at < len(view):
            if len(pieces) == members or (pieces and window <= zlib.MAX_WBITS):
                raise zlib.error("data behind the end")
            piece, used = _member(view[at:], window, left)
            at += used
            left -= len(piece)
            pieces.append(piece)
    except zlib.error as error:
        raise BadEncoding(Rejection(400, "decode_error", f"corrupt compressed body: {error}")) from error
    except _OverLimit:
        too_large = Rejection(413, "request_too_large", f"the body inflates to more than {limit_bytes} bytes")
        raise BadEncoding(too_large) from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _member(view: memoryview, window: int, limit_bytes: int) -> tuple[bytes, int]:
    """Inflate one stream; its data, and how many bytes it took. Windows, because what is left over is copied."""
    inflater = zlib.decompressobj(window)
    pieces: list[bytes] = []
    used, left = 0, limit_bytes
    while not inflater.eof:
        if used == len(view):
            raise zlib.error("the compressed data ends early")
        fed = view[used : used + _WINDOW_BYTES]
        piece = inflater.decompress(fed, left + 1)
        left -= len(piece)
        if left < 0:
            raise _OverLimit
        pieces.append(piece)
        used += len(fed) - len(inflater.unused_data)
    return b"".join(pieces), used


def chosen(accept: bytes) -> bytes:
    """The encoding to answer with: the client's favourite among gzip and deflate, or none."""
    best, best_weight = b"", 0.0
    for part in accept.lower().split(b","):
        name, _, parameters = part.partition(b";")
        weight = _weight(parameters)
        if name.strip() in (b"gzip", b"deflate") and weight > best_weight:
            best, best_weight = name.strip(), weight
    return best


def compress(body: bytes, encoding: bytes) -> bytes:
    """Compress a body with an encoding that `chosen` returned."""
    return gzip.compress(body, _LEVEL, mtime=0) if encoding == b"gzip" else zlib.compress(body, _LEVEL)


def _weight(parameters: bytes) -> float:
    for parameter in parameters.split(b";"):
        name, _, value = parameter.strip().partition(b"=")
        if name == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
