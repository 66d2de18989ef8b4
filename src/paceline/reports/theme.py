"""Which colors, shapes and letters do reports have, on light and on dark?

Rules:
- Series differ by shape as well as by color. The colors are those of Okabe and Ito, made darker on light and lighter
  on dark until each has a contrast of 4.5 with its background, so that text may have them too.
- Colors are CSS custom properties: the same picture is right on both, without a script.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

LIGHT: Final = {
    "page": "#f5f6f8",
    "surface": "#ffffff",
    "sunken": "#f5f7f9",
    "ink": "#131a22",
    "soft": "#525d6b",
    "grid": "#e6e9ee",
    "axis": "#a9b2bd",
    "blue": "#0067a8",
    "orange": "#b84a00",
    "green": "#007a58",
    "purple": "#a03a7e",
    "gold": "#8a6500",
    "sky": "#2a7796",
    "red": "#b3261e",
    "gray": "#5f6975",
    "accent": "#0c7267",
    "good": "#15703c",
    "good-tint": "#e3f5ea",
    "warn": "#8a5200",
    "warn-tint": "#fdf1dc",
    "bad": "#b3261e",
    "bad-tint": "#fdeae9",
}
DARK: Final = {
    "page": "#0d1116",
    "surface": "#151b22",
    "sunken": "#10151b",
    "ink": "#e7ebf0",
    "soft": "#a3aebb",
    "grid": "#262e38",
    "axis": "#55606d",
    "blue": "#5cb3f0",
    "orange": "#ff9350",
    "green": "#35c79c",
    "purple": "#e79bcb",
    "gold": "#e3bd3a",
    "sky": "#8ed3ee",
    "red": "#ff8f87",
    "gray": "#9aa5b2",
    "accent": "#3cc9b5",
    "good": "#5fd08b",
    "good-tint": "#12301e",
    "warn": "#f0b85a",
    "warn-tint": "#35270d",
    "bad": "#ff8f87",
    "bad-tint": "#3c1a18",
}
TONES: Final = ("blue", "orange", "green", "purple", "gold", "sky", "gray")
"""Of series, in the order in which they are given out."""
MARKERS: Final = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",  # disc
    "M-3.6 -3.6h7.2v7.2h-7.2z",  # square
    "M0 -5l4.8 8.4h-9.6z",  # triangle
    "M0 -5l5 5l-5 5l-5 -5z",  # diamond
    "M0 5l4.8 -8.4h-9.6z",  # triangle, point down
    "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",  # plus
)
SANS: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif'
FONT_SIZE: Final = 12.0
TITLE_SIZE: Final = 15.0
_WIDE, _NARROW = frozenset("mwMWOQGD@%\u2013\u2192"), frozenset("iljtfrI.,:;|'!()[]/ -\u00a0")


def variables() -> str:
    """The custom properties, for light, dark and paper."""
    light, dark = (";".join(f"--{name}:{color}" for name, color in each.items()) for each in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light dark;--sans:{SANS};{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )


def style(name: str) -> str:
    """A style sheet of this package, without its comments."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/\s*", "", text, flags=re.DOTALL).strip()


def text_width(text: str, size: float = FONT_SIZE, bold: bool = False) -> float:
    """Pixels that a text takes at most, in the widest of the common fonts of screens."""
    ems = sum(0.98 if each in _WIDE else 0.40 if each in _NARROW else 0.66 for each in text)
    return ems * size * (1.08 if bold else 1.0)
