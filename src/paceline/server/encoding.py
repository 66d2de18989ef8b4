"""gzip and deflate, both ways: bodies in are inflated up to the limit, bodies out are compressed for who asks."""

from __future__ import annotations

import gzip
import zlib

from paceline.server.status import Rejection

MIN_COMPRESSED_BYTES = 1024
# The first level: on the loopback and in data centres, time is dearer than the last per cent of size.
_LEVEL = 1


class BadEncoding(Exception):
    """The body cannot be inflated."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


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
    rest, left = bytes(body), limit_bytes
    try:
        while rest:  # gzip allows several members in a row
            inflater = zlib.decompressobj(window)
            piece = inflater.decompress(rest, left + 1)
            left -= len(piece)
            if left < 0:
                raise BadEncoding(
                    Rejection(413, "request_too_large", f"the body inflates to more than {limit_bytes} bytes")
                )
            if not inflater.eof:
                raise zlib.error("the compressed data ends early")
            pieces.append(piece)
            rest = inflater.unused_data
    except zlib.error as error:
        raise BadEncoding(Rejection(400, "decode_error", f"corrupt compressed body: {error}")) from error
    return b"".join(pieces)


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
