"""Which variables of the environment make libraries compute in another way than they should?

Rules:
- Paceline tells its workers how many threads to compute with, but what the operator has set stands. ONNX Runtime and
  OpenVINO read none of these variables; scikit-learn, PyTorch, TensorFlow, XGBoost and R do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paceline.doctor.finding import Finding, note, ok, problem
from paceline.doctor.host import Host
from paceline.workers.launch import THREAD_VARIABLES

_SPIN_MOST: Final = 100_000
_BLOCK_MOST_MS: Final = 1
_PINNING: Final = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def threads(host: Host) -> Iterator[Finding]:
    """Numbers of threads that are not those of the cores."""
    most, said = host.cores.whole, False
    for name in THREAD_VARIABLES:
        value = host.env.get(name)
        if value is None:
            continue
        said = True
        first = value.partition(",")[0].strip()  # OpenMP takes one number for each level
        if not first.isdecimal() or int(first) == 0:
            yield problem("threads", f"{name}={value} is no number of threads", f"unset {name}")
        elif int(first) > most:
            yield problem(
                "threads",
                f"{name}={value}, and there {'is' if most == 1 else 'are'} {most} usable core{'s' * (most > 1)}: "
                "threads take turns, and wait for one another",
                f"unset {name}: workers are told how many threads to compute with",
            )
        else:
            yield note(
                "threads",
                f"{name}={value} stands in every worker, whatever number of threads is found by measuring",
                f"unset {name}, unless it is meant so",
            )
    if not said:
        yield ok("threads", "no variable sets their number")


def spinning(host: Host) -> Iterator[Finding]:
    """Threads that burn their core while they wait for work."""
    env = host.env
    if env.get("OMP_WAIT_POLICY", "").lower() == "active":
        yield problem("spinning", "OMP_WAIT_POLICY=active: idle threads keep their cores busy", _PASSIVE)
    if _is_above(env.get("GOMP_SPINCOUNT", ""), _SPIN_MOST):
        yield problem("spinning", f"GOMP_SPINCOUNT={env['GOMP_SPINCOUNT']}: idle threads keep cores busy", _PASSIVE)
    if _is_above(env.get("KMP_BLOCKTIME", ""), _BLOCK_MOST_MS):
        yield note(
            "spinning",
            f"KMP_BLOCKTIME={env['KMP_BLOCKTIME']}: threads spin so many milliseconds after each run",
            "KMP_BLOCKTIME=1 (or 0), where several models or instances share the cores",
        )


_PASSIVE: Final = "unset it, or OMP_WAIT_POLICY=passive: the event loop and other instances need the cores"


def pinning(host: Host) -> Iterator[Finding]:
    """Threads of every worker on the same cores."""
    for name in _PINNING:
        value = host.env.get(name, "")
        if value and value.lower() not in ("none", "disabled"):
            yield note("pinning", f"{name}={value}: every worker puts its threads on the same cores", f"unset {name}")
    bind = host.env.get("OMP_PROC_BIND", "").lower()
    if bind and bind != "false":
        yield note(
            "pinning",
            f"OMP_PROC_BIND={bind}: every worker puts its threads on the same cores",
            "unset it, unless there is one instance",
        )


def slow_modes(host: Host) -> Iterator[Finding]:
    """Modes for finding defects, and switches that turn fast code off."""
    slow = {
        "PYTHONDEVMODE": "Python's development mode checks everything twice",
        "PYTHONASYNCIODEBUG": "asyncio's debug mode times every callback",
        "PYTHONPROFILEIMPORTTIME": "every import is timed and printed",
        "PYTHONTRACEMALLOC": "every allocation is recorded",
    }
    for name, why in slow.items():
        if host.env.get(name, "") not in ("", "0"):
            yield problem("slow modes", f"{name}={host.env[name]}: {why}", f"unset {name}")
    if host.env.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        yield note(
            "slow modes",
            "TF_ENABLE_ONEDNN_OPTS=0: TensorFlow does without its fastest kernels",
            "unset it, unless you need the same last digits everywhere",
        )
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS"):
        if host.env.get(name, "").lower() not in ("", "all", "default"):
            yield note("slow modes", f"{name}={host.env[name]} limits the instructions that are used", f"unset {name}")


def _is_above(value: str, most: int) -> bool:
    return value.lower() in ("infinite", "infinity") or (value.isdecimal() and int(value) > most)
