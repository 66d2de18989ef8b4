"""The report of a study, in a page, on a terminal and in a comment."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from paceline.optimize.reporting import figures, html, markdown, terminal, words
from paceline.optimize.result import Equality, Study
from support import studies

KINDS = [
    studies.study,
    studies.priced,
    studies.helpless,
    studies.alone,
    studies.hurried,
    lambda: studies.study("log_loss"),
]


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
        for each in words.ordered(study):
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
    names = [row[0] for row in words.rows(study, words.tried(study))]
    assert names[:3] == ["original", "int8-dynamic \u2605", "openvino"]
    assert shown(study).rstrip().endswith("next: paceline serve digits-optimized")


def test_that_nothing_helped_is_said():
    study = studies.helpless()
    assert "Nothing was faster and as good" in shown(study)
    assert "original \u2605" in shown(study)


def test_what_was_skipped_is_told_once_and_what_there_was_no_time_for_in_one_line():
    study = studies.hurried()
    line = "3 skipped for lack of time: --budget 2m"
    for text in (shown(study), markdown.summary(study).replace("\\", "")):
        assert text.count("int8-mixed") == 1
        assert text.count(line) == 1
        assert "int8-entropy" not in text
    page = Page(html.page(study)).words
    assert page.count(line) == 1
    assert page.count("int8-entropy") == 1


def test_where_there_was_no_time_for_any_candidate_it_is_said_how_much_to_give():
    late = [each for each in studies.hurried().candidates if each.foreseen_s]
    first = studies.candidates()[0]
    study = studies.study(candidates=[first, *late], chosen="original", budget_s=10.0, took_s=11.0)
    assert words.headline(study) == "Nothing was tried: the budget went on the original: --budget 1m"
    assert not any("lack of time" in each for each in words.sentences(study))


def test_where_the_fastest_is_not_chosen_it_is_said_why():
    study = studies.study()
    near = studies.tried("pruned-25", "pruned", "accepted", speeds=studies.speeds(2.7), judgement=studies.judged(0.02))
    with_both = msgspec.structs.replace(study, candidates=[*study.candidates, near])
    told = "pruned-25 is faster by no more than 5 %: int8-dynamic is chosen, which is better"
    assert told in words.sentences(with_both)
    assert told not in words.sentences(study)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"labels_apart": 6, "rows_apart": 6}, "6 differ in a label (numbers by 4.1e-07 at most, "),
        ({"labels_apart": 6, "numbers_apart": 1, "rows_apart": 6, "ties": 6},
         "6 differ in a label and 1 differ in a number by more than 1e-05; 6 of these rows are ties, "),
        ({"rows_apart": 0}, "all within 1e-05 (numbers by 4.1e-07 at most, those over 1 relative to their size)"),
    ],
)  # fmt: skip
def test_the_comparison_says_what_differs(found: dict[str, int], told: str):
    equality = Equality(rows=100, largest_error=0.039, largest_relative=4.1e-7, tolerance=1e-5, **found)
    assert told in words.equality_text(equality)


@pytest.mark.parametrize(
    ("chosen", "leave", "command"),
    [
        ("original", True, "paceline serve 'my model' --allow-pickle"),
        ("original", False, "paceline serve 'my model'"),
        ("int8-dynamic", True, "paceline serve 'my model'"),
    ],
)
def test_what_to_type_next_works(chosen: str, leave: bool, command: str):
    study = studies.study(chosen=chosen, source={"file": "m.pkl", "allow_pickle": leave})
    assert words.next_step(study, Path("my model")) == command


def test_the_table_has_what_was_measured():
    study = studies.priced()
    table = dict(zip(words.columns(study), words.rows(study, words.tried(study))[1], strict=True))
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
