"""How much memory is there, and how is it handed out?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paceline.config.machine import usable_memory_bytes
from paceline.doctor.finding import Finding, note, ok, problem
from paceline.doctor.host import Host, pairs
from paceline.reports.units import BYTES

_LITTLE_BYTES: Final = 1 << 30
_LITTLE_SHARE: Final = 0.1
_SMALL_SHM_BYTES: Final = 256 << 20
_ALLOCATORS: Final = ("jemalloc", "tcmalloc", "mimalloc")
_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def total(host: Host) -> Iterator[Finding]:
    """How much may be used, and how much is left of it."""
    most = usable_memory_bytes(host.root)
    if most is None:
        return
    left = _told(host).get("MemAvailable")
    used = next((host.number(f"{group}/memory.current") for group in host.groups()), None)
    limit = next((host.number(f"{group}/memory.max") for group in host.groups()), None)
    if limit is not None and used is not None:
        # What the kernel keeps of files is given back before anything is killed.
        kept = next((pairs(host.read(f"{group}/memory.stat")).get("inactive_file", 0) for group in host.groups()), 0)
        left = min(left if left is not None else limit, limit - used + kept)
    text = f"{BYTES.plain(most)}" + ("" if left is None else f", {BYTES.plain(left)} of it free")
    if most < _LITTLE_BYTES:
        yield note("memory", text, "frameworks alone take several hundred MB: serve ONNX files, one instance")
    elif left is not None and left < _LITTLE_SHARE * most:
        yield problem("memory", text, "a model that does not fit is killed, or swapped: find out who holds the memory")
    else:
        yield ok("memory", text)


def killed(host: Host) -> Iterator[Finding]:
    """Whether the kernel has killed something here for want of memory."""
    for group in host.groups():
        count = pairs(host.read(f"{group}/memory.events")).get("oom_kill", 0)
        if count:
            yield problem(
                "out of memory",
                f"the kernel has killed {count} process{'es' * (count > 1)} in this group ({group}/memory.events)",
                "raise the limit, or lower --instances; --worker-memory-mb ends a worker that leaks in time",
            )
            return


def swap(host: Host) -> Iterator[Finding]:
    """Whether pages may have to be read from a disk before a request is answered."""
    told = _told(host)
    size = told.get("SwapTotal", 0)
    used = size - told.get("SwapFree", 0)
    if used > 0:
        yield note(
            "swap",
            f"{BYTES.plain(used)} of memory lie on a disk: what is needed of them comes back in milliseconds",
            "swapoff -a, or sysctl -w vm.swappiness=1",
        )
    elif told:
        yield ok("swap", "none" if not size else "not in use")


def transparent_huge_pages(host: Host) -> Iterator[Finding]:
    """Whether the kernel may use pages of 2 MB for weights: fewer misses in the table of pages."""
    text = host.read("sys/kernel/mm/transparent_hugepage/enabled")
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen == "never":
        yield note(
            "huge pages",
            "transparent huge pages are off: large models miss the table of pages more often",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root; then measure",
        )
    elif chosen == "always" and "[always]" in host.read("sys/kernel/mm/transparent_hugepage/defrag"):
        yield note(
            "huge pages",
            "transparent huge pages are made while a thread waits for them (defrag: always): pauses of milliseconds",
            "echo defer+madvise > /sys/kernel/mm/transparent_hugepage/defrag, as root",
        )
    elif chosen:
        yield ok("huge pages", f"transparent, {chosen}")


def reserved_huge_pages(host: Host) -> Iterator[Finding]:
    """Whether memory is set aside that nothing here uses."""
    told = _told(host)
    pages, size = told.get("HugePages_Free", 0), told.get("Hugepagesize", 0)
    if pages and size:
        yield note(
            "reserved pages",
            f"{BYTES.plain(pages * size)} are set aside as huge pages, and no runtime here asks for them",
            "sysctl -w vm.nr_hugepages=0, unless something else needs them",
        )


def allocator(host: Host) -> Iterator[Finding]:
    """Who hands out memory to the libraries."""
    maps = host.read("proc/self/maps")
    asked = host.env.get("LD_PRELOAD", "")
    for name in _ALLOCATORS:
        if name in maps:
            yield ok("allocator", f"{name}, preloaded")
            return
        if name in asked:
            yield problem(
                "allocator",
                f"LD_PRELOAD asks for {name}, and it is not loaded",
                f"check the path: LD_PRELOAD={asked}",
            )
            return
    if maps:
        yield ok("allocator", "the C library's own; where memory keeps growing, try LD_PRELOAD=libjemalloc.so.2")
    if host.env.get("PYTHONMALLOC", "").partition("_")[2] == "debug" or host.env.get("PYTHONMALLOC") == "debug":
        yield problem("allocator", "PYTHONMALLOC asks for a debugging allocator, which is slow", "unset PYTHONMALLOC")


def shared(host: Host) -> Iterator[Finding]:
    """The room in /dev/shm, which libraries with processes of their own use."""
    mounts = [line.split() for line in host.read("proc/mounts").splitlines()]
    options = [words[3].split(",") for words in mounts if len(words) > 3 and words[1] == "/dev/shm"]
    if not options:
        return
    # The last one lies over the others.
    size = next((each.removeprefix("size=") for each in options[-1] if each.startswith("size=")), "")
    count, unit = size.rstrip("kmg"), size[-1:]
    size_bytes = int(count) * _UNITS.get(unit, 1) if count.isdecimal() else None
    if size_bytes is not None and size_bytes < _SMALL_SHM_BYTES:
        yield note(
            "/dev/shm",
            f"{BYTES.plain(size_bytes)}: libraries that share tensors between processes fail there",
            "--shm-size=1g of docker; Paceline's own workers do not need it",
        )
    else:
        yield ok("/dev/shm", "half of the memory" if size_bytes is None else f"{BYTES.plain(size_bytes)}")


def _told(host: Host) -> dict[str, int]:
    """The lines of meminfo: sizes in bytes, counts as they are."""
    told = {}
    for line in host.read("proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdecimal():
            told[name] = int(words[0]) << 10 if words[1:] == ["kB"] else int(words[0])
    return told
