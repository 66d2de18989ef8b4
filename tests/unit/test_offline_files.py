"""What `paceline batch` reads and writes: formats, blocks, columns, and the line that tells of progress."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import ConfigError, InvalidRequest
from paceline.offline import csv_records
from paceline.offline import rows as rows_module
from paceline.offline.lines import CsvLines, JsonLines, Scored
from paceline.offline.output import Checkpoint, Output
from paceline.offline.progress import ProgressBar, clock, grouped
from paceline.offline.rows import Identity, Row, Rows, format_of


def read(path: Path, form: Any, *, skip: int = 0, wants_lists: bool = False) -> list[Row]:
    rows = Rows(str(path), form, lambda _: wants_lists)
    try:
        return [row for block in rows.blocks(skip) for row in block]
    finally:
        rows.close()


def items(path: Path, form: Any, **options: Any) -> list[Any]:
    return [json.loads(row.text) for row in read(path, form, **options)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 7)


# -- rows -----------------------------------------------------------------------------------------------------


def test_lines_of_any_length_pass_through_blocks_of_any_size(tmp_path, small_blocks):
    values = ["", "a", "b" * 100, {"c": "é" * 10}, 5]
    path = tmp_path / "rows"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(value, ensure_ascii=False) for value in values).encode())
    assert items(path, "jsonl") == values
    assert [row.number for row in read(path, "jsonl", skip=3)] == [4, 5]
    assert read(path, "jsonl", skip=9) == []


def test_empty_lines_are_no_rows(tmp_path):
    (tmp_path / "rows").write_text("\n1\n   \n2\n\n")
    assert [(row.number, row.text) for row in read(tmp_path / "rows", "jsonl")] == [(1, b"1"), (2, b"2")]


def test_fields_are_numbers_only_where_json_says_so(tmp_path):
    (tmp_path / "rows").write_text("a,b,c,d,e,f,g\n1,-2.50,1e3,007,,NaN,0x1\n12345678901234567890,.5,1.,+1, 1,true,-\n")
    assert [row.text for row in read(tmp_path / "rows", "csv")] == [
        b'{"a":1,"b":-2.50,"c":1e3,"d":"007","e":null,"f":"NaN","g":"0x1"}',
        b'{"a":12345678901234567890,"b":".5","c":"1.","d":"+1","e":" 1","f":"true","g":"-"}',
    ]
    assert items(tmp_path / "rows", "csv", wants_lists=True)[0] == [1, -2.5, 1000.0, "007", None, "NaN", "0x1"]


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=2, max_size=2)))
def test_csv_that_the_standard_library_writes_is_read_as_it_was(tmp_path_factory, table: list[list[str]]):
    path = tmp_path_factory.mktemp("csv") / "rows"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["a", "b"], *table])
    path.write_bytes(text.getvalue().encode())
    number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
    expected = [
        {name: (json.loads(f) if number.fullmatch(f) else f) if f else None for name, f in zip("ab", row, strict=True)}
        for row in table
    ]
    assert items(path, "csv") == expected


def test_a_field_in_quotes_may_hold_ends_of_lines(tmp_path, small_blocks):
    (tmp_path / "rows").write_text('a,b\n"one\n\ntwo",1\n"say ""hi""\n",2\n')
    assert items(tmp_path / "rows", "csv") == [{"a": "one\n\ntwo", "b": 1}, {"a": 'say "hi"\n', "b": 2}]


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        ("csv", b'a\n1\n"2\n3\n', "line 3: a quote is opened and never closed"),
        ("csv", b"a,b,a\n1,2,3\n", "the column 'a' is there twice"),
        ("csv", b"a\n\xff\n", "line 2: not UTF-8"),
        ("json", b'{"a": 1}', "expected a list in JSON"),
        ("json", b"[1, 2", "expected a list in JSON"),
        ("jsonl", b"x" * 100, "a line is larger than"),
        ("csv", b'a\n"' + b"x\n" * 100, "line 2: a record is larger than"),
        ("csv", b"a\r1\r2\r", "line 1: new-line character"),
        ("csv", b"a;b\n1;2\n", "separated by commas"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, form, data, message):
    for module in (rows_module, csv_records):
        monkeypatch.setattr(module, "MOST_RECORD_BYTES", 50)
    (tmp_path / "rows").write_bytes(data)
    with pytest.raises(InvalidRequest, match=message):
        read(tmp_path / "rows", form)


def test_a_quote_within_a_field_is_a_character_like_any_other(tmp_path, small_blocks):
    (tmp_path / "rows").write_text('a,b\n1,5" pipe\n"2 ""x"" y",3\n')
    assert items(tmp_path / "rows", "csv") == [{"a": 1, "b": '5" pipe'}, {"a": '2 "x" y', "b": 3}]


def test_blank_lines_are_no_records_not_even_before_the_header(tmp_path, small_blocks):
    (tmp_path / "rows").write_bytes(b"\xef\xbb\xbf\r\n\na,b\r\n\r\n1,2\r\n\n3,4")
    assert items(tmp_path / "rows", "csv") == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_a_record_that_cannot_be_read_is_a_row_that_fails(tmp_path, small_blocks):
    (tmp_path / "rows").write_bytes(b"a,b\n1,x\ry\n3\n5,6\n")
    rows = read(tmp_path / "rows", "csv")
    assert [row.problem for row in rows] == [
        "line 2: new-line character seen in unquoted field",
        "expected 2 fields, got 1",
        "",
    ]
    assert [row.number for row in rows] == [1, 2, 3]


def test_what_came_before_a_quote_that_is_never_closed_is_read(tmp_path):
    (tmp_path / "rows").write_text('a\n1\n2\n"3\n4\n')
    rows = Rows(str(tmp_path / "rows"), "csv")
    seen: list[bytes] = []
    with pytest.raises(InvalidRequest, match="line 4: a quote"):
        seen.extend(row.text for block in rows.blocks() for row in block)
    rows.close()
    assert seen == [b'{"a":1}', b'{"a":2}']


@pytest.mark.slow
def test_a_file_may_have_a_million_columns(tmp_path):
    count = 1_000_000
    names = ",".join(f"c{index}" for index in range(count))
    (tmp_path / "rows").write_text(names + "\n" + ",".join("1" for _ in range(count)) + "\n")
    (row,) = items(tmp_path / "rows", "csv")
    assert len(row) == count
    (tmp_path / "rows").write_text(names + ",c7\n")
    with pytest.raises(InvalidRequest, match="the column 'c7' is there twice"):
        Rows(str(tmp_path / "rows"), "csv")


def test_the_name_of_a_file_says_its_format():
    names = ["a.jsonl", "a.ndjson", "a.JSON", "a.csv", "a", "-"]
    assert [format_of(name) for name in names] == ["jsonl", "jsonl", "json", "csv", "jsonl", "jsonl"]


# -- lines ----------------------------------------------------------------------------------------------------


def good(text: str) -> Scored:
    return Scored(1, text.encode())


def bad(message: str) -> Scored:
    return Scored(1, json.dumps({"error": message, "code": "x"}).encode(), failed=True)


def test_a_document_stays_on_its_line():
    assert JsonLines().write([good('{\n "a": "b\\n"\n}'), good("2")]) == b'{  "a": "b\\n" }\n2\n'


def test_the_first_prediction_names_the_columns_also_of_what_failed_before():
    lines = CsvLines()
    assert lines.write([bad("early")]) == b""
    assert len(lines.held) == 1
    written = lines.write([good('{"a": 1, "b": [1, {"c": null}]}'), good('{"b": true}'), good('{"a": "x,y"}')])
    assert list(csv.reader(io.StringIO(written.decode()))) == [
        ["a", "b", "error"],
        ["", "", "early"],
        ["1", '[1,{"c":null}]', ""],
        ["", "true", ""],
        ["x,y", "", ""],
    ]
    assert not lines.held


def test_what_is_no_object_has_one_column():
    lines = CsvLines()
    assert lines.write([good("3"), good('"x"')]) == b"prediction,error\n3,\nx,\n"


def test_a_key_that_is_no_column_is_the_rows_error():
    lines = CsvLines(["a", "error"])
    row = good('{"a": 1, "z": 2}')
    assert lines.write([row]).decode() == ",\"the prediction has 'z', which the first one had not: it had a\"\n"
    assert row.failed


def test_rows_that_were_written_in_part_are_in_no_checkpoint(tmp_path: Path):
    new = Checkpoint(format="jsonl", input=Identity(1, ""), model="")
    output = Output(str(tmp_path / "out"), "jsonl", new)
    rows = [Scored(number, b'"%05d"' % number) for number in range(1, 10_001)]
    output.write(rows[:1000])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as on a full disk, the last write is cut off
    try:
        with pytest.raises(ConfigError, match="out: file too large"):
            output.write(rows[1000:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    output.checkpoint()
    output.close()

    output = Output(str(tmp_path / "out"), "jsonl", new, resume=True)
    output.write(rows[output.rows :])
    output.finish()
    assert (tmp_path / "out").read_bytes() == JsonLines().write(rows)


def test_errors_alone_are_written_in_the_end():
    lines = CsvLines()
    lines.write([bad("one"), bad("two")])
    assert lines.end() == b"prediction,error\n,one\n,two\n"
    assert CsvLines().end() == b""


# -- progress -------------------------------------------------------------------------------------------------


def test_numbers_and_times_are_for_people():
    assert [grouped(number) for number in (0, 999, 1000, 1234567)] == ["0", "999", "1 000", "1 234 567"]
    assert [clock(seconds) for seconds in (0.4, 7, 61, 3723)] == ["0:00", "0:07", "1:01", "1:02:03"]


class _Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    monkeypatch.setattr("paceline.offline.progress.time", time := _Clock())
    return time


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch, virtual):
    monkeypatch.setattr("sys.stderr", stream := _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    bar = ProgressBar()
    virtual.now = 10.0
    bar.update(5000, 2, 0.25)
    bar.update(5001, 2, 0.25)  # too soon for another
    assert stream.getvalue() == "\r[######..................] 5 000 rows, 500/s, 2 failed, 25%, 0:30 left\x1b[K"
    bar.say("worker 7 died")
    assert stream.getvalue().endswith("\r\x1b[Kpaceline: worker 7 died\n")


def test_a_narrow_terminal_gets_no_bar(monkeypatch, virtual):
    monkeypatch.setattr("sys.stderr", stream := _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    bar = ProgressBar()
    virtual.now = 1.0
    bar.update(5000, 0, 0.25)
    assert stream.getvalue() == "\r5 000 rows, 5 000/s\x1b[K"


def test_a_log_gets_a_line_now_and_then(monkeypatch, virtual):
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    bar = ProgressBar(rows=100)
    for second in range(1, 26):
        virtual.now = float(second)
        bar.update(100 + second * 10, 0, None)
    assert stream.getvalue() == "paceline: 200 rows, 10/s\npaceline: 300 rows, 10/s\n"
