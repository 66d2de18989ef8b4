"""What does a command line of TensorFlow Serving mean here?

Rules:
- Theirs have underscores in their names and ours hyphens, so that one line may hold both; `--port` is theirs when
  another of theirs is there.
- Their `port` is gRPC's and `rest_api_port` HTTP's. Each of ours speaks both, so that they are two ports of a server.
- A flag that has no equal here is read, and named in a note; one that asks for protection is an error, for a server
  without it is another server.
- Without `--enable_batching` TensorFlow Serving does not batch. Here requests that meet at the model run together
  anyway, and none waits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from paceline.config.setting import BadValue, Value, shown
from paceline.config.settings import SETTINGS, Found, Given
from paceline.config.tfs_batching import read_batching
from paceline.config.tfs_models import MOUNT, read_models
from paceline.core.errors import ConfigError

_DEFAULT_PORT: Final = 8500
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}

_SWITCHES: Final = frozenset(
    {"enable_batching", "enable_model_warmup", "enable_per_model_batching_parameters", "use_alts_credentials"}
    | {"allow_version_labels_for_unavailable_models", "rest_api_enable_cors_support", "flush_filesystem_caches"}
    | {"prefer_tflite_model", "enable_signature_method_name_check", "xla_cpu_compilation_enabled", "enable_profiler"}
    | {"remove_unused_fields_from_bundle_metagraph", "enable_grpc_healthcheck_service", "skip_initialize_tpu"}
)
# Flag -> the setting it is. A count of 0 leaves the choice to the server, there as here.
_SETTINGS: Final = {
    "rest_api_timeout_in_ms": "timeout_ms",
    "tensorflow_intra_op_parallelism": "threads",
    "tensorflow_session_parallelism": "threads",
}
_MEANT: Final = frozenset(
    {"port", "rest_api_port", "model_name", "model_base_path", "model_config_file", "batching_parameters_file"}
    | {"file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds", "ssl_config_file"}
)
_WITHOUT_EFFECT: Final = frozenset(
    {"grpc_socket_path", "rest_api_num_threads", "max_num_load_retries", "load_retry_interval_micros"}
    | {"tensorflow_session_config_file", "tensorflow_inter_op_parallelism", "platform_config_file"}
    | {"per_process_gpu_memory_fraction", "saved_model_tags", "grpc_channel_arguments", "grpc_max_threads"}
    | {"num_request_iterations_for_warmup", "monitoring_config_file", "num_tflite_pools", "num_load_threads"}
    | {"num_tflite_interpreters_per_pool", "num_unload_threads", "thread_pool_factory_config_file"}
    | {"mixed_precision"}
)
FLAGS: Final = _SWITCHES | _SETTINGS.keys() | _MEANT | _WITHOUT_EFFECT
"""Every flag of theirs, by its name."""

_WHY: Final = {
    "monitoring_config_file": "metrics are at /metrics",
    "saved_model_tags": "an ONNX model has no tags",
    "rest_api_enable_cors_support": "no origin is allowed",
    "max_num_load_retries": "a version is tried again when its files change",
    "num_request_iterations_for_warmup": "warm-up measures for warmup_s",
}
_REFUSED: Final = {
    "ssl_config_file": "TLS is not available here: put a proxy that speaks it in front",
    "use_alts_credentials": "ALTS is not available here",
    "prefer_tflite_model": "TensorFlow Lite models are not served: convert them to ONNX",
}


@dataclass(frozen=True)
class Command:
    """A command line of theirs in our terms.

    Attributes:
        model: the folder of the one model, or the folder that holds all, when a file names them.
        given: settings, and the models where a file names them.
        notes: what has no effect or another one, one line for people each.
        rest: the arguments that are not theirs.
    """

    model: Path
    given: Given
    notes: tuple[str, ...]
    rest: tuple[str, ...]


def spoken(arguments: Sequence[str]) -> bool:
    """True when a command line is in TensorFlow Serving's terms: it has one of their flags with an underscore."""
    return any("_" in name and name in FLAGS for name in map(_flag_name, arguments) if name is not None)


def translate(arguments: Sequence[str], cores: int) -> Command:
    """Translate a command line that `spoken` is true of.

    Args:
        arguments: those of `serve`; ours may be among them.
        cores: whole cores that this process may use.

    Raises:
        ConfigError: a flag of theirs is unknown, wrong or missing, or a file that it names is wrong.
    """
    texts, rest = _separated(arguments)
    return _Translation(texts, cores).command(tuple(rest))


