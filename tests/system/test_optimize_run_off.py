"""A finalist that dies beside the others: it is out, and nothing else of the study is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import joblib
import pytest

from paceline.optimize.judging.gate import parse_drop
from paceline.optimize.result import Study, Tried
from paceline.optimize.studying import study
from paceline.optimize.wanted import Wanted
from support import digits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
pytest.importorskip("skl2onnx", reason="scikit-learn's models become ONNX by skl2onnx")

WAIT_S = 20.0


class Killer:
    """Is told how a study goes, and kills the process of the first finalist that is loaded when the best run."""

    def __init__(self) -> None:
        self.accepted: list[Tried] = []
        self.victim: Tried | None = None
        self.killed = 0
        self._thread: threading.Thread | None = None

    def say(self, text: str) -> None:
        pass

    def begin(self, name: str, done: int, total: int) -> None:
        pass

    def doing(self, text: str) -> None:
        if text.startswith("the best"):
            self._thread = threading.Thread(target=self._kill)
            self._thread.start()

    def done(self, tried: Tried) -> None:
        if tried.status == "accepted":
            self.accepted.append(tried)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _kill(self) -> None:
        """Once it is loaded, and runs."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            for each in self.accepted:
                found = predictors_of(str(each.file))
                if found:
                    self.victim = each
                    time.sleep(2.0)
                    os.kill(found[0], signal.SIGKILL)
                    self.killed += 1
                    return
            time.sleep(0.02)


def predictors_of(model: str) -> list[int]:
    """The processes of this one that run a model."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, stat = (entry / "cmdline").read_text(), (entry / "stat").read_text()
        except OSError:
            continue
        is_child = int(stat.rpartition(")")[2].split()[1]) == os.getpid()
        if is_child and "predictor_child" in command and json.dumps(model) in command:
            found.append(int(entry.name))
    return found


def test_a_finalist_whose_process_dies_costs_itself_alone(tmp_path: Path):
    rows, labels = digits.save_rows(tmp_path)
    joblib.dump(digits.mlp(), tmp_path / "digits.joblib")
    killer = Killer()
    found = study.run(wanted(tmp_path, rows, labels), killer)
    killer.join()
    assert killer.killed == 1
    assert killer.victim is not None
    by_name = {each.candidate.name: each for each in found.candidates}
    dead = by_name[killer.victim.candidate.name]
    assert (dead.status, dead.speeds != []) == ("rejected", True)
    assert "beside the others: its process died" in dead.reasons[0]
    assert_nothing_else_is_lost(found, dead)
    assert (tmp_path / "out" / "bundle.json").exists()


def wanted(folder: Path, rows: Path, labels: Path) -> Wanted:
    """Candidates that are equally fast, but for noise: all of them run once more."""
    return Wanted(
        model=str(folder / "digits.joblib"),
        data=rows,
        labels=str(labels),
        out=folder / "out",
        max_drop=parse_drop("90%"),
        only=("onnx", "pruned-25", "pruned-50"),
        budget_s=120.0,
        threads=1,
        allow_pickle=True,
    )


def assert_nothing_else_is_lost(found: Study, dead: Tried) -> None:
    others = [each for each in found.candidates if each is not dead and each.status != "baseline"]
    assert [each.status for each in others].count("accepted") >= 1
    assert found.chosen in [each.candidate.name for each in others if each.status == "accepted"]
    assert all(each.judgement and each.speeds for each in others)
