"""`paceline batch MODEL --input ROWS --output PREDICTIONS`: score a file."""

import json
import os
from pathlib import Path
from typing import Any, Final

import click

from paceline.cli.flags import chosen_flags, config_flag
from paceline.cli.main import DEBUG
from paceline.config.resolve import resolve
from paceline.config.toml_file import find_toml

EXIT_ROWS_FAILED: Final = 7
_PIPE: Final = "-"
_SETTINGS: Final = (
    "max_batch_size",
    "instances",
    "threads",
    "examples",
    "fetch_concurrency",
    "run_timeout_ms",
    "setup_timeout_s",
    "allow_pickle",
    "nonfinite",
    "debug",
)


@click.command("batch")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.option(
    "--input", "source", required=True, metavar="FILE", help="Rows: JSON lines, a list in JSON, or CSV; - is stdin."
)
@click.option(
    "--output", "target", required=True, metavar="FILE", help="Predictions in the order of the rows; - is stdout."
)
@click.option("--input-format", type=click.Choice(["jsonl", "json", "csv"]), help="[default: as the file is called]")
@click.option("--output-format", type=click.Choice(["jsonl", "csv"]), help="[default: as the file is called]")
@click.option("--resume", is_flag=True, help="Go on with an output that was interrupted.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first row that fails.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as one JSON document.")
@config_flag
@chosen_flags(*_SETTINGS)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: Path,
    source: str,
    target: str,
    input_format: Any,
    output_format: Any,
    resume: bool,
    fail_fast: bool,
    as_json: bool,
    config_path: Path | None,
    **flags: Any,
) -> None:
    """Score the rows of a file with MODEL: a service, such as service.py, or a model file.

    The same code runs in the same workers as under `paceline serve`, and rows run together. A row that fails has
    an object with "error" in its place, and the others go on.

    Until it is complete the output is called FILE.part. After an interruption, --resume goes on with it.

    Exit codes: 0, every row has a prediction; 7, rows have failed; 130, interrupted by Ctrl-C; 3, the configuration,
    or 4, the model is wrong; 1, anything else.
    """
    ctx.meta[DEBUG] = flags["debug"]
    if as_json and target == _PIPE:
        raise click.UsageError("--json and --output - both write to stdout: leave one of them out", ctx)
    if resume and _PIPE in (source, target):
        raise click.UsageError("--resume needs files: a pipe cannot be read or written twice", ctx)
    settings = resolve(flags, os.environ, find_toml(config_path))
    ctx.meta[DEBUG] = settings.debug
    from paceline.offline.job import Job, Summary, Wanted
    from paceline.offline.rows import format_of

    source_format = input_format or format_of(source)
    target_format: Any = output_format or ("csv" if format_of(target) == "csv" else "jsonl")
    wanted = Wanted(model, source, source_format, target, target_format, resume, fail_fast)
    summary: Summary = Job(wanted, settings).run()
    if as_json:
        click.echo(json.dumps(_document(summary)))
    if summary.stopped_by is not None:
        ctx.exit(128 + summary.stopped_by)
    if summary.reader_left:
        ctx.exit(1)
    ctx.exit(EXIT_ROWS_FAILED if summary.failed or summary.failed_fast else 0)


def _document(summary: Any) -> dict[str, Any]:
    return {
        "output": summary.output,
        "complete": summary.complete,
        "rows": summary.rows,
        "failed": summary.failed,
        "resumed": summary.resumed,
        "seconds": round(summary.seconds, 3),
        "rows_per_s": round(summary.rows_per_s, 1),
    }
