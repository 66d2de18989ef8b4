"""What is one setting: its type, its bounds, and which values does it take?

Text (flags, environment) goes through `parse`, typed values (TOML, Python) through `check`.
Both raise `BadValue`, which says what was expected and what came; who asked adds the path and the origin.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

_TYPE_NAMES = {int: "INTEGER", float: "NUMBER", bool: "BOOLEAN", str: "TEXT", Path: "PATH"}

Value = bool | int | float | str | Path | None

AUTO = "auto"
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})
_LONGEST_SHOWN = 60
_PASSWORD = re.compile(r"(?<=://).*(?=@)|(?<=password=)[^&\s'\"]+")


class BadValue(ValueError):
    """The value breaks the setting's rule; the text says which."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table that feeds the flags, `paceline.toml`, the environment and the reference page."""

    name: str
    type: type
    default: Value
    help: str
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    pattern_help: str = ""
    per_model: bool = False
    none_text: str = AUTO

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "PACELINE_" + self.name.upper()

    @property
    def automatic(self) -> bool:
        """Whether a word (`none_text`) stands for no number: `auto` means that Paceline chooses by measuring."""
        return self.optional and self.type in (int, float)

    @property
    def metavar(self) -> str:
        if self.choices:
            return "|".join(self.choices)
        return _TYPE_NAMES[self.type] + (f"|{self.none_text}" if self.automatic else "")

    def parse(self, text: str) -> Value:
        """Turn text from a flag or a variable into a checked value."""
        text = text.strip()
        if self.automatic and text == self.none_text:
            return None
        return self.check(_PARSERS[self.type](text))

    def check(self, value: object) -> Value:
        """Return the typed value when the setting takes it."""
        if self.optional and (value is None or (self.automatic and value == self.none_text)):
            return None
        if self.type is bool:
            return _a_bool(value)
        if self.type is int or self.type is float:
            return self._in_bounds(_an_int(value) if self.type is int else _a_float(value))
        text = _a_text(value)
        if self.choices and text not in self.choices:
            close = get_close_matches(text, self.choices, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise BadValue(f"must be one of {', '.join(self.choices)}, got {shown(text)}{meant}")
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise BadValue(f"must be {self.pattern_help}, got {shown(text)}")
        return Path(text) if self.type is Path else text

    def _in_bounds(self, number: int | float) -> int | float:
        if self.minimum is not None and number < self.minimum:
            raise BadValue(f"must be >= {self.minimum:g}, got {shown(number)}")
        if self.maximum is not None and number > self.maximum:
            raise BadValue(f"must be <= {self.maximum:.15g}, got {shown(number)}")
        return number


def shown(value: object) -> str:
    """Write a rejected value for a message: one line, and never longer than the message itself."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number too long to print"
    text = without_password(text)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def without_password(text: str) -> str:
    """The text with stars for the password of a URL: what is shown gets into logs and reports."""
    return _PASSWORD.sub("***", text)


def _parse_bool(text: str) -> object:
    # bool("false") is true, so only these words count; anything else falls through to the check, and fails.
    lowered = text.lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else text


def _parse_int(text: str) -> object:
    # int() alone would take "1_000" and digits of other scripts.
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text) else text


def _parse_float(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


_PARSERS: dict[type, Callable[[str], object]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
    str: str,
    Path: str,
}


def _a_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise BadValue(f"must be true or false (1, 0, yes, no), got {shown(value)}")


def _an_int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadValue(f"must be a whole number, got {shown(value)}")


def _a_float(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise BadValue(f"must be a finite number, got {shown(value)}")


def _a_text(value: object) -> str:
    if isinstance(value, (str, Path)) and str(value):
        return str(value)
    raise BadValue(f"must be a text that is not empty, got {shown(value)}")
