"""What does a file in protobuf's text format say, and on which line?

Rules:
- Read without descriptors: a message is its fields in order, and each knows its line, for messages and origins. Who
  asks says what a field holds, and which fields there may be.
- protobuf's own tokenizer takes the text apart; it is imported once such a file is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from paceline.config.setting import BadValue, Value, shown
from paceline.config.settings import SETTINGS, Found
from paceline.core.errors import ConfigError

if TYPE_CHECKING:
    from google.protobuf.text_format import Tokenizer

_LARGEST_BYTES = 16 << 20
_DEEPEST = 32
_LONGEST_SHOWN = 200
_CLOSING = {"{": "}", "<": ">"}
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


@dataclass(frozen=True)
class Scalar:
    """A number, a name or a text, as it was written.

    Attributes:
        quoted: it was a string; `text` is then without quotes and escapes.
    """

    text: str
    line: int
    quoted: bool = False


@dataclass(frozen=True)
class Field:
    """One field: its name, line and value."""

    name: str
    line: int
    value: Scalar | Block


@dataclass(frozen=True)
class Block:
    """A message of the file; the outermost is the file itself."""

    path: Path
    label: str
    line: int = 1
    fields: list[Field] = field(default_factory=list)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __contains__(self, name: str) -> bool:
        return any(each.name == name for each in self.fields)

    def allow(self, names: Collection[str]) -> None:
        """Refuse any other field.

        Raises:
            ConfigError: naming it, with its line.
        """
        for each in self.fields:
            if each.name not in names:
                close = get_close_matches(each.name, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(names))}"
                raise ConfigError(f"{self._named(each.name)}: unknown field ({self.place(each.line)})", hint=hint)

    def block(self, name: str) -> Block | None:
        """The message in a field that is there at most once."""
        blocks = self.blocks(name)
        if len(blocks) > 1:
            raise self.wrong(name, "must be there once", blocks[1].line)
        return blocks[0] if blocks else None

    def blocks(self, name: str) -> list[Block]:
        """The messages in a repeated field."""
        return [self._a_block(each) for each in self.fields if each.name == name]

    def texts(self, name: str) -> list[str]:
        """The strings, or names of an enumeration, in a repeated field."""
        return [scalar.text for scalar in self._scalars(name)]

    def text(self, name: str) -> str | None:
        """The string, or name of an enumeration, in a field."""
        scalar = self._once(name)
        return None if scalar is None else scalar.text

    def boolean(self, name: str) -> bool:
        """The value of a boolean field; false when it is not there."""
        scalar = self._once(name)
        if scalar is None:
            return False
        if scalar.quoted or scalar.text.lower() not in _BOOLEANS:
            raise self.wrong(name, f"must be true or false, got {shown(scalar.text)}", scalar.line)
        return _BOOLEANS[scalar.text.lower()]

    def integer(self, name: str) -> int | None:
        """The whole number in a field."""
        scalar = self._once(name)
        return None if scalar is None else self._an_integer(name, scalar)

    def integers(self, name: str) -> list[int]:
        """The whole numbers in a repeated field."""
        return [self._an_integer(name, scalar) for scalar in self._scalars(name)]

    def line_of(self, name: str) -> int:
        """The line of a field; the message's own when it is not there."""
        return next((each.line for each in self.fields if each.name == name), self.line)

    def place(self, line: int) -> str:
        return f"{self.path} line {line}"

    def wrong(self, name: str, why: str, line: int | None = None, *, hint: str | None = None) -> ConfigError:
        """The error that says what is the matter with a field."""
        return ConfigError(f"{self._named(name)}: {why} ({self.place(line or self.line_of(name))})", hint=hint)

    def setting(self, name: str, setting: str, value: Value) -> Found:
        """`value`, found in field `name`, as a checked setting.

        Raises:
            ConfigError: the setting does not take it.
        """
        try:
            return Found(SETTINGS[setting].check(value), f"{self.path}:{self.line_of(name)}")
        except BadValue as error:
            raise self.wrong(name, f"as {setting}: {error}") from None

    def _named(self, name: str) -> str:
        return f"{self.label}.{name}" if self.label else name

    def _scalars(self, name: str) -> list[Scalar]:
        return [self._a_scalar(each) for each in self.fields if each.name == name]

    def _once(self, name: str) -> Scalar | None:
        scalars = self._scalars(name)
        if len(scalars) > 1:
            raise self.wrong(name, "must be there once", scalars[1].line)
        return scalars[0] if scalars else None

    def _an_integer(self, name: str, scalar: Scalar) -> int:
        try:
            return int(scalar.text, 0) if not scalar.quoted and len(scalar.text) <= 30 else int("")
        except ValueError:
            raise self.wrong(name, f"must be a whole number, got {shown(scalar.text)}", scalar.line) from None

    def _a_block(self, each: Field) -> Block:
        if isinstance(each.value, Block):
            return each.value
        raise self.wrong(each.name, f"must be a message {{ ... }}, got {shown(each.value.text)}", each.line)

    def _a_scalar(self, each: Field) -> Scalar:
        if isinstance(each.value, Scalar):
            return each.value
        raise self.wrong(each.name, "must be a value, got a message { ... }", each.line)


