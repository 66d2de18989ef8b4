"""`paceline bench TARGET`: how fast does a server answer, and how much can it take?"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import click

from paceline.cli.bench_flags import Flags, check
from paceline.cli.bench_options import BenchCommand, with_flags
from paceline.cli.main import DEBUG
from paceline.loadtest.requests.address import is_served_here


@click.command("bench", cls=BenchCommand)
@click.argument("target", metavar="TARGET")
@click.argument("serve_flags", metavar="[-- FLAGS OF SERVE]", nargs=-1, type=click.UNPROCESSED)
@with_flags
@click.pass_context
def command(ctx: click.Context, /, target: str, serve_flags: tuple[str, ...], **given: Any) -> None:
    """Load a server, and measure how fast it answers.

    TARGET is the URL of a server that runs: http://HOST:PORT, or one of its routes; grpc://HOST:PORT. What it serves
    is asked, and valid requests are made from that. Or TARGET is what `paceline serve` takes, such as service.py or
    model.onnx: then it is served on a free port, tested, and stopped.

    Without --users, --rate or --find-capacity, 1, 2, 4 ... users send as fast as they are answered, until more of them
    bring no more answers: that takes about a minute.

    The latency counts from the moment when a request should have been sent. Progress goes to stderr, the result to
    stdout. On a terminal, q ends the test, n the step, and + and - change the load. Ctrl-C ends the test and reports
    what was measured; a second one reports nothing.

    Exit codes: 0, it was measured; 1, a rule of --fail-if was broken, no rate keeps the --slo of --find-capacity, or
    nothing was answered; 2, the command line is wrong; 3, what it names is, or the server refuses the requests;
    4, TARGET cannot be loaded; 5, no server is there; 130, 143, interrupted.
    """
    flags = Flags(**given)
    ctx.meta[DEBUG] = flags.debug
    is_ours = is_served_here(target)
    if serve_flags and not is_ours:
        raise click.UsageError("flags behind -- are for a file that is served here: leave them out for a URL.", ctx)
    check(flags)
    from paceline.cli.bench_run import Bench
    from paceline.loadtest.terminal.interrupts import Interrupts

    with Interrupts() as interrupts:
        try:
            bench = Bench(flags, sys.argv[1:], interrupts)
            code = bench.run(bench.serving(target, serve_flags) if is_ours else nullcontext(target))
        except KeyboardInterrupt:
            code = 0
    ctx.exit(interrupts.exit_code or code)
