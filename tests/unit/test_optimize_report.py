"""The report of a study, in a page, on a terminal and in a comment."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from paceline.optimize.reporting import figures, html, markdown, terminal, words
from paceline.optimize.result import Study
from support import studies

KINDS = [studies.study, studies.priced, studies.helpless, studies.alone, lambda: studies.study("log_loss")]


class Page(HTMLParser):
    """What a reader reads, and the tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags = [""]
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags[-1] != "style":
            self.words += data + "\n"


def shown(study: Study) -> str:
    return terminal.summary(study, Path("digits-optimized"))


@pytest.mark.parametrize("made", KINDS)
def test_every_report_tells_every_candidate_and_why(made):
    study = made()
    for text in (Page(html.page(study)).words, shown(study), markdown.summary(study).replace("\\", "")):
        for each in study.candidates:
            assert each.candidate.name in text
            for reason in each.reasons:
                assert each.status == "baseline" or reason in text
        assert words.headline(study) in text


@pytest.mark.parametrize("made", KINDS)
def test_a_page_needs_no_network_and_no_script(made):
    page = html.page(made())
    assert "script" not in Page(page).tags
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "nan" not in Page(page).words.split()


def test_what_was_chosen_comes_first():
    study = studies.study()
    assert words.headline(study).startswith("int8-dynamic is 2.61\u00d7 as fast as the original, at 1 row")
    judgement = next(each.judgement for each in study.candidates if each.candidate.name == "int8-dynamic")
    assert judgement
    assert judgement.reason in words.sentences(study)
    names = [row[0] for row in words.rows(study)]
    assert names[:3] == ["original", "int8-dynamic \u2605", "openvino"]
    assert shown(study).rstrip().endswith("next: paceline serve digits-optimized")


def test_that_nothing_helped_is_said():
    study = studies.helpless()
    assert "Nothing was faster and as good" in shown(study)
    assert "original \u2605" in shown(study)


def test_the_table_has_what_was_measured():
    study = studies.priced()
    table = dict(zip(words.columns(study), words.rows(study)[1], strict=True))
    assert table["status"] == "accepted"
    assert table["1 row"] == "153\u00a0\u00b5s"
    assert table["speed"] == "2.61\u00d7"
    assert table["size"] == "4.7\u00a0MB"
    assert re.fullmatch(r"[+\u2212][\d.]+ \(\u2212[\d.]+ to \+[\d.]+\) points", table["gain (95 %)"])


def test_the_cost_of_a_million_is_of_a_machine_that_is_full():
    study = studies.priced()
    best = words.chosen(study)
    assert best
    speed = best.speeds[0]
    assert words.instances(study, speed) == 2
    assert words.cost(study, best) == pytest.approx(0.17 / 3600 / (speed.rows_per_s * 2) * 1e6)
    assert words.cost(studies.study(), best) is None
    busy = msgspec.structs.replace(speed, threads=2)
    assert words.instances(study, busy) == 1


def test_quality_against_time_has_the_front_and_what_is_allowed():
    study = studies.study()
    chart = figures.quality(study)
    assert chart
    assert [row[:2] for row in chart.table.rows] == [
        ("original", "original"),
        ("int8-dynamic", "accepted"),
        ("openvino", "accepted"),
        ("graph-basic", "not fast enough"),
    ]
    svg = chart.svg()
    assert "allowed" in svg
    assert svg.count('class="leader"') == 1  # the interval of the only one whose answers changed
    assert "int8-dynamic" in svg


def test_a_picture_of_one_thing_is_left_out():
    assert figures.quality(studies.alone()) is None
    assert figures.ratios(studies.alone()) is None
    assert figures.costs(studies.study()) is None
    assert figures.costs(studies.priced())


def test_names_cannot_break_a_report():
    study = studies.study()
    hostile = "<script>alert(1)</script> | `x` *y*\nz"
    bad = msgspec.structs.replace(study, source={"file": hostile, "format": hostile}, warnings=[hostile])
    page = html.page(bad)
    assert "script" not in Page(page).tags
    assert "<script>" not in page
    heading = markdown.summary(bad).splitlines()[0]
    assert heading.startswith("### Optimization of \\<script\\>")
    assert "z" in heading


def test_a_narrow_terminal_gets_what_matters_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    text = re.sub(r"\x1b\[[\d;]*m", "", shown(studies.priced()))
    header = next(line for line in text.splitlines() if line.startswith("candidate"))
    assert len(header.rstrip()) <= 70
    assert {"status", "accuracy", "speed"} <= set(header.split())
    assert "cost" not in header


def test_the_document_is_in_the_page():
    study = studies.study()
    found = re.search(r'href="data:application/json;base64,([^"]+)"', html.page(study))
    assert found
    import base64

    assert msgspec.json.decode(base64.b64decode(found[1]), type=Study) == study
