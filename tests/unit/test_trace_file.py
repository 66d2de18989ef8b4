import numpy as np
import pytest

from paceline.core.errors import ConfigError
from paceline.loadtest import trace_file


def read(tmp_path, text):
    path = tmp_path / "trace"
    path.write_text(text)
    return trace_file.read(path).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "10\n11.5\n12\n",
        "# seconds\n\n10\n11.5\n12",
        "12\n10\n11.5\n",
        "time,status\n10,200\n11.5,503\n12,200\n",
        "status,Timestamp\n200,10\n503,11.5\n200,12\n",
        "\ufefftimestamp\n10\n11.5\n12\n",
        "timestamp_ms\n10000\n11500\n12000\n",
        "at_us\n10000000\n11500000\n12000000\n",
        '{"at": 10}\n{"at": 11.5, "path": "/"}\n{"at": 12}\n',
        '{"time_ns": 10000000000}\n{"time_ns": 11500000000}\n{"time_ns": 12000000000}\n',
        '"10",a\n"11.5","b,c"\n12,d\n',
    ],
    ids=lambda text: text.splitlines()[0],
)
def test_one_arrival_a_line_in_any_of_the_forms(tmp_path, text):
    assert read(tmp_path, text) == [10.0, 11.5, 12.0]


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z\n2026-03-01T12:00:01.500Z\n",
        "2026-03-01T13:00:00+01:00\n2026-03-01T12:00:01.5+00:00\n",
        "2026-03-01 12:00:00\n2026-03-01 12:00:01.5\n",
        '{"time": "2026-03-01T12:00:00Z"}\n{"time": "2026-03-01T12:00:01.5Z"}\n',
    ],
)
def test_times_may_be_written_as_iso_8601(tmp_path, text):
    first, second = read(tmp_path, text)
    assert first == 1772366400.0
    assert second - first == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected two or more arrivals, got 0"),
        ("1\n", "expected two or more arrivals, got 1"),
        ("1\n2\nsoon\n", ":3: expected seconds or an ISO 8601 time, got 'soon'"),
        ("1\nnan\n", ":2: expected seconds"),
        ("1\ninf\n", ":2: expected seconds"),
        ("status,size\n200,1\n", "no column says the time; there are status, size"),
        ("status,time\n200\n", ":2: expected 2 or more columns, got 1"),
        ("1772366400000\n1772366401000\n", "is too large for seconds"),
        ('{"at": 1}\n{"path": "/"}\n', ":2: expected the key 'at', got path"),
        ('{"at": 1}\n{"at": true}\n', ":2: expected seconds"),
        ('{"at": 1}\n[1]\n', ":2: expected an object of JSON"),
        ('{"path": "/"}\n', "no column says the time"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)
    assert str(tmp_path / "trace") in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "trace").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        trace_file.read(tmp_path / "trace")


def test_a_trace_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "MOST_ARRIVALS", 100)
    assert len(read(tmp_path, "\n".join(map(str, range(100))))) == 100
    with pytest.raises(ConfigError, match="more than 100 arrivals"):
        read(tmp_path, "\n".join(map(str, range(101))))


@pytest.mark.slow
def test_a_large_file_keeps_every_arrival(tmp_path):
    instants = np.random.default_rng(0).uniform(0, 1e6, 200_000)
    found = read(tmp_path, "\n".join(map(repr, instants.tolist())))
    assert found == np.sort(instants).tolist()
