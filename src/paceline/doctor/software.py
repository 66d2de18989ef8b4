"""Which Python is it, what is installed, and which of it does not go together?"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from shutil import which
from typing import Final

from paceline.doctor.finding import Finding, note, ok, problem

Version = tuple[int, ...]


@dataclass(frozen=True)
class Software:
    """What is installed.

    Attributes:
        python: its version; `optimized`, `debug`, `gil`, `traced` say how it was built and how it runs.
        packages: version by distribution, in lower case.
        rscript: where R is; None: it is not.
    """

    python: str = sys.version.partition(" ")[0]
    optimized: bool = True
    debug: bool = False
    gil: bool = True
    traced: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    rscript: str | None = None

    @classmethod
    def here(cls) -> Software:
        """That of this process."""
        arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
        flags = str(sysconfig.get_config_var("PY_CFLAGS") or "")
        return cls(
            optimized="--enable-optimizations" in arguments or "-fprofile-use" in flags or not arguments,
            debug=hasattr(sys, "gettotalrefcount"),
            gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
            traced=sys.gettrace() is not None or sys.getprofile() is not None,
            packages={str(each.metadata["Name"]).lower().replace("_", "-"): each.version for each in distributions()},
            rscript=which("Rscript"),
        )


# Format or part: distributions of which one is enough, and the extra that installs it.
_EXTRAS: Final[Sequence[tuple[str, tuple[str, ...], str]]] = (
    ("ONNX Runtime", ("onnxruntime", "onnxruntime-gpu"), ""),
    ("ONNX", ("onnx",), "demo"),
    ("scikit-learn", ("scikit-learn",), "sklearn"),
    ("skops", ("skops",), "sklearn"),
    ("skl2onnx", ("skl2onnx",), "convert"),
    ("treelite", ("treelite",), "convert"),
    ("XGBoost", ("xgboost-cpu", "xgboost"), "xgboost"),
    ("LightGBM", ("lightgbm",), "lightgbm"),
    ("CatBoost", ("catboost",), "catboost"),
    ("OpenVINO", ("openvino",), "openvino"),
    ("TensorFlow", ("tensorflow-cpu", "tensorflow"), "tensorflow"),
    ("PyTorch", ("torch",), "torch"),
    ("Redis client", ("redis",), "redis"),
)
# Distribution, first version that is good, what is wrong before.
_TOO_OLD: Final[Sequence[tuple[str, Version, str]]] = (
    ("numpy", (2,), "Paceline is built on version 2"),
    ("onnxruntime", (1, 20), "Paceline is tested from 1.20 on"),
    ("onnx", (1, 21), "it follows paths of external data out of the model's folder"),
    ("keras", (3, 11), "a .keras file can make it run code (CVE-2025-1550, CVE-2025-8747)"),
    ("torch", (2, 6), "a file can run code in spite of weights_only (CVE-2025-32434)"),
    ("skops", (0, 12), "a .skops file can load more than it lists (CVE-2025-54412, CVE-2025-54413)"),
    ("joblib", (1, 2), "arguments can run code (CVE-2022-21797)"),
    ("protobuf", (5, 29), "Paceline's messages need 5.29"),
)
_SAME_FILES: Final = (
    ("onnxruntime", "onnxruntime-gpu"),
    ("onnxruntime", "onnxruntime-openvino"),
    ("tensorflow", "tensorflow-cpu"),
    ("xgboost", "xgboost-cpu"),
    ("opencv-python", "opencv-python-headless"),
)


def python(found: Software) -> Iterator[Finding]:
    """How Python was built, and how it runs."""
    yield ok("Python", f"{found.python}{'' if found.gil else ', without the global lock'}")
    if found.debug:
        yield problem("Python", "a debug build: several times slower", "use a release build")
    elif not found.optimized:
        yield note(
            "Python",
            "built without --enable-optimizations: 10 to 20 % slower in Python code",
            "use the build of your distribution, python.org, uv or the official image",
        )
    if found.traced:
        yield problem("Python", "a tracer, profiler or debugger watches every call", "serve without it")
    if not found.gil:
        yield note("Python", "without the global lock, code in Python itself is slower", "serve with the usual build")


def runtimes(found: Software) -> Iterator[Finding]:
    """What is installed, and what could be."""
    missing: dict[str, list[str]] = {}
    for title, names, extra in _EXTRAS:
        version = next((found.packages[name] for name in names if name in found.packages), None)
        if version is not None:
            yield ok(title, version)
        elif not extra:
            yield problem(title, "not installed", "pip install --force-reinstall paceline")
        else:
            missing.setdefault(extra, []).append(title)
    for extra, titles in missing.items():
        yield ok(", ".join(titles), f"not installed; pip install 'paceline[{extra}]'")
    yield ok("R", found.rscript or "not installed")


def old_versions(found: Software) -> Iterator[Finding]:
    """What has to be replaced."""
    for name, least, why in _TOO_OLD:
        version = found.packages.get(name)
        if version is not None and _numbers(version) < least:
            wanted = ".".join(map(str, least))
            yield problem(f"{name} {version}", why, f"pip install '{name}>={wanted}'")


def clashes(found: Software) -> Iterator[Finding]:
    """Distributions that write the same files: which one has won, nobody knows."""
    for one, other in _SAME_FILES:
        if one in found.packages and other in found.packages:
            yield problem(
                f"{one}, {other}",
                "both are installed, and each has overwritten files of the other",
                f"pip uninstall {one} {other}; then install the one that you want",
            )


def _numbers(version: str) -> Version:
    """The release's numbers: (2, 13, 0) of `2.13.0+cpu`."""
    numbers = []
    for part in version.partition("+")[0].split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
