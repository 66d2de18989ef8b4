"""`paceline serve MODEL`: serve a model over HTTP."""

import os
import signal
from pathlib import Path
from typing import Any

import click

from paceline.cli.flags import config_flag, setting_flags
from paceline.cli.main import DEBUG
from paceline.config.resolve import resolve
from paceline.config.toml_file import find_toml


@click.command("serve")
@click.argument("model", type=click.Path(path_type=Path))
@config_flag
@click.option("--json", "as_json", is_flag=True, help="Once ready, write what the panel says as one JSON document.")
@setting_flags
@click.pass_context
def command(ctx: click.Context, /, model: Path, config_path: Path | None, as_json: bool, **flags: Any) -> None:
    """Serve MODEL over HTTP, with settings found by measuring.

    Every flag is also a key of [serve] in paceline.toml and a variable PACELINE_<NAME>;
    a flag wins over a variable, and a variable over the file.

    The panel and the log go to stderr. With --json, stdout gets one JSON document on one line when the model
    is ready: url, model, version, platform, inputs, outputs, settings (each a value and its reason), ready_s.
    """
    # Until the server takes over there is nothing to drain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ctx.meta[DEBUG] = flags["debug"]
    settings = resolve(flags, os.environ, find_toml(config_path))
    ctx.meta[DEBUG] = settings.debug
    # Imported once the settings are known to be right: a typo need not wait for the machinery to load.
    from paceline.server.serve import serve

    ctx.exit(serve(model, settings, as_json=as_json))
