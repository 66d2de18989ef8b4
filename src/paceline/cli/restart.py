"""`paceline restart`: replace the processes of a running server, and lose no request."""

import json

import click

from paceline.supervisor import control


@click.command("restart")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server.  [default: the only one that runs]")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def command(port: int | None, timeout_s: float, as_json: bool) -> None:
    """Replace the processes of a running server, one after the other.

    Each new process loads the code, the configuration and the models as they are now; the old one goes when the new
    one accepts, after it has answered what it began. If a new one does not become ready, the old ones stay.

    The server must have been started with --replicas (1 or more).
    """
    done = control.restart(port, timeout_s, lambda text: click.echo(text, err=True))
    click.echo(json.dumps({"replicas": done["replicas"]}) if as_json else done["text"])
