"""A message of Protocol Buffers as no library writes it: what it has once is there twice, first with other content."""

from __future__ import annotations

from typing import Any

from support.inspected import field


def written_twice(message: Any) -> bytes:
    """Bytes that every reader of the format reads as this message."""
    return b"".join(_field(message, descriptor, value) for descriptor, value in message.ListFields())


def _field(message: Any, descriptor: Any, value: Any) -> bytes:
    number, inner = descriptor.number, descriptor.message_type
    if inner and inner.GetOptions().map_entry:
        texts, messages = (inner.fields_by_number[each] for each in (1, 2))
        if texts.type == texts.TYPE_STRING and messages.message_type:
            return b"".join(_entry(number, key.encode(), each) for key, each in value.items())
    elif inner and descriptor.is_repeated:
        return b"".join(field(number, written_twice(each)) for each in value)
    elif not descriptor.is_repeated:
        others = b"".join(field(each.number, b"") for each in _excluded(descriptor))
        if inner:
            return others + field(number, _other(value)) + field(number, written_twice(value))
        if descriptor.type in (descriptor.TYPE_STRING, descriptor.TYPE_BYTES):
            content = value.encode() if isinstance(value, str) else value
            return others + field(number, b"another") + field(number, content)
        return others + _as_it_is(message, descriptor)
    return _as_it_is(message, descriptor)


def _entry(number: int, key: bytes, value: Any) -> bytes:
    """An entry of a map, after another of the same key."""
    other = field(2, _other(value))
    written = field(1, b"another") + field(1, key) + other + field(2, written_twice(value))
    return field(number, field(1, key) + other) + field(number, written)


def _other(message: Any) -> bytes:
    """Other texts, in the fields that the message has."""
    return b"".join(
        field(descriptor.number, b"another")
        for descriptor, _ in message.ListFields()
        if descriptor.type == descriptor.TYPE_STRING and not descriptor.is_repeated
    )


def _excluded(descriptor: Any) -> list[Any]:
    """The fields that this one replaces, if their values have a length."""
    members = descriptor.containing_oneof.fields if descriptor.containing_oneof else ()
    return [
        each
        for each in members
        if each.name != descriptor.name and (each.message_type or each.type == each.TYPE_STRING)
    ]


def _as_it_is(message: Any, descriptor: Any) -> bytes:
    alone = type(message)()
    alone.CopyFrom(message)
    for each, _ in message.ListFields():
        if each.name != descriptor.name:
            alone.ClearField(each.name)
    return bytes(alone.SerializeToString())
