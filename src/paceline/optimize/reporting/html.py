"""How is a study told in one page? What was chosen, what it costs in quality, all that was tried, where it comes from.

The page stands alone: see `reports.page`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from paceline.optimize.reporting import figures, words
from paceline.optimize.result import Study, Tried
from paceline.reports import page as pages
from paceline.reports.elements import Content, Element, element
from paceline.reports.tables import table
from paceline.reports.units import MILLISECONDS, PER_SECOND

_TONES: Final = {"accepted": "good-text", "failed": "bad-text"}
_TEXT_COLUMNS: Final = (0, 1)


def page(study: Study) -> str:
    """The report of a study: a whole HTML document, readable without a network, dark and light."""
    source = study.source
    about = (source.get("format"), study.machine.get("processor"), _moment(study.created))
    charts = [
        each
        for each in (figures.quality(study), figures.throughput(study), figures.ratios(study), figures.costs(study))
        if each
    ]
    return pages.document(
        f"Optimization of {source.get('file', 'a model')}",
        list(_verdicts(study)),
        _facts(study),
        pages.section("Speed and quality", pages.cards(*(chart.figure() for chart in charts))) if charts else None,
        _tried(study),
        _equality(study),
        _origin(study),
        subtitle=" \u00b7 ".join(str(each) for each in about if each),
        footer=f"Measured by Paceline {study.paceline}, in runs that alternate with the original's on this machine.",
    )


def _verdicts(study: Study) -> Iterator[Element]:
    best = words.chosen(study)
    helped = best is not None and best.status == "accepted"
    said = [element("p", sentence) for sentence in words.sentences(study)]
    yield pages.callout("good" if helped else "warn", words.headline(study), said)
    for warning in study.warnings:
        yield pages.callout("warn", _capital(warning))


def _facts(study: Study) -> Element | None:
    best, first = words.chosen(study), words.baseline(study)
    speed = words.at(best, study.batch) if best else None
    if best is None or speed is None:
        return None
    old = words.at(first, study.batch) if first else None
    at_batch = f"at {words.rows_text(study.batch)}"
    was = f"was {MILLISECONDS.text(old.median_s * 1e3)}" if old else ""
    facts = [
        ("speed", words.ratio_text(speed.ratio), f"{_range(speed.ratio_low, speed.ratio_high)} {at_batch}"),
        ("median", MILLISECONDS.text(speed.median_s * 1e3), was),
        ("p99", MILLISECONDS.text(speed.p99_s * 1e3), f"was {MILLISECONDS.text(old.p99_s * 1e3)}" if old else ""),
        ("rows", PER_SECOND.text(speed.rows_per_s), f"was {PER_SECOND.text(old.rows_per_s)}" if old else ""),
    ]
    if best.judgement:
        facts.append(
            (
                words.metric_title(study),
                words.QUALITY.text(best.judgement.new),
                f"gain {words.gain_text(best.judgement)}",
            )
        )
    if best.size_bytes is not None:
        before = f"was {words.size_text(first.size_bytes)}" if first and first.size_bytes is not None else ""
        facts.append(("size", words.size_text(best.size_bytes), before))
    if study.price_per_hour is not None:
        before = f"was {words.money(words.cost(study, first))}" if first else ""
        facts.append(("cost per million", words.money(words.cost(study, best)), before))
    return pages.facts(facts)


def _tried(study: Study) -> Element:
    header = words.columns(study)
    rows: list[list[Content]] = []
    shown = words.ordered(study)
    for each, row in zip(shown, words.rows(study, shown), strict=True):
        name = element("span", row[0], class_="strong" if row[0].endswith(words.CHOSEN) else None)
        why = element("div", words.why(each), class_="note")
        rows.append([element("div", name, why, class_="prose"), _status(each), *row[2:]])
    note = (
        "A gain is over the original: negative is worse. What the gate refuses is not timed. Speeds are of runs in "
        "turn; times are the original's, over all of its runs, by the speed."
    )
    late = ", ".join(each.candidate.name for each in words.late(study))
    return pages.section(
        "What was tried",
        element("div", table(header, rows, texts=_TEXT_COLUMNS), class_="whole"),
        element("p", note, class_="note"),
        element("p", f"Skipped for lack of time: {late}.", class_="note") if late else None,
        _methods(study),
    )


def _status(tried: Tried) -> Element:
    return element("span", tried.status, class_=_TONES.get(tried.status))


def _methods(study: Study) -> Element | None:
    """How each was judged, and made."""
    found = [each for each in words.ordered(study) if each.judgement or each.candidate.changes]
    if not found:
        return None
    rows = [[each.candidate.name, each.candidate.title, _steps(each), _judged(each)] for each in found]
    header = ("candidate", "what it is", "steps", "how it was judged")
    return pages.details("How each was made and judged", table(header, rows, texts=range(4)))


def _steps(tried: Tried) -> str:
    steps = [change.call.removeprefix("transforms.") for change in tried.candidate.changes]
    options = tried.candidate.options
    runs = [str(each) for each in (options.runtime, options.precision) if each]
    threads = [f"{tried.speeds[0].threads} threads"] if tried.speeds else []
    return ", ".join([*steps, *runs, *threads]) or "none"


def _judged(tried: Tried) -> str:
    said = tried.judgement
    if said is None:
        return "not judged"
    more = f"; about {said.rows_needed:,} rows would be needed" if said.rows_needed else ""
    return f"{said.method}, on {said.rows:,} rows{more}"


def _equality(study: Study) -> Element | None:
    found = study.equality
    if found is None:
        return None
    known = [
        ("rows", f"{found.rows:,}"),
        ("largest difference", f"{found.largest_error:.3g}"),
        ("of numbers over 1 relative to their size", f"{found.largest_relative:.3g}"),
        ("tolerance", f"{found.tolerance:g}"),
        ("rows apart in a label", f"{found.labels_apart:,}"),
        ("rows apart in a number", f"{found.numbers_apart:,}"),
        ("of them on a threshold", f"{found.ties:,}"),
    ]
    notes = [element("p", note) for note in found.notes]
    return pages.section(
        "Converted, and compared with its library", pages.card("On the rows of this study", pages.pairs(known), notes)
    )


def _origin(study: Study) -> Element:
    parts: list[tuple[str, dict[str, Any]]] = [
        ("Model", study.source),
        ("Data", study.data),
        ("Machine", study.machine),
        ("Versions", dict(study.versions)),
    ]
    cards = [pages.card(title, pages.pairs(_pairs(known))) for title, known in parts if known]
    document = pages.download("The numbers as JSON", "report.json", msgspec.json.encode(study), "application/json")
    return pages.section(
        "Where this comes from", pages.code(shlex.join(study.command)), pages.cards(*cards), element("p", document)
    )


def _pairs(known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in known.items():
        shown = value
        if name.endswith("_bytes") and isinstance(value, int | float):
            name, shown = name.removesuffix("_bytes"), words.size_text(int(value))
        if isinstance(value, dict):
            shown = ", ".join(f"{key}: {each}" for key, each in value.items())
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        yield name.replace("_", " "), str(shown)


def _range(low: float, high: float) -> str:
    return f"{words.ratio_text(low)} to {words.ratio_text(high)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _moment(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return created
