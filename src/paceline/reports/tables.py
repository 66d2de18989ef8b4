"""How are numbers set in columns?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paceline.reports.elements import Content, Element, element


def table(header: Sequence[str], rows: Iterable[Sequence[Content]], *, texts: Iterable[int] = (0,)) -> Element:
    """A table in a box that scrolls, with the mouse or the keyboard. Each row begins with its name.

    Args:
        texts: which columns are words, set to the left; the rest are numbers, set to the right.
    """
    words = frozenset(texts)
    styles = [None if place in words else "number" for place in range(len(header))]
    heads = [element("th", name, scope="col", class_=style) for name, style in zip(header, styles, strict=True)]
    body = [element("tr", list(_cells(row, styles))) for row in rows]
    whole = element("table", element("thead", element("tr", heads)), element("tbody", body))
    name = ", ".join(filter(None, header))
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=name)


def _cells(row: Sequence[Content], styles: Sequence[str | None]) -> Iterable[Element]:
    for place, (cell, style) in enumerate(zip(row, styles, strict=True)):
        yield element("td", cell, class_=style) if place else element("th", cell, scope="row", class_=style)
