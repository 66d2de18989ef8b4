import msgspec
import pytest

from paceline.loadtest.reporting import table
from paceline.loadtest.reporting.gate import compare, parse
from paceline.loadtest.reporting.markdown import summary
from paceline.loadtest.result import Capacity
from support.results import SLO, result, step_result

TEST = result([step_result(1), step_result(8, failing=0.02, cpu=0.95)])


def cells(text):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ]


def test_every_step_has_a_row_as_wide_as_the_heading():
    heading, *rows = cells(summary(TEST))
    assert [row[0] for row in rows] == ["1 user", "8 users"]
    assert {len(row) for row in rows} == {len(heading)}
    assert heading == table.columns(TEST)
    assert "goodput" not in heading
    assert rows[1][heading.index("failed")] != "0"


def test_columns_are_there_when_a_step_knows_them():
    bare = result([step_result(8, timings=False)])
    assert not {"queue p50", "infer p50", "batch", "rows", "SLO"} & set(table.columns(bare))
    full = result([step_result(8, slo=SLO)], slo=SLO, rows=4)
    assert {"queue p50", "infer p50", "batch", "rows", "SLO", "goodput"} <= set(table.columns(full))
    for each in (bare, full):
        assert all(len(row) == len(table.columns(each)) for row in table.rows(each))


def test_what_was_found_stands_first():
    capacity = Capacity(rate=940.0, missed_at=980.0, why="p99 was 48 ms at 940/s", goodput=935.0)
    found = result([step_result(940.0, slo=SLO)], slo=SLO, capacity=capacity)
    assert "**capacity: 940/s with p99 at most 50\u00a0ms, goodput 935/s (p99 was 48 ms at 940/s)**" in summary(found)
    least = msgspec.structs.replace(found, capacity=msgspec.structs.replace(capacity, lower_bound=True))
    assert "capacity: at least 940/s" in summary(least)
    none = msgspec.structs.replace(found, capacity=Capacity(rate=0.0, missed_at=1.0, why="p99 was 70 ms at 1/s"))
    assert "capacity: no rate kept p99 at most 50\u00a0ms (p99 was 70 ms at 1/s)" in summary(none)


def test_an_slo_is_met_by_some_steps():
    found = result([step_result(8, slo=SLO), step_result(16, slo=SLO, failing=0.5)], slo=SLO)
    assert table.headline(found) == ["p99 at most 50\u00a0ms: met by 8 users"]
    missed = result([step_result(16, slo=SLO, failing=0.5)], slo=SLO)
    assert table.headline(missed) == ["p99 at most 50\u00a0ms: not met by any step"]


def test_gates_and_warnings_are_listed():
    gates = compare(TEST, None, [parse("p50>1h"), parse("errors>1%")])
    text = summary(msgspec.structs.replace(TEST, gates=gates, warnings=["client and server share one core"]))
    assert "**gates: 1 of 4 failed**" in text
    assert "- passed: p50\\>1h, 1 user: " in text
    assert "- **failed**: errors\\>1%, 8 users: " in text
    assert "> Warning: client and server share one core" in text
    assert "> Warning: 8 users: the client took 95% of the one core that it can use" in text


def test_text_from_outside_cannot_break_the_page():
    text = summary(
        msgspec.structs.replace(TEST, model="a|b\n# <img src=x>", warnings=["`x`\n| y |"], command="bench `x` |\n\ny")
    )
    assert "### Load test of a\\|b \\# \\<img src=x\\>" in text
    assert "> Warning: \\`x\\` \\| y \\|" in text
    assert "`` bench `x` | y ``" in text
    assert len({len(row) for row in cells(text)}) == 1


@pytest.mark.parametrize("steps", [[], [step_result(8, failing=1.0)]], ids=["no step", "no answer"])
def test_there_may_be_little_to_say(steps):
    text = summary(result(steps))
    assert text.startswith("### Load test of digits\n")
    assert text.endswith("</sub>\n")
    assert ("No step was finished." in text) is not bool(steps)
