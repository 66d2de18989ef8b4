"""How is markup written so that no text in it is ever taken for markup?

Rules:
- Trees of elements, written by the standard library: text is escaped by whoever writes, never by hand.
- What XML cannot carry, such as most control characters, becomes U+FFFD.
- A number that is not finite is our own bug, and raises: browsers drop such shapes in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final
from xml.etree import ElementTree as ET

Element = ET.Element
Content = Element | str | None
Attribute = str | float | bool | None

SVG: Final = "http://www.w3.org/2000/svg"
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(tag: str, *content: Content | Iterable[Content], **attributes: Attribute) -> Element:
    """An element.

    Args:
        content: elements, texts, or iterables of them, in this order; None is left out.
        attributes: `class_` stands for class, `stroke_width` for stroke-width. None and False are left out, True is
            an attribute without a value. Numbers have two decimals at most.

    Raises:
        ValueError: a number that is not finite.
    """
    made = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            made.set(name.rstrip("_").replace("_", "-"), _attribute(name, value))
    append(made, *content)
    return made


def append(parent: Element, *content: Content | Iterable[Content]) -> None:
    """Put these behind what the element has."""
    for each in content:
        if each is None:
            continue
        if isinstance(each, Element):
            parent.append(each)
        elif isinstance(each, str):
            _append_text(parent, clean(each))
        else:
            append(parent, *each)


def number(value: float) -> str:
    """As attributes have it."""
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be drawn")
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def points(places: Iterable[tuple[float, float]]) -> str:
    """As `points` of a polyline."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in places)


def clean(text: str) -> str:
    """The text, without what XML cannot carry."""
    return _NOT_XML.sub("\ufffd", text)


def as_svg(svg: Element) -> str:
    """A file of its own."""
    svg.set("xmlns", SVG)
    ET.indent(svg, space="")
    return ET.tostring(svg, encoding="unicode") + "\n"


def as_html(html: Element) -> str:
    """A document."""
    return "<!doctype html>\n" + ET.tostring(html, encoding="unicode", method="html") + "\n"


def _attribute(name: str, value: str | float | bool) -> str:
    if value is True:
        return name
    return clean(value) if isinstance(value, str) else number(value)


def _append_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
