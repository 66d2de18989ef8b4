"""The protobuf messages of the gRPC services, made at run time from the descriptors that lie beside `protos/*.proto`.

`make protos` compiles the `.proto` files to `protos/descriptors.binpb`; a test compares the two.

Rules:
- The pool is our own. A process may hold TensorFlow or a Triton client too, which register files and messages of the
  same names in the default pool, and two of a name there are an error.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as MalformedMessage
from google.protobuf.message import Message

from paceline.core.errors import DecodeError


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """All files that our services need."""
    own = descriptor_pool.DescriptorPool()
    data = (files("paceline.server") / "protos" / "descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        own.AddSerializedFile(file.SerializeToString())
    return own


@cache
def message(name: str) -> Any:
    """The class of a message by its full name, such as `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def parsed(kind: Any, data: bytes | bytearray | memoryview) -> Any:
    """A message from the wire.

    Raises:
        DecodeError: it is malformed.
    """
    try:
        return kind.FromString(data if isinstance(data, bytes) else bytes(data))
    except MalformedMessage as error:
        raise DecodeError(f"the message is not a {kind.DESCRIPTOR.full_name}: {error}") from error


@lru_cache(maxsize=1024)
def varint(number: int) -> bytes:
    """A number as lengths and tags are written: seven bits a byte, the lowest first."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


__all__ = ["Message", "message", "parsed", "pool", "varint"]
