"""Which settings does `paceline serve` take?

The fields of `ServeSettings` are the table: name, type, default, bounds and help stand once, here.
`SETTINGS` is the same table as data, for the flags, the TOML reader, the environment and the reference page.
`None` means: Paceline chooses, by measuring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from paceline.config.setting import Setting, Value
from paceline.core.errors import ConfigError

NonFinite = Literal["error", "null", "string"]
V1Dialect = Literal["merged", "tfs"]
ModelControlMode = Literal["poll", "explicit", "none"]

DEFAULT_ORIGIN = "default"

_T = TypeVar("_T")
_DAY_MS = 24 * 60 * 60 * 1000


def _setting(default: _T, help: str, **rule: Any) -> _T:
    # Typed as its default, as dataclasses.field is, so that a wrong default is mypy's to find.
    value: _T = field(default=default, metadata={"help": help, **rule})
    return value


@dataclass(frozen=True, slots=True)
class Found:
    """A value together with the place that it came from."""

    value: Value
    origin: str


@dataclass(frozen=True, slots=True)
class Given:
    """What another server's command line says, in our terms.

    Attributes:
        found: settings; they win over the environment.
        models: of single models, as in [models.NAME], over which they win.
        base_paths: the models to serve, and the folders that hold their versions; empty: those of the one path.
    """

    found: Mapping[str, Found] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Found]] = field(default_factory=dict)
    base_paths: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Every setting of a server, checked; `origin(name)` says where a value came from.

    Attributes:
        origins: by setting; those that are not here have their defaults.
        models: what is set for single models.
        base_paths: the models to serve where they do not all lie in one folder: name -> the folder of its versions.
    """

    host: str = _setting(
        "127.0.0.1",
        "address to listen on; 0.0.0.0 inside a container",
        pattern=r"[0-9A-Za-z.:_%\[\]-]+",
        pattern_help="a host name or an IP address",
    )
    port: int = _setting(
        8080, "port to listen on, for HTTP and gRPC alike; 0 takes any free one", minimum=0, maximum=65535
    )
    grpc_port: int | None = _setting(
        None,
        "a second port, for those who want gRPC on its own; 0 takes any free one",
        minimum=0,
        maximum=65535,
        none_text="none",
    )
    replicas: int | None = _setting(
        None,
        "server processes on the one port, under a supervisor; none: one process, without",
        minimum=1,
        maximum=256,
        none_text="none",
    )
    name: str | None = _setting(
        None,
        "the model's name; the file's name when not set",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        pattern_help="letters, digits, '.', '_' and '-', at most 128",
    )
    server_name: str = _setting(
        "paceline",
        "the server's name in its metadata (`GET /v2`)",
        pattern=r"[!-~]{1,100}",
        pattern_help="visible ASCII, at most 100 characters",
    )

    model_control_mode: ModelControlMode = _setting(
        "poll", "a repository: watched for changes, changed by request alone, or read once at start"
    )
    load_model: str | None = _setting(
        None,
        "explicit mode: models to load at start, separated by commas; * loads all",
        pattern=r"\*|[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*",
        pattern_help="names of models separated by commas, or *",
    )
    repository_poll_s: float = _setting(
        1.0, "poll mode: seconds between two looks at the repository", minimum=0.05, maximum=86400
    )
    version_policy: str = _setting(
        "latest",
        "which versions of a model are served: latest, latest:N, all, or numbers separated by commas",
        pattern=r"latest(:[1-9][0-9]{0,3})?|all|[0-9]{1,19}(,[0-9]{1,19})*",
        pattern_help="latest, latest:N, all, or version numbers separated by commas",
        per_model=True,
    )
    labels: str | None = _setting(
        None,
        "names for versions, such as stable=3,canary=4",
        pattern=r"[A-Za-z0-9._-]+=[0-9]{1,19}(,[A-Za-z0-9._-]+=[0-9]{1,19})*",
        pattern_help="pairs LABEL=VERSION separated by commas",
        per_model=True,
    )

    max_batch_size: int | None = _setting(None, "most rows that run together", minimum=1, maximum=65536, per_model=True)
    max_queue_delay_ms: float = _setting(
        0.0,
        "longest wait of a request for others to share its batch; 0: none",
        minimum=0,
        maximum=60_000,
        per_model=True,
    )
    instances: int | None = _setting(None, "loaded copies of the model", minimum=1, maximum=1024, per_model=True)
    threads: int | None = _setting(
        None, "threads that one instance computes with", minimum=1, maximum=1024, per_model=True
    )
    runtime: str | None = _setting(
        None,
        "what runs a model file; that of its format when not set",
        pattern=r"onnxruntime|openvino|tensorflow|torch",
        pattern_help="onnxruntime, openvino, tensorflow or torch",
        per_model=True,
    )
    precision: str | None = _setting(
        None,
        "what the runtime computes in, where it has a choice (OpenVINO); that of the file when not set",
        pattern=r"f32|bf16|f16",
        pattern_help="f32, bf16 or f16",
        per_model=True,
    )
    examples: Path | None = _setting(None, "file of example requests, to warm up and to measure with", per_model=True)
    nonfinite: NonFinite = _setting(
        "error", "NaN or infinity in an output: fail the request, or write null or a string in JSON", per_model=True
    )
    warmup_s: float = _setting(0.6, "seconds to spend on measuring before ready", minimum=0, maximum=3600)

    deduplicate: bool = _setting(
        True, "user code: items that are equal and under way at the same time run once", per_model=True
    )
    cache: str = _setting(
        "none",
        "user code: keep predictions, in this process (memory) or in Redis (redis://HOST:PORT/DB)",
        pattern=r"none|memory|rediss?://.+",
        pattern_help="none, memory, or redis://HOST:PORT/DB",
        per_model=True,
    )
    cache_mb: int = _setting(
        64,
        "most MiB of predictions kept in this process",
        minimum=1,
        maximum=65536,
        per_model=True,
    )
    cache_ttl_s: float = _setting(
        300.0,
        "how long a prediction may be answered from the cache",
        minimum=0.001,
        maximum=31_536_000,
        per_model=True,
    )
    fetch_concurrency: int = _setting(
        64, "user code: most calls of fetch under way at once in one worker", minimum=1, maximum=65536, per_model=True
    )
    retry_lost: bool = _setting(
        True,
        "user code: run requests whose worker died once more; off for predictions with side effects",
        per_model=True,
    )
    run_timeout_ms: int | None = _setting(
        None,
        "user code: a batch that runs longer hangs, and its worker is killed; none: as timeout_ms",
        minimum=1,
        maximum=_DAY_MS,
        none_text="as timeout_ms",
        per_model=True,
    )
    setup_timeout_s: float = _setting(
        600.0,
        "user code: longest time from the start of a worker until it is ready",
        minimum=0.1,
        maximum=86400,
        per_model=True,
    )
    worker_memory_mb: int | None = _setting(
        None,
        "user code: a worker that takes more MiB is replaced",
        minimum=1,
        maximum=1_048_576,
        none_text="none",
        per_model=True,
    )
    allow_pickle: bool = _setting(
        False, "read models that are pickles (.pkl, .joblib): loading one runs whatever code it holds"
    )

    timeout_ms: int = _setting(30_000, "deadline of a request that names none", minimum=1, maximum=_DAY_MS)
    header_timeout_ms: int = _setting(10_000, "longest wait for a request's headers", minimum=1, maximum=_DAY_MS)
    body_timeout_ms: int = _setting(30_000, "longest wait for a request's body", minimum=1, maximum=_DAY_MS)
    write_timeout_ms: int = _setting(
        30_000, "longest wait for a client that does not read its answer", minimum=1, maximum=_DAY_MS
    )
    keep_alive_ms: int = _setting(75_000, "how long an idle connection stays open", minimum=0, maximum=_DAY_MS)

    max_body_mb: int = _setting(64, "largest request body in MiB, also once decompressed", minimum=1, maximum=65536)
    max_receiving_mb: int = _setting(
        1024,
        "most MiB of large request bodies, of all connections, that are received or answered",
        minimum=1,
        maximum=1_048_576,
    )
    max_url_kb: int = _setting(8, "longest request target in KiB", minimum=1, maximum=1024)
    max_headers_kb: int = _setting(32, "largest sum of a request's headers in KiB", minimum=1, maximum=1024)
    max_headers: int = _setting(100, "most headers in a request", minimum=1, maximum=10_000)
    max_connections: int = _setting(10_000, "most open connections", minimum=1, maximum=1_000_000)
    max_concurrent_streams: int = _setting(
        1024, "HTTP/2: most requests under way on one connection", minimum=1, maximum=65536
    )
    max_queue_requests: int = _setting(4096, "most requests that wait", minimum=1, maximum=10_000_000, per_model=True)
    max_queue_mb: int = _setting(256, "most MiB of inputs that wait", minimum=1, maximum=1_048_576)

    lame_duck_ms: int = _setting(
        0, "after SIGTERM: how long to answer 'not ready' and yet accept", minimum=0, maximum=_DAY_MS
    )
    grace_ms: int = _setting(10_000, "after SIGTERM: how long requests under way may take", minimum=0, maximum=_DAY_MS)
    access_log: bool = _setting(False, "write one JSON line for each request to stderr, before the next is served")
    debug: bool = _setting(False, "show tracebacks, and the model's own error messages to clients")
    v1_dialect: V1Dialect = _setting("merged", "/v1 answers as TensorFlow Serving alone, or merged with KServe's")

    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    models: Mapping[str, Mapping[str, Found]] = field(default_factory=dict, repr=False)
    base_paths: Mapping[str, Path] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        """Say where a value came from: `default`, `paceline.toml:3`, `env PORT`, `flag --port`."""
        return self.origins.get(name, DEFAULT_ORIGIN)

    def check_models(self, served: Sequence[str]) -> None:
        """Refuse a [models.NAME] that sets what no model would use.

        Raises:
            ConfigError: it names none of the models that are served.
        """
        for name, found in self.models.items():
            if name in served:
                continue
            close = get_close_matches(name, served, n=1)
            place = next((f" ({each.origin})" for each in found.values()), "")
            raise ConfigError(
                f"models.{name}: no model of this name is served{place}",
                hint=f"did you mean {close[0]!r}?" if close else f"served: {', '.join(served)}",
            )

    def for_model(self, name: str, beside: Mapping[str, Found] = MappingProxyType({})) -> "ServeSettings":
        """Return one model's settings.

        A flag or a variable wins over [models.NAME], that over a file beside the model, and that over [serve].

        Args:
            beside: what `found_beside` read in the model's folder.
        """
        overrides = {
            key: found
            for key, found in {**beside, **self.models.get(name, {})}.items()
            if not self.origin(key).startswith(("flag ", "env "))
        }
        if not overrides:
            return self
        changed: dict[str, Any] = {key: found.value for key, found in overrides.items()}
        origins = {**self.origins, **{key: found.origin for key, found in overrides.items()}}
        return replace(self, **changed, origins=origins)


def _table() -> dict[str, Setting]:
    hints = get_type_hints(ServeSettings)
    table = {}
    for each in fields(ServeSettings):
        if "help" not in each.metadata:
            continue
        default: Any = each.default
        kinds = [kind for kind in get_args(hints[each.name]) or (hints[each.name],) if kind is not NoneType]
        is_choice = get_origin(hints[each.name]) is Literal
        table[each.name] = Setting(
            name=each.name,
            type=str if is_choice else kinds[0],
            default=default,
            optional=default is None,
            choices=tuple(kinds) if is_choice else (),
            **each.metadata,
        )
    return table


SETTINGS: Mapping[str, Setting] = MappingProxyType(_table())
