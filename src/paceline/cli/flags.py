"""The settings table as command-line flags."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from paceline.config.resolve import CONFIG_VARIABLE
from paceline.config.setting import BadValue, Setting, Value
from paceline.config.settings import SETTINGS

_F = TypeVar("_F", bound=Callable[..., Any])


class SettingType(click.ParamType[Value]):
    """Reads a flag's value by its setting's own rule, so that flags and variables take the same text."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.metavar

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.setting.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Value:
        try:
            return self.setting.parse(value)
        except BadValue as error:
            self.fail(str(error), param, ctx)


def setting_flags(function: _F) -> _F:
    """Add one flag for each setting; a flag that is not given is None."""
    for setting in reversed(list(SETTINGS.values())):
        function = _flag(setting)(function)
    return function


def chosen_flags(*names: str) -> Callable[[_F], _F]:
    """Add the flags of some settings, for a verb that has no use for the others."""

    def add(function: _F) -> _F:
        for name in reversed(names):
            function = _flag(SETTINGS[name])(function)
        return function

    return add


config_flag = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    metavar="PATH",
    help="Settings file.  [default: paceline.toml, where there is one]",
)


def _flag(setting: Setting) -> Callable[[_F], _F]:
    help_text = f"{setting.help[0].upper()}{setting.help[1:]}.{_default_note(setting)}"
    if setting.type is bool:
        negative = setting.flag.replace("--", "--no-", 1)
        return click.option(f"{setting.flag}/{negative}", setting.name, default=None, help=help_text)
    return click.option(setting.flag, setting.name, type=SettingType(setting), default=None, help=help_text)


def _default_note(setting: Setting) -> str:
    if setting.default is None:
        return f"  [default: {setting.none_text}]" if setting.automatic else ""
    default = str(setting.default).lower() if setting.type is bool else setting.default
    return f"  [default: {default}]"
