"""What is known of candidates from a run before, and what has to be found out again?"""

import json
from pathlib import Path

import pytest

from paceline.core.errors import ConfigError
from paceline.optimize.candidate import Candidate
from paceline.optimize.result import Speed, Status, Tried
from paceline.optimize.studying.records import Records, alone, count_once

INT8 = Candidate(name="int8", title="int8")


def tried(status: Status = "rejected", ratio: float = 2.0, low: float = 1.9) -> Tried:
    speed = Speed(
        batch=1, threads=1, median_s=1.0, p99_s=1.0, rows_per_s=1.0, ratio=ratio, ratio_low=low, ratio_high=9.0, runs=9
    )
    return Tried(candidate=INT8, status=status, reasons=["why"], speeds=[speed])


def test_what_was_kept_is_found(tmp_path: Path):
    Records(tmp_path, {"model": "a"}).keep(tried("accepted"))
    assert Records(tmp_path, {"model": "a"}).find(INT8) == tried("accepted")


def test_another_question_has_another_answer(tmp_path: Path):
    Records(tmp_path, {"model": "a"}).keep(tried())
    assert Records(tmp_path, {"model": "b"}).find(INT8) is None


def test_a_candidate_that_means_something_else_by_the_same_name_is_not_found(tmp_path: Path):
    records = Records(tmp_path, {})
    records.keep(tried())
    assert records.find(Candidate(name="int8", title="int8", threads=2)) is None


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_what_failed_or_was_skipped_is_tried_again(tmp_path: Path, status: Status):
    records = Records(tmp_path, {})
    records.keep(tried(status))
    assert records.find(INT8) is None


def test_what_the_machine_was_too_busy_to_tell_is_tried_again(tmp_path: Path):
    records = Records(tmp_path, {})
    records.keep(tried("rejected", ratio=2.0, low=0.8))
    assert records.find(INT8) is None


def test_a_broken_record_is_none(tmp_path: Path):
    records = Records(tmp_path, {})
    records.keep(tried())
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text()[:100])
    assert records.find(INT8) is None
    file.write_text(json.dumps({"key": 1}))
    assert records.find(INT8) is None


def test_what_was_counted_once_is_not_counted_again_for_the_same_question(tmp_path: Path):
    chance = iter([400, 380, 90])
    counted = [count_once(tmp_path / "kept", {"budget_s": each}, lambda: next(chance)) for each in (60.0, 60.0, 20.0)]
    assert counted == [400, 400, 380]
    (tmp_path / "kept").write_text('{"question"')
    assert count_once(tmp_path / "kept", {"budget_s": 20.0}, lambda: next(chance)) == 90


def test_a_folder_is_for_one_study_at_a_time(tmp_path: Path):
    with (
        alone(tmp_path / "study"),
        pytest.raises(ConfigError, match="another study works there"),
        alone(tmp_path / "study"),
    ):
        raise AssertionError("two at a time")
    with alone(tmp_path / "study"):
        assert (tmp_path / "study").is_dir()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=f"--out: nothing can be written in {tmp_path / 'file'}: not a dir") as caught,
        alone(tmp_path / "file" / "study"),
    ):
        raise AssertionError("there is no such folder")
    assert caught.value.hint == "choose another folder with --out"
