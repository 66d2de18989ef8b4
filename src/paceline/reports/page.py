"""How does a report stand alone? One HTML document with all in it: no script, no network.

Rules:
- The document forbids itself everything but its own style, so that what a server says cannot fetch or run anything.
- It fits a telephone and paper, and follows the reader's light or dark.
- Wide tables scroll in a box of their own; the page never scrolls sideways.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final, Literal

from paceline.reports import theme
from paceline.reports.elements import Content, Element, as_html, element

Tone = Literal["good", "warn", "bad"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SIGNS: Final = {"good": "\u2713", "warn": "!", "bad": "\u2717"}


def document(title: str, *content: Content | Iterable[Content], subtitle: str = "", footer: str = "") -> str:
    """A page.

    Args:
        content: what `section`, `cards`, `callout` and the others here make.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", f"\n{theme.variables()}\n{theme.style('page.css')}\n{theme.style('chart.css')}\n"),
    )
    top = element("header", element("h1", title), element("p", subtitle, class_="subtitle") if subtitle else None)
    end = element("footer", footer) if footer else None
    return as_html(element("html", head, element("body", element("main", top, *content, end)), lang="en"))


def section(title: str, *content: Content | Iterable[Content]) -> Element:
    """A part with a heading."""
    return element("section", element("h2", title), *content)


def cards(*figures: Element | None) -> Element:
    """Cards in two columns where there is room: the figures of charts, and what `card` makes."""
    return element("div", [each for each in figures if each is not None], class_="cards")


def card(title: str, *content: Content | Iterable[Content]) -> Element:
    """What stands beside charts, and is none."""
    return element("div", element("h3", title), *content, class_="card")


def callout(tone: Tone, title: str, *content: Content | Iterable[Content]) -> Element:
    """What must not be missed: a verdict, a warning. A sign and words say what the color does."""
    words = element("div", element("strong", title), *content)
    return element(
        "div", element("span", _SIGNS[tone], class_="sign", aria_hidden="true"), words, class_=f"callout {tone}"
    )


def facts(items: Iterable[tuple[str, str, str]]) -> Element:
    """The numbers to see first: (what, number, in which load)."""
    tiles = [
        element("div", element("dt", what), element("dd", value), element("dd", note, class_="note"))
        for what, value, note in items
    ]
    return element("dl", tiles, class_="facts")


def pairs(items: Iterable[tuple[str, str]]) -> Element:
    """Names and what they stand for, one below another."""
    return element(
        "dl", [each for name, value in items for each in (element("dt", name), element("dd", value))], class_="pairs"
    )


def details(summary: Content, *content: Content | Iterable[Content], is_open: bool = False, note: str = "") -> Element:
    """What can be unfolded."""
    head = element("summary", element("span", summary), element("span", note, class_="note") if note else None)
    return element("details", head, *content, class_="fold", open=is_open)


def code(text: str) -> Element:
    """A command line."""
    return element("pre", element("code", text), tabindex=0)


def download(label: str, name: str, content: bytes, media_type: str) -> Element:
    """A link that saves this content, which the page itself holds."""
    data = base64.b64encode(content).decode()
    return element("a", label, download=name, href=f"data:{media_type};base64,{data}", class_="download")
