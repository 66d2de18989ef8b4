"""What does `paceline.toml` say, and on which line?

`tomllib` drops line numbers, and a message without one sends its reader searching. So the text is scanned
a second time, only for the lines that headers and keys stand on.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.core.errors import ConfigError

FILE_NAME = "paceline.toml"

KeyPath = tuple[str, ...]

_HEADER = re.compile(r"\s*(\[[^\[\]]+\])\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_.\-\s])+?)\s*=""")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A parsed file that knows the line of each key."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, key: KeyPath) -> int:
        """Return the line of a key, or of the nearest table that holds it (an inline table is one line)."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def origin(self, key: KeyPath) -> str:
        return f"{self.path}:{self.line(key)}"

    def place(self, key: KeyPath) -> str:
        return f"{self.path} line {self.line(key)}"


def find_toml(named: Path | None) -> Path | None:
    """Return the file to read: the named one, else ./paceline.toml when there is one."""
    if named is not None:
        return named
    here = Path(FILE_NAME)
    return here if here.exists() else None


def read_toml(path: Path) -> TomlFile:
    """Read and parse the file.

    Raises:
        ConfigError: it is missing, cannot be read, or is not TOML.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="name an existing file with --config") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8, and is not at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return TomlFile(path, data, dict(reversed(list(_key_lines(text)))))


def _key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _key_path(header[1])
            yield table, number
        elif key := _KEY.match(line):
            yield table + _key_path(key[1] + " = 0"), number


def _key_path(toml: str) -> KeyPath:
    # The parser itself splits dotted and quoted keys. What it rejects is a line of a long string.
    try:
        inner: Any = tomllib.loads(toml)
    except tomllib.TOMLDecodeError:
        return ()
    path: KeyPath = ()
    while isinstance(inner, dict) and inner:
        key, inner = next(iter(inner.items()))
        path += (key,)
    return path
