"""Which processor is it, what can it do, and does it run as fast as it could?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paceline.config.processor import processor
from paceline.doctor.finding import Finding, note, ok, problem
from paceline.doctor.host import Host, listed_numbers

_CPUS: Final = "sys/devices/system/cpu"
_GOOD_CLOCKS: Final = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "hyperv_clocksource")
_SLOW_CLOCKS: Final = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")

# In the kernel's words: what they are called elsewhere.
_SHOWN: Final = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16", "avx512_fp16": "AVX-512 FP16", "amx_int8": "AMX int8", "amx_bf16": "AMX bf16",
    "amx_fp16": "AMX fp16", "asimd": "NEON", "asimdhp": "FP16", "asimddp": "dot product", "i8mm": "I8MM",
    "bf16": "BF16", "sve": "SVE", "sve2": "SVE2", "sme": "SME",
}  # fmt: skip


def model(host: Host) -> Iterator[Finding]:
    """What it calls itself."""
    found = processor(host.root)
    yield ok("processor", f"{found.model}, {found.architecture}")


def instructions(host: Host) -> Iterator[Finding]:
    """The instruction sets that matter, and what their lack means."""
    found = processor(host.root)
    if not found.flags:
        return
    named = [shown for flag, shown in _SHOWN.items() if flag in found.flags]
    is_x86 = bool(found.flags & {"sse2", "lm"})
    if is_x86 and "avx2" not in found.flags:
        yield problem(
            "instructions",
            "no AVX2: matrix products are several times slower than on any server processor since 2013",
            "use another machine type; in a virtual machine, let it see the host's processor (-cpu host)",
        )
    elif named:
        yield ok("instructions", ", ".join(named))
    if found.has_int8_dot:
        yield ok("8-bit integers", "summed by instructions of their own: int8 models are worth a try")
    else:
        yield note(
            "8-bit integers",
            "no instructions that sum their products: int8 models gain less, and may lose accuracy by saturation",
            "quantize with reduced range, as paceline optimize does here",
        )
    if found.has_bf16 or found.has_fp16:
        kinds = " and ".join([*["bf16"] * found.has_bf16, *["fp16"] * found.has_fp16])
        yield ok("half precision", f"{kinds}, multiplied by the processor itself")
    else:
        yield ok("half precision", "computed in single precision: half of the memory, no more speed")


def siblings(host: Host) -> Iterator[Finding]:
    """Whether cores are hyper-threads of the same core."""
    physical = set()
    for cpu in sorted(host.allowed):
        text = host.read(f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list")
        if not text:
            return
        physical.add(text)
    if not physical:
        return
    allowed = len(host.allowed)
    if len(physical) < allowed and host.cores.whole > len(physical):
        yield note(
            "hyper-threads",
            f"the {allowed} cores are {len(physical)} physical ones, with two threads each or more",
            f"more than {len(physical)} threads of one model seldom help; paceline serve finds the number by measuring",
        )
    else:
        yield ok("hyper-threads", f"{len(physical)} physical cores for {allowed} that may be used")


def frequency(host: Host) -> Iterator[Finding]:
    """The governor, and whether the processor may exceed its base frequency."""
    governors = {host.read(host.under(path)) for path in host.found(f"{_CPUS}/cpu[0-9]*/cpufreq/scaling_governor")}
    driver = host.read(f"{_CPUS}/cpu0/cpufreq/scaling_driver")
    # Under this driver, `powersave` raises the frequency with the load.
    slow = {"powersave", "conservative"} - ({"powersave"} if driver in ("intel_pstate", "amd-pstate-epp") else set())
    if governors & slow:
        yield problem("frequency", f"governor {', '.join(sorted(governors))}: cores stay slow, or rise late", _GOVERNOR)
    elif governors - {"performance", "schedutil"}:
        yield note(
            "frequency", f"governor {', '.join(sorted(governors))} ({driver}): short bursts run slower", _GOVERNOR
        )
    elif governors:
        yield ok("frequency", f"governor {', '.join(sorted(governors))}")
    if host.read(f"{_CPUS}/intel_pstate/no_turbo") == "1" or host.read(f"{_CPUS}/cpufreq/boost") == "0":
        yield note(
            "turbo",
            "switched off: steadier, and slower while few cores are busy",
            "echo 1 > /sys/devices/system/cpu/cpufreq/boost (or 0 > .../intel_pstate/no_turbo), as root",
        )


_GOVERNOR: Final = "cpupower frequency-set -g performance, as root on the host"


def heat(host: Host) -> Iterator[Finding]:
    """Whether it has been slowed down because it was too hot, since it was started."""
    counts = [host.number(host.under(path)) or 0 for path in host.found(f"{_CPUS}/cpu*/thermal_throttle/*_count")]
    if any(counts):
        yield note(
            "heat",
            f"a core was slowed down for its heat, up to {max(counts)} times since the start",
            "measure again when it is cool; look after the cooling",
        )
    elif counts:
        yield ok("heat", "never slowed down for its heat")


def clock(host: Host) -> Iterator[Finding]:
    """Where the time comes from: each request reads the clock several times."""
    source = host.read("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in _SLOW_CLOCKS:
        yield problem(
            "clock",
            f"{source}: to read the time takes a microsecond or more, and each request does several times",
            "boot with clocksource=tsc tsc=reliable, if the processor's counter is steady",
        )
    elif source in _GOOD_CLOCKS:
        yield ok("clock", f"{source}, read without a call of the kernel")
    elif source:
        yield ok("clock", source)


def nodes(host: Host) -> Iterator[Finding]:
    """Whether the cores reach all memory equally fast."""
    lists = host.found("sys/devices/system/node/node[0-9]*/cpulist")
    spanned = [path for path in lists if host.allowed & set(listed_numbers(host.read(host.under(path))))]
    if len(spanned) > 1:
        yield note(
            "NUMA",
            f"the cores lie on {len(spanned)} memory nodes: what lies on another is reached more slowly",
            "run one server on each: numactl --cpunodebind=0 --membind=0 paceline serve ...",
        )
    elif spanned:
        yield ok("NUMA", "one memory node")
