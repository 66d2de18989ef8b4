"""`paceline inspect MODEL`: what is in a model file, and is it safe to load?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from paceline.cli.documents import json_flag, print_document
from paceline.cli.main import debug_flag

EXIT_UNSAFE: Final = 6


@click.command("inspect")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.option("--strict", is_flag=True, help="Exit with 6 unless everything in it is known to be harmless.")
@json_flag
@debug_flag
@click.pass_context
def command(ctx: click.Context, /, model: Path, strict: bool, as_json: bool) -> None:
    """Say what is in MODEL: format, inputs and outputs, operators, size, and what in it is unsafe.

    MODEL is a model file or folder, a bundle of `paceline optimize`, a folder of models, or code. Nothing of it is
    executed, and no framework is needed: a pickle is read instruction by instruction, and its names are judged.

    Exit codes: 0, it was read; 2, the command line is wrong; 4, it is missing, damaged, or no model; 6, with --strict,
    it is unsafe, or runs code that is not known, or was not read.
    """
    from paceline.inspection.dispatch import inspect

    report = inspect(model)
    if as_json:
        print_document(report)
    else:
        from rich.console import Console

        from paceline.inspection.terminal import show

        show(report, Console(file=sys.stdout, highlight=False, soft_wrap=False))
    ctx.exit(EXIT_UNSAFE if strict and report.safety != "safe" else 0)
