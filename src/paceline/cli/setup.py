"""`paceline setup`: everything that a service needs before it can be served, and no server."""

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from paceline.cli.flags import config_flag
from paceline.cli.main import DEBUG
from paceline.config.resolve import resolve
from paceline.config.settings import ServeSettings
from paceline.config.toml_file import find_toml
from paceline.core.errors import ConfigError


@click.command("setup")
@click.argument("service", type=click.Path(path_type=Path), metavar="SERVICE")
@config_flag
@click.option("--allow-pickle", is_flag=True, default=None, help="As for serve: pickled models, which run code.")
@click.option("--json", "as_json", is_flag=True, help="Write what was set up as one JSON document.")
@click.pass_context
def command(
    ctx: click.Context, service: Path, config_path: Path | None, allow_pickle: bool | None, as_json: bool
) -> None:
    """Install what SERVICE asks for, and import its code once.

    SERVICE is what `paceline serve` takes: service.py, service.py:Name, model.R, pipeline.toml. What lies beside it in
    requirements.txt is installed into an environment of its own; `paceline serve` then finds it made. For the
    build of an image, where the network is, so that a start needs none. What the code does in setup() or init() is
    left to the start.
    """
    settings = resolve({"allow_pickle": allow_pickle}, os.environ, find_toml(config_path))
    ctx.meta[DEBUG] = settings.debug
    begun = time.monotonic()
    found = _set_up(service, settings)
    seconds = time.monotonic() - begun
    if as_json:
        click.echo(json.dumps({**found, "seconds": round(seconds, 3)}))
    else:
        click.echo(f"{service}: set up in {seconds:.1f} s, with {found['python']}")


def _set_up(path: Path, settings: ServeSettings) -> dict[str, Any]:
    # Imported once the settings are known to be right, as in `paceline serve`.
    from paceline.engine.loading import read
    from paceline.workers.service import ServiceModel, is_service

    if not is_service(path):
        raise ConfigError(f"{path}: not a service", hint="a service is service.py, model.R or pipeline.toml")
    model = read(path, settings).loaded
    assert isinstance(model, ServiceModel)
    model.close()
    return {"service": str(path), "platform": model.platform, "says": model.about.says, "python": model.options.python}
