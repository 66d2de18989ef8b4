"""One run of `paceline batch`: input, model, output, and what the operator is told.

Rules:
- What is wrong with input or output shows before the model is loaded.
- However it ends, what has been written can be gone on with, where that is possible at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from paceline.config.settings import ServeSettings
from paceline.core.errors import ConfigError, PacelineError
from paceline.offline.lines import Scored
from paceline.offline.output import Checkpoint, Output
from paceline.offline.progress import ProgressBar, clock, grouped, rows_of
from paceline.offline.rows import Format, Rows
from paceline.offline.scoring import Scorer, open_model
from paceline.workers.service import Source

_BLOCK_BYTES: Final = 1 << 20
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Wanted:
    """What the command line says.

    Attributes:
        source, target: paths; `-` is stdin, and stdout.
    """

    model: Path
    source: str
    source_format: Format
    target: str
    target_format: Format
    resume: bool = False
    fail_fast: bool = False


@dataclass(frozen=True)
class Summary:
    """How it went.

    Attributes:
        rows: that the output has; of which `failed` hold an error, and `resumed` were there before.
        seconds: since the model was ready.
        stopped_by: the signal that ended it.
        failed_fast: the row that ended it.
        reader_left: nobody reads the standard output any more.
    """

    output: str
    rows: int
    failed: int
    resumed: int
    seconds: float
    stopped_by: signal.Signals | None = None
    failed_fast: int | None = None
    reader_left: bool = False

    @property
    def complete(self) -> bool:
        """True when every row of the input is in the output."""
        return self.stopped_by is None and self.failed_fast is None and not self.reader_left

    @property
    def rows_per_s(self) -> float:
        """Of those that were scored now."""
        return (self.rows - self.resumed) / max(self.seconds, 1e-9)


class _Stop(Exception):
    """A row has failed, and that was to be the end."""


class Job:
    """One run."""

    def __init__(self, wanted: Wanted, settings: ServeSettings) -> None:
        self._wanted = wanted
        self._settings = settings
        self._rows = Rows(wanted.source, wanted.source_format)
        self._output = self._opened()
        self._bar = ProgressBar(self._output.rows)
        self._scoring: asyncio.Task[None] | None = None
        self._stopped_by: signal.Signals | None = None
        self._failed_fast: int | None = None
        self._reader_left = False
        self._said_why = False
        self._began = time.monotonic()

    def run(self) -> Summary:
        """Score what is left to score.

        Raises:
            PacelineError: the model cannot be loaded, or the rest cannot be read, scored or written.
        """
        output = self._output
        try:
            if not output.complete:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(self._run())
        finally:
            self._bar.clear()
            output.close()
            self._rows.close()
        seconds = time.monotonic() - self._began
        ends = (self._stopped_by, self._failed_fast, self._reader_left)
        summary = Summary(output.path, output.rows, output.failed, output.resumed, seconds, *ends)
        self._tell(summary)
        return summary

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._interrupt, each)
        scorer = await open_model(self._wanted.model, self._settings, self._bar.say, self._row_failed)
        self._bar.say(f"{self._wanted.model}: {scorer.says}")
        if self._output.note:
            self._bar.say(self._output.note)
        self._rows.wants_lists = scorer.wants_list
        self._began = time.monotonic()
        self._scoring = loop.create_task(self._score(scorer))
        try:
            await asyncio.wait([self._scoring])
            if not self._scoring.cancelled():
                self._scoring.result()
        finally:
            scorer.close()

    async def _score(self, scorer: Scorer) -> None:
        try:
            await scorer.run(self._rows.blocks(self._output.rows), self._take)
        except BrokenPipeError:
            self._reader_left = True
        except (_Stop, asyncio.CancelledError):
            self._output.checkpoint()
        except PacelineError:
            with suppress(ConfigError):  # it cannot be written: that is the very error
                self._output.checkpoint()
            self._bar.say(self._what_is_left())
            raise
        else:
            self._output.finish()

    # -- what happens ------------------------------------------------------------------------------------------

    def _take(self, scored: list[Scored]) -> None:
        if self._wanted.fail_fast:
            good = next((place for place, each in enumerate(scored) if each.failed), None)
            if good is not None:
                self._output.write(scored[:good])
                self._failed_fast = scored[good].number
                raise _Stop
        self._output.write(scored)
        size_bytes = self._rows.size_bytes
        fraction = min(1.0, self._rows.read_bytes / size_bytes) if size_bytes else None
        self._bar.update(self._output.rows, self._output.failed, fraction)

    def _row_failed(self, number: int, why: str) -> None:
        """Say why the first one has: often they all fail alike, and the file may be opened hours later."""
        if not self._said_why:
            self._said_why = True
            self._bar.say(f"row {number} failed: {why}")

    def _interrupt(self, by: signal.Signals) -> None:
        if self._scoring is None or self._stopped_by is not None:
            # Nothing is lost: there is no row yet, or the checkpoint before stands.
            self._bar.clear()
            self._output.close()
            os._exit(128 + by)
        self._stopped_by = by
        self._scoring.cancel()

    # -- what is said ------------------------------------------------------------------------------------------

    def _tell(self, summary: Summary) -> None:
        if self._output.complete:
            self._bar.say(f"{summary.output} is complete already")
        elif not summary.complete:
            what = f"row {summary.failed_fast} failed" if summary.failed_fast is not None else "interrupted"
            self._bar.say(f"{what}: {self._what_is_left()}")
        else:
            failed = f", {grouped(summary.failed)} of them failed" if summary.failed else ""
            rate = f"{grouped(round(summary.rows_per_s))} rows/s"
            took = f"{clock(summary.seconds)} ({rate})" if summary.seconds >= 1 else rate
            self._bar.say(f"{rows_of(summary.rows)}{failed}, {took}: {summary.output}")

    def _what_is_left(self) -> str:
        output = self._output
        if not output.resumable:
            return f"{rows_of(output.rows)} written" if output.rows else "no row was written"
        if not output.kept:
            return "no row was kept"
        return f"{rows_of(output.kept)} kept in {output.path}.part; --resume goes on after the last"

    def _opened(self) -> Output:
        wanted = self._wanted
        if os.path.exists(wanted.target) and self._rows.is_file(wanted.target):
            raise ConfigError(f"{wanted.target}: is the input, too: it would be replaced by its predictions")
        identity = self._rows.identity()
        new = None
        if identity is not None:
            new = Checkpoint(
                format=wanted.target_format, input=identity, model=_digest(Source.parse(wanted.model).path)
            )
        try:
            output = Output(wanted.target, wanted.target_format, new, resume=wanted.resume)
            if output.complete and self._rows.changed_s > os.stat(wanted.target).st_mtime:
                text = f"{wanted.target}: it is complete, but {wanted.source} has changed since"
                raise ConfigError(text, hint="without --resume it is made anew")
        except BaseException:
            self._rows.close()
            raise
        return output


def _digest(path: Path) -> str:
    """Of a file; empty when it cannot be read, of which the runtime will say more."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
