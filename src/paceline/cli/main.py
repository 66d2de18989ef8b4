"""The `paceline` command: which verbs are there, and how does a failure end?

A verb's module is imported when the verb runs, so that `paceline --help` answers at once; what does its work, when the
command line is known to be right: a typo need not wait for the machinery to load.
stdout carries the command's result and nothing else; errors and hints go to stderr.
"""

import importlib
import traceback
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import click

from paceline import __version__
from paceline.core.errors import (
    AddressUnavailable,
    ConfigError,
    ModelLoadError,
    PacelineError,
    RuntimeUnavailable,
    StepFailed,
    Unreachable,
    UnsafeModel,
)

EXIT_FAILURE = 1
EXIT_BY_ERROR: Mapping[type[PacelineError], int] = {
    Unreachable: 5,  # also a ConfigError: the first that fits counts
    ConfigError: 3,
    RuntimeUnavailable: 4,
    UnsafeModel: 6,  # also a ModelLoadError
    ModelLoadError: 4,
    StepFailed: 4,
    AddressUnavailable: 5,
}

# A key of Context.meta, which a command shares with its group: the group reports errors, the command
# knows whether to show tracebacks.
DEBUG = "paceline.debug"


def _debug(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.meta[DEBUG] = wanted


debug_flag = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_debug, help="Show a traceback with each error."
)


class Verb(NamedTuple):
    """Where a command's code is, and its line in `paceline --help`."""

    module: str
    summary: str


VERBS: Mapping[str, Verb] = {
    "serve": Verb("paceline.cli.serve", "Serve models over HTTP and gRPC."),
    "bench": Verb("paceline.cli.bench", "Measure how fast a server answers, and how much it can take."),
    "batch": Verb("paceline.cli.batch", "Score a file with the same code."),
    "run": Verb("paceline.cli.run", "Run Studio modules over a table, without a server."),
    "optimize": Verb("paceline.cli.optimize", "Find the fastest form of a model that is still as good."),
    "inspect": Verb("paceline.cli.inspect", "Say what is in a model file, and whether it is safe to load."),
    "doctor": Verb("paceline.cli.doctor", "Say what about this machine helps inference, and what is in its way."),
    "restart": Verb("paceline.cli.restart", "Replace the processes of a running server, losing no request."),
    "setup": Verb("paceline.cli.setup", "Install what a service asks for, before it is served."),
    "config": Verb("paceline.cli.config", "Show the settings and where each comes from."),
}


class Failure(click.ClickException):
    """Ends the process with the error's message, its hint, and the exit code of its kind."""

    def __init__(self, error: PacelineError) -> None:
        super().__init__(error.message)
        self.hint = error.hint
        codes = (code for kind, code in EXIT_BY_ERROR.items() if isinstance(error, kind))
        self.exit_code = next(codes, EXIT_FAILURE)  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.message}", file=file, err=file is None)
        if self.hint:
            click.echo(f"hint: {self.hint}", file=file, err=file is None)


class Verbs(click.Group):
    """A group that knows its verbs' names and summaries, and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name].module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PacelineError as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            raise Failure(error) from error


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="paceline", message="%(prog)s %(version)s")
def main() -> None:
    """Give it a model: it serves it over HTTP and gRPC with the lowest response time."""