@dataclass
class _Translation:
    texts: Mapping[str, str]
    cores: int
    found: dict[str, Found] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def command(self, rest: tuple[str, ...]) -> Command:
        self._refuse()
        self._ports()
        self._settings()
        self._polling()
        self._batching()
        self._ignored()
        model, given = self._models()
        return Command(model, given, tuple(self.notes), rest)

    def _refuse(self) -> None:
        for flag, why in _REFUSED.items():
            if self._on(flag) if flag in _SWITCHES else self.texts.get(flag):
                raise ConfigError(f"--{flag}: {why}")

    def _ports(self) -> None:
        rest, grpc = self.texts.get("rest_api_port", "0"), self.texts.get("port", str(_DEFAULT_PORT))
        if rest.strip() == "0":  # their word for no HTTP
            self.found["port"] = (
                self._as("port", "port", grpc)
                if "port" in self.texts
                else Found(_DEFAULT_PORT, "default of TensorFlow Serving")
            )
            return
        self.found["port"] = self._as("rest_api_port", "port", rest)
        if "port" not in self.texts:
            self.notes.append(
                f"gRPC is answered on the port of --rest_api_port; for TensorFlow Serving's default, {_DEFAULT_PORT}, "
                f"add --port={_DEFAULT_PORT}"
            )
        elif grpc.strip() not in ("0", rest.strip()):
            self.found["grpc_port"] = self._as("port", "grpc_port", grpc)

    def _settings(self) -> None:
        for flag, setting in _SETTINGS.items():
            text = self.texts.get(flag, "0").strip()
            if text != "0":
                self.found[setting] = self._as(flag, setting, text)

    def _polling(self) -> None:
        text = self.texts.get("file_system_poll_wait_seconds")
        if text is None:
            return
        seconds = self._seconds("file_system_poll_wait_seconds", text)
        if seconds > 0:
            self.found["repository_poll_s"] = self._checked(
                "file_system_poll_wait_seconds", "repository_poll_s", seconds
            )
        else:
            self.found["model_control_mode"] = self._checked(
                "file_system_poll_wait_seconds", "model_control_mode", "none"
            )

    def _batching(self) -> None:
        path = self.texts.get("batching_parameters_file")
        if not self._on("enable_batching"):
            if path:
                raise ConfigError("--batching_parameters_file: needs --enable_batching, as in TensorFlow Serving")
            self.notes.append(
                "requests that meet at the model run together, also without --enable_batching; none waits"
            )
        elif path:
            parameters = read_batching(Path(path), self.cores)
            self.found |= parameters.found
            self.notes += parameters.notes
        else:
            self.notes.append("--enable_batching without a file: the largest batch is measured, and none waits")

    def _ignored(self) -> None:
        ignored = [flag for flag in self.texts if flag in _WITHOUT_EFFECT or (flag in _WHY and self._on(flag))]
        plain = [f"--{flag}" for flag in ignored if flag not in _WHY]
        if plain:
            self.notes.append(f"without effect here: {', '.join(plain)}")
        self.notes += [f"--{flag} has no effect: {_WHY[flag]}" for flag in ignored if flag in _WHY]
        if "enable_model_warmup" in self.texts and not self._on("enable_model_warmup"):
            self.notes.append("--enable_model_warmup=false has no effect: a model is ready once it was measured")
        if self.texts.get("model_config_file_poll_wait_seconds", "0").strip() != "0":
            self.notes.append(
                "--model_config_file_poll_wait_seconds has no effect: the file is read once, at start; "
                "the folders that it names are watched"
            )

    def _models(self) -> tuple[Path, Given]:
        file, base_path = self.texts.get("model_config_file"), self.texts.get("model_base_path")
        if file:
            if base_path:
                raise ConfigError("--model_base_path: not together with --model_config_file, which names the folders")
            served = read_models(Path(file))
            # What holds them all, for what is loaded later must lie there too.
            model = Path(os.path.commonpath([path.resolve() for path in served.base_paths.values()]))
            return model, Given(self.found, served.models, served.base_paths)
        if not base_path:
            raise ConfigError("--model_base_path: must be given, or --model_config_file")
        if "://" in base_path:
            raise ConfigError(f"--model_base_path: must be a folder on this machine, got {base_path!r}", hint=MOUNT)
        # "default" is what they call a model without a name.
        self.found["name"] = self._as("model_name", "name", self.texts.get("model_name", "default"))
        return Path(base_path), Given(self.found)

    def _on(self, flag: str) -> bool:
        text = self.texts.get(flag, "false").lower()
        if text not in _BOOLEANS:
            raise ConfigError(f"--{flag}: must be true or false, got {shown(text)}")
        return _BOOLEANS[text]

    def _seconds(self, flag: str, text: str) -> int:
        try:
            return int(text[:20])
        except ValueError:
            raise ConfigError(f"--{flag}: must be a whole number, got {shown(text)}") from None

    def _as(self, flag: str, setting: str, text: str) -> Found:
        try:
            return Found(SETTINGS[setting].parse(text), f"flag --{flag}")
        except BadValue as error:
            raise ConfigError(f"--{flag}: {error}") from None

    def _checked(self, flag: str, setting: str, value: Value) -> Found:
        try:
            return Found(SETTINGS[setting].check(value), f"flag --{flag}")
        except BadValue as error:
            raise ConfigError(f"--{flag}: {error}") from None


def _flag_name(argument: str) -> str | None:
    return argument[2:].partition("=")[0] if argument.startswith("--") else None


def _separated(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Their flags with their texts, and what is not theirs."""
    texts: dict[str, str] = {}
    rest: list[str] = []
    following = iter(range(len(arguments)))
    for index in following:
        argument = arguments[index]
        name = _flag_name(argument)
        if name is None or (name not in FLAGS and "_" not in name):
            rest.append(argument)
            continue
        if name not in FLAGS:
            raise _unknown(name)
        if name in texts:
            raise ConfigError(f"--{name}: given twice")
        texts[name] = _text_of(name, arguments, index, following)
    return texts, rest


def _text_of(name: str, arguments: Sequence[str], index: int, following: Iterator[int]) -> str:
    """The text of the flag at `index`: behind `=`, or the next argument; `following` then leaves that out."""
    _, equals, text = arguments[index].partition("=")
    if equals:
        return text
    behind = arguments[index + 1] if index + 1 < len(arguments) else None
    if name in _SWITCHES:
        if behind is None or behind.lower() not in _BOOLEANS:
            return "true"
    elif behind is None or behind.startswith("--"):
        raise ConfigError(f"--{name}: needs a value")
    next(following)
    return behind


def _unknown(name: str) -> ConfigError:
    close = get_close_matches(name, FLAGS, n=3)
    ours = name.replace("_", "-")
    if name in SETTINGS:
        close.insert(0, ours)
    hint = f"did you mean {' or '.join(f'--{each}' for each in close)}?" if close else None
    return ConfigError(f"--{name}: neither TensorFlow Serving nor Paceline has this flag", hint=hint)
