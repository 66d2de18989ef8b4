"""Which value wins, and where did it come from?

Flags over environment over `paceline.toml` over defaults. Every layer is checked whole, also where a higher
one hides a value: a mistake that shows only once a flag is dropped would be found at the worst moment.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from paceline.config.machine import container_evidence
from paceline.config.setting import BadValue, Setting, Value, shown
from paceline.config.settings import SETTINGS, Found, Given, ServeSettings
from paceline.config.toml_file import KeyPath, TomlFile, read_toml
from paceline.core.errors import ConfigError

PREFIX = "PACELINE_"
CONFIG_VARIABLE = "PACELINE_CONFIG"

_TABLES = ("serve", "models")
_PER_MODEL = {name: setting for name, setting in SETTINGS.items() if setting.per_model}

# Kubernetes gives every pod a set of variables for each Service. One called `paceline` makes PACELINE_PORT a
# URL and adds PACELINE_SERVICE_HOST and more: nobody configured those.
_SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://")
_SERVICE_LINK_NAME = re.compile(r"PACELINE_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_.+)?)")


def resolve(
    flags: Mapping[str, object], env: Mapping[str, str], toml_path: Path | None, given: Given | None = None
) -> ServeSettings:
    """Merge every source into checked settings.

    Args:
        flags: values by setting name; None means that the flag was not given.
        env: the environment: PACELINE_<NAME>, and PORT; an empty variable counts as not set.
        toml_path: the file to read, or None for none.
        given: what the flags of another server say.

    Raises:
        ConfigError: an unknown name, or a value that its setting does not take.
    """
    toml = read_toml(toml_path) if toml_path is not None else None
    given = given or Given()
    found = {
        **_host_in_container(env),
        **(_from_serve(toml) if toml else {}),
        **_from_environment(env),
        **given.found,
        **_from_flags(flags),
    }
    values: dict[str, Any] = {name: each.value for name, each in found.items()}
    origins = {name: each.origin for name, each in found.items()}
    models = _from_models(toml) if toml else {}
    for name, each in given.models.items():
        models[name] = {**models.get(name, {}), **each}
    settings = ServeSettings(**values, origins=origins, models=models, base_paths=given.base_paths)
    if settings.port and settings.port == settings.grpc_port:
        raise ConfigError(
            f"grpc_port: must not be the port, {settings.port} ({settings.origin('grpc_port')})",
            hint="leave it out: gRPC is answered on the port of HTTP",
        )
    return settings


def per_model_settings(path: Path) -> dict[str, Found]:
    """Read a `paceline.toml` that lies beside a model: its settings, at top level.

    Raises:
        ConfigError: as for `resolve`; also for a setting that is not a model's own.
    """
    return _from_keys(read_toml(path), (), _PER_MODEL)


def _host_in_container(env: Mapping[str, str]) -> dict[str, Found]:
    # Loopback inside a container answers nobody: the container is the boundary there.
    evidence = container_evidence(env)
    return {"host": Found("0.0.0.0", f"default in a container ({evidence})")} if evidence else {}


def _from_flags(flags: Mapping[str, object]) -> dict[str, Found]:
    found = {}
    for name, value in flags.items():
        if value is None:
            continue
        origin = f"flag --{name.replace('_', '-')}"
        if name not in SETTINGS:
            raise _unknown(name, SETTINGS, origin)
        found[name] = Found(_checked(SETTINGS[name], value, name, origin), origin)
    return found


def _from_environment(env: Mapping[str, str]) -> dict[str, Found]:
    found = {}
    if env.get("PORT"):
        found["port"] = _from_variable(SETTINGS["port"], "PORT", env["PORT"])
    by_variable = {setting.variable: setting for setting in SETTINGS.values()}
    for variable in sorted(env):
        text = env[variable]
        if not variable.startswith(PREFIX) or not text or variable == CONFIG_VARIABLE:
            continue
        if _SERVICE_LINK_URL.match(text) or _SERVICE_LINK_NAME.fullmatch(variable):
            continue
        setting = by_variable.get(variable)
        if setting is None:
            raise _unknown(variable, by_variable, "environment")
        found[setting.name] = _from_variable(setting, variable, text)
    return found


def _from_variable(setting: Setting, variable: str, text: str) -> Found:
    origin = f"env {variable}"
    try:
        return Found(setting.parse(text), origin)
    except BadValue as error:
        raise ConfigError(f"{setting.name}: {error} ({origin})") from None


def _from_serve(toml: TomlFile) -> dict[str, Found]:
    for key in toml.data:
        if key in SETTINGS:
            raise ConfigError(f"{key}: must stand under [serve] ({toml.place((key,))})")
        if key not in _TABLES:
            raise _unknown(key, _TABLES, toml.place((key,)))
    return _from_keys(toml, ("serve",), SETTINGS)


def _from_models(toml: TomlFile) -> dict[str, dict[str, Found]]:
    models = _table_at(toml, ("models",))
    return {name: _from_keys(toml, ("models", name), _PER_MODEL) for name in models}


def _from_keys(toml: TomlFile, path: KeyPath, settings: Mapping[str, Setting]) -> dict[str, Found]:
    found = {}
    for name, value in _table_at(toml, path).items():
        key = (*path, name)
        label = name if path in (("serve",), ()) else ".".join(key)
        if name not in settings:
            raise _unknown(label, settings, toml.place(key))
        checked = _checked(settings[name], value, label, toml.place(key))
        if isinstance(checked, Path):
            # As in every other tool: a path in a file is relative to that file.
            checked = toml.path.parent / checked
        found[name] = Found(checked, toml.origin(key))
    return found


def _table_at(toml: TomlFile, path: KeyPath) -> Mapping[str, Any]:
    table: Any = toml.data
    for key in path:
        table = table.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{'.'.join(path)}: must be a table, got {shown(table)} ({toml.place(path)})")
    return table


def _checked(setting: Setting, value: object, label: str, place: str) -> Value:
    try:
        return setting.check(value)
    except BadValue as error:
        raise ConfigError(f"{label}: {error} ({place})") from None


def _unknown(name: str, names: Iterable[str], place: str) -> ConfigError:
    close = get_close_matches(name.rpartition(".")[2], names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`paceline config show` lists every setting"
    return ConfigError(f"{name}: unknown setting ({place})", hint=hint)
