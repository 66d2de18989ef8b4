"""`paceline config show`: what would `paceline serve` use?"""

import json
import os
from pathlib import Path
from typing import Any

import click

from paceline.cli.documents import json_flag
from paceline.cli.flags import config_flag
from paceline.config.resolve import resolve
from paceline.config.setting import Setting, Value, without_password
from paceline.config.settings import SETTINGS, ServeSettings
from paceline.config.toml_file import find_toml


@click.group("config")
def command() -> None:
    """Look into the configuration."""


@command.command("show")
@config_flag
@click.option("--origin", "with_origin", is_flag=True, help="Say where each value comes from.")
@json_flag
def show(config_path: Path | None, with_origin: bool, as_json: bool) -> None:
    """Print every setting as `paceline serve` would use it, in the form of a paceline.toml."""
    settings = resolve({}, os.environ, find_toml(config_path))
    if as_json:
        click.echo(json.dumps(_document(settings, with_origin), indent=2))
    else:
        click.echo("\n".join(_toml_lines(settings, with_origin)))


def _document(settings: ServeSettings, with_origin: bool) -> dict[str, Any]:
    def entry(value: Value, origin: str) -> Any:
        plain = without_password(str(value)) if isinstance(value, Path | str) else value
        return {"value": plain, "origin": origin} if with_origin else plain

    return {
        "serve": {name: entry(getattr(settings, name), settings.origin(name)) for name in SETTINGS},
        "models": {
            model: {name: entry(found.value, found.origin) for name, found in overrides.items()}
            for model, overrides in settings.models.items()
        },
    }


def _toml_lines(settings: ServeSettings, with_origin: bool) -> list[str]:
    def line(setting: Setting, value: Value, origin: str) -> str:
        return _toml_line(setting, value) + (f"  # {origin}" if with_origin else "")

    lines = ["[serve]"]
    for name, setting in SETTINGS.items():
        lines.append(line(setting, getattr(settings, name), settings.origin(name)))
    for model, overrides in settings.models.items():
        lines += ["", f"[models.{_quoted(model)}]"]
        lines += [line(SETTINGS[name], found.value, found.origin) for name, found in overrides.items()]
    return lines


def _toml_line(setting: Setting, value: Value) -> str:
    if value is None and not setting.automatic:
        return f"# {setting.name} is not set"
    shown = setting.none_text if value is None else str(value) if isinstance(value, Path) else value
    return f"{setting.name} = {_quoted(without_password(shown)) if isinstance(shown, str) else json.dumps(shown)}"


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, as long as nothing becomes a surrogate pair.
    return json.dumps(text, ensure_ascii=False)
