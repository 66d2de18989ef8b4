"""`paceline doctor`: is this machine ready for inference, and what would make it readier?"""

from __future__ import annotations

import sys

import click

from paceline.cli.documents import json_flag, print_document
from paceline.cli.main import EXIT_FAILURE, debug_flag


@click.command("doctor")
@click.option("--measure", is_flag=True, help="Measure memory and matrix products, too: about two seconds.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there are problems.")
@json_flag
@debug_flag
@click.pass_context
def command(ctx: click.Context, /, measure: bool, strict: bool, as_json: bool) -> None:
    """Examine this machine for inference, and say what to change.

    Cores by quota and affinity, instruction sets, memory, huge pages, allocator, throttling, variables that make
    libraries compute with other threads than they should, limits, and what is installed. Nothing is changed. In a
    container, it says what holds there: run it where the server will run.

    Exit codes: 0, it was examined; 1, with --strict, there are problems; 2, the command line is wrong.
    """
    from paceline.doctor.examination import examination, examine
    from paceline.doctor.finding import Group
    from paceline.doctor.host import Host
    from paceline.doctor.software import Software

    host = Host()
    found = examine(host, Software.here())
    if measure:
        from paceline.doctor.measuring import measure as measured

        click.echo("paceline: measuring for about two seconds", err=True)
        found = examination(host, [*found.groups, Group(title="Measured", findings=list(measured(host)))])
    if as_json:
        print_document(found)
    else:
        from rich.console import Console

        from paceline.doctor.terminal import show

        show(found, Console(file=sys.stdout, highlight=False))
    ctx.exit(EXIT_FAILURE if strict and found.problems else 0)
