"""`paceline run PIPELINE --input TABLE --output TABLE`: run the modules once, without a server."""

import json
from pathlib import Path
from typing import Any

import click

from paceline.cli.main import debug_flag

_PIPE = "-"
_INTERRUPTED = 130


@click.command("run")
@click.argument("pipeline", type=click.Path(path_type=Path), metavar="PIPELINE")
@click.option("--input", "input_1", metavar="FILE", help="First table: CSV or Parquet, as it is called; - is stdin.")
@click.option("--input2", "input_2", metavar="FILE", help="Second table.")
@click.option("--output", "target", default=_PIPE, metavar="FILE", help="Table that comes out.  [default: -, stdout]")
@click.option("--parameter", "given", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Seconds for a module to initialise, and again to run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a summary as one JSON document.")
@debug_flag
@click.pass_context
def command(
    ctx: click.Context,
    /,
    pipeline: Path,
    input_1: str | None,
    input_2: str | None,
    target: str,
    given: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
) -> None:
    """Run PIPELINE once: a pipeline.toml, or a single Studio module such as clean.py or model.R.

    Each module gets a clean interpreter, and is initialised in it. Nothing is kept, and nothing is shared: what comes
    out depends on the table alone. `paceline serve` keeps the interpreters, and gives the same tables.

    Exit codes: 0, the output is written; 2, the command line, 3, the pipeline's file or a table, or 4, a module is
    wrong; 1, a module failed; 130, interrupted by Ctrl-C.
    """
    if as_json and target == _PIPE:
        raise click.UsageError("--json and --output - both write to stdout: name a file with --output", ctx)
    if input_1 == _PIPE == input_2:
        raise click.UsageError("--input - and --input2 -: stdin holds one table", ctx)
    parameters = dict(_parameter(ctx, each) for each in given)
    from paceline.config.machine import usable_cores
    from paceline.offline import table_files
    from paceline.offline.modules import Modules, Ran

    table_files.check_target(target, "--output")
    modules = Modules(pipeline, usable_cores().whole, timeout_s)
    given_tables = {"--input": input_1, "--input2": input_2}
    inputs = [None if path is None else table_files.read(path, flag) for flag, path in given_tables.items()]
    ran: list[Ran] = []

    def done(each: Ran) -> None:
        ran.append(each)
        said = f"{each.name}: {each.rows} rows in {each.run_s:.2f} s, after {each.setup_s:.2f} s to initialise"
        click.echo(f"paceline: {said}", err=True)

    try:
        tables = modules.run(inputs, parameters, done)
    except KeyboardInterrupt:
        click.echo("paceline: interrupted: nothing is written", err=True)
        ctx.exit(_INTERRUPTED)
    if not tables:
        raise click.ClickException("the last module gave no table")
    if len(tables) > 1:
        click.echo(f"paceline: {len(tables)} tables came out; the first is written", err=True)
    table_files.write(tables[0], target, "--output")
    if as_json:
        click.echo(json.dumps(_document(target, tables[0], ran)))


def _parameter(ctx: click.Context, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--parameter: expected NAME=VALUE, got {text!r}", ctx)
    return name, value


def _document(target: str, table: Any, ran: list[Any]) -> dict[str, Any]:
    return {
        "output": target,
        "rows": len(table.rows),
        "columns": table.columns,
        "modules": [
            {"name": each.name, "rows": each.rows, "setup_s": round(each.setup_s, 3), "run_s": round(each.run_s, 3)}
            for each in ran
        ],
    }
