"""How many cores may this process really use, and does it run in a container?

A host's core count says little: a cgroup quota and an affinity mask both take cores away, and threads beyond
what is left only throttle one another. The smallest of them counts.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_VARIABLES = ("KUBERNETES_SERVICE_HOST", "K_SERVICE")


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores that this process may use.

    Attributes:
        value: as the machine grants them; half a core is 0.5.
        whole: threads that can run at the same time; at least one.
        why: which limit decided.
    """

    value: float
    whole: int
    why: str

    def shared_by(self, processes: int) -> "Cores":
        """The share of each of several processes; at least one core."""
        if processes == 1:
            return self
        why = f"a share of {self.whole} for each of {processes} replicas ({self.why})"
        return Cores(self.value / processes, max(1, self.whole // processes), why)


def usable_cores(root: Path = Path("/"), affinity: int | None = None) -> Cores:
    """Find the smallest of the affinity mask and every cgroup quota above this process.

    Args:
        root: where /proc and /sys stand.
        affinity: cores in the affinity mask; asked of the system when not given.
    """
    allowed = _affinity() if affinity is None else affinity
    limits = [(float(allowed), "affinity mask"), *_quotas(root)]
    # The first of equals: an affinity mask as small as the quota is the plainer reason.
    value, limit = min(limits, key=lambda each: each[0])
    return Cores(value, max(1, math.floor(value)), f"{limit} allows {value:g} core{'s' * (value != 1)}")


def usable_memory_bytes(root: Path = Path("/")) -> int | None:
    """The smallest of the machine's memory and every cgroup limit above this process; None: not known."""
    limits = [int(line.split()[1]) << 10 for line in _read(root / "proc/meminfo").splitlines() if "MemTotal:" in line]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        mount = "sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup"
        for group in _upward(root / mount, path):
            text = _read(group / file).strip()
            if text.isdigit():
                limits.append(int(text))
    return min(limits, default=None)


def container_evidence(env: Mapping[str, str], root: Path = Path("/")) -> str | None:
    """Return what shows that this process runs in a container, or None."""
    for name in _CONTAINER_FILES:
        if (root / name.lstrip("/")).exists():
            return name
    return next((f"${name}" for name in _CONTAINER_VARIABLES if env.get(name)), None)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity masks


def _quotas(root: Path) -> Iterator[tuple[float, str]]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            for group in _upward(root / "sys/fs/cgroup", path):
                yield from _v2_quota(group)
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((controllers, "cpu")):
                for group in _upward(root / "sys/fs/cgroup" / mount, path):
                    yield from _v1_quota(group)


def _upward(mount: Path, path: str) -> Iterator[Path]:
    # A quota on any ancestor binds too. Inside a cgroup namespace the path may not exist under the mount;
    # the walk then still ends at the mount itself, which is this container's own group.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _v2_quota(group: Path) -> Iterator[tuple[float, str]]:
    quota, _, period = _read(group / "cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        yield int(quota) / int(period), f"cgroup quota ({group / 'cpu.max'})"


def _v1_quota(group: Path) -> Iterator[tuple[float, str]]:
    quota = _read(group / "cpu.cfs_quota_us").strip()
    period = _read(group / "cpu.cfs_period_us").strip()
    # -1 means no quota.
    if quota.isdigit() and period.isdigit() and int(period):
        yield int(quota) / int(period), f"cgroup quota ({group / 'cpu.cfs_quota_us'})"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""  # not this kernel, or not for us to read: no limit known