def read_prototext(path: Path) -> Block:
    """Read a file in protobuf's text format.

    Raises:
        ConfigError: it is missing, cannot be read, or is malformed.
    """
    from google.protobuf import text_format

    text = _text(path)
    block = Block(path, "")
    try:
        tokens = text_format.Tokenizer(text.splitlines())
        _Reader(tokens, path).fields(block, closing="", depth=0)
    except text_format.ParseError as error:
        # The message begins with line and column, which stand behind it here, as in all of ours.
        raise _malformed(path, str(error).split(" : ", 1)[-1][:_LONGEST_SHOWN], error.GetLine() or 1) from None
    return block


def _malformed(path: Path, message: str, line: int) -> ConfigError:
    return ConfigError(f"{path}: not in protobuf's text format: {message} ({path} line {line})")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(f"{path}: larger than {_LARGEST_BYTES >> 20} MiB, which no such file is")
        return path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8, and is not at byte {error.start}") from None


class _Reader:
    def __init__(self, tokens: Tokenizer, path: Path) -> None:
        self._tokens = tokens
        self._path = path

    def fields(self, block: Block, closing: str, depth: int) -> None:
        """Read fields into `block`, up to the token `closing`."""
        tokens = self._tokens
        if depth > _DEEPEST:
            raise self._malformed(f"messages more than {_DEEPEST} deep")
        while not tokens.TryConsume(closing) if closing else not tokens.AtEnd():
            if tokens.AtEnd():
                raise self._malformed(f"expected {closing!r}, got the end of the file")
            line = self._line()
            name = tokens.ConsumeIdentifier()
            label = block._named(name)
            block.fields.extend(Field(name, at, value) for at, value in self._values(label, line, depth))
            if not tokens.TryConsume(","):
                tokens.TryConsume(";")

    def _values(self, label: str, line: int, depth: int) -> Iterator[tuple[int, Scalar | Block]]:
        tokens = self._tokens
        # Messages, and lists of them, may do without the colon.
        if not tokens.TryConsume(":") and tokens.token not in ("[", *_CLOSING):
            raise self._malformed(f"expected ':' or '{{' behind {label!r}")
        if not tokens.TryConsume("["):
            yield line, self._value(label, line, depth)
            return
        while not tokens.TryConsume("]"):
            at = self._line()
            yield at, self._value(label, at, depth)
            if not tokens.LookingAt("]"):
                tokens.Consume(",")

    def _value(self, label: str, line: int, depth: int) -> Scalar | Block:
        tokens = self._tokens
        if tokens.token in _CLOSING:
            block = Block(self._path, label, line)
            closing = _CLOSING[tokens.token]
            tokens.NextToken()
            self.fields(block, closing, depth + 1)
            return block
        if tokens.token[:1] in ("'", '"'):
            return Scalar(tokens.ConsumeString(), line, quoted=True)
        text = tokens.token
        if not (text[:1].isalnum() or text[:1] in ("_", ".", "-")):
            raise self._malformed(f"expected a value for {label!r}, got {text!r}")
        tokens.NextToken()
        return Scalar(text, line)

    def _malformed(self, message: str) -> ConfigError:
        return _malformed(self._path, message, self._line())

    def _line(self) -> int:
        return self._tokens.ParseError("").GetLine() or 1  # type: ignore[arg-type]
