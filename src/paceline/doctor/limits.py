"""What may this process use: cores, files, connections? And who else takes them?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from paceline.config.machine import container_evidence
from paceline.doctor.finding import Finding, note, ok, problem
from paceline.doctor.host import Host, pairs

_THROTTLED_SHARE: Final = 0.01
_STEAL_NOTE, _STEAL_PROBLEM = 0.01, 0.05
_FEW_FILES: Final = 4096
_SHORT_BACKLOG: Final = 1024
_FEW_PORTS: Final = 16_000
_PRESSURE_PERCENT: Final = 10.0
_WAITED: Final = re.compile(r"^some .*\bavg60=(\d+(?:\.\d+)?)\b")


def cores(host: Host) -> Iterator[Finding]:
    """How many cores, and which limit decides."""
    found = host.cores
    if found.value < 1:
        yield problem(
            "cores",
            f"less than one core ({found.why}): every run is interrupted, and waits for its next share",
            "give it at least one whole core",
        )
    elif found.value != found.whole:
        yield note(
            "cores",
            f"{found.value:g} ({found.why}): {found.whole} threads at the same time, and the rest is for bursts",
            "whole numbers of cores are used best",
        )
    else:
        yield ok("cores", f"{found.whole} ({found.why})")


def throttling(host: Host) -> Iterator[Finding]:
    """How often the quota has stopped this group."""
    for group in host.groups():
        counts = pairs(host.read(f"{group}/cpu.stat"))
        periods, throttled = counts.get("nr_periods", 0), counts.get("nr_throttled", 0)
        if not periods:
            continue
        share, seconds = throttled / periods, counts.get("throttled_usec", 0) / 1e6
        if share > _THROTTLED_SHARE:
            yield problem(
                "throttling",
                f"stopped by its quota in {share:.0%} of {periods} periods, {seconds:.1f} s in all ({group}/cpu.stat)",
                "raise the limit, or take it off and keep the request: a stopped server answers nobody",
            )
        else:
            yield ok("throttling", f"stopped by its quota in {throttled} of {periods} periods")
        return


def steal(host: Host) -> Iterator[Finding]:
    """How much time the host of a virtual machine has taken away, since it was started."""
    first = host.read("proc/stat").partition("\n")[0].split()
    ticks = [int(each) for each in first[1:9] if each.isdecimal()]
    if len(ticks) < 8 or not sum(ticks):
        return
    share = ticks[7] / sum(ticks)
    if share > _STEAL_NOTE:
        say = problem if share > _STEAL_PROBLEM else note
        yield say(
            "stolen time",
            f"{share:.1%} of the time went to other virtual machines on the same host",
            "use a machine type with cores of its own; measured times vary here",
        )
    else:
        yield ok("stolen time", f"{share:.1%}")


def load(host: Host) -> Iterator[Finding]:
    """Whether others compute at this moment."""
    words = host.read("proc/loadavg").split()
    try:
        average = float(words[0])
    except (IndexError, ValueError):
        return
    # The average counts the whole machine, a container's neighbours too.
    total = len(host.found("sys/devices/system/cpu/cpu[0-9]*")) or host.cores.whole
    if average > total:
        yield problem(
            "load",
            f"{average:g} threads want to run on {total} cores",
            "measure nothing now: settings that are found by measuring would be wrong",
        )
    elif average > total / 2:
        yield note("load", f"{average:g} threads run on {total} cores", "settings are found best on an idle machine")
    else:
        yield ok("load", f"{average:g} on {total} cores")


def pressure(host: Host) -> Iterator[Finding]:
    """How long tasks of this group wait for a core."""
    for group in host.groups():
        some = host.read(f"{group}/cpu.pressure").partition("\n")[0]
        match = _WAITED.search(some)
        if match is not None:
            if float(match[1]) > _PRESSURE_PERCENT:
                yield note(
                    "waiting",
                    f"in the last minute, something here has waited for a core {match[1]} % of the time",
                    "fewer threads or instances, or more cores",
                )
            return


def files(host: Host) -> Iterator[Finding]:
    """How many connections may be open."""
    for line in host.read("proc/self/limits").splitlines():
        if not line.startswith("Max open files"):
            continue
        soft, hard = [*line.removeprefix("Max open files").split(), "", ""][:2]
        if hard.isdecimal() and int(hard) < _FEW_FILES:
            yield note(
                "open files",
                f"at most {hard}: each connection takes one",
                "raise it: ulimit -Hn 65536, LimitNOFILE= of systemd, or --ulimit nofile=65536 of docker",
            )
        else:
            yield ok("open files", f"{soft}, which the server raises up to {hard}")


def backlog(host: Host) -> Iterator[Finding]:
    """How many connections may wait to be accepted."""
    most = host.number("proc/sys/net/core/somaxconn")
    if most is None:
        return
    if most < _SHORT_BACKLOG:
        yield note(
            "backlog",
            f"at most {most} connections wait to be accepted: more at once are refused",
            "sysctl -w net.core.somaxconn=4096",
        )
    else:
        yield ok("backlog", f"{most} connections may wait to be accepted")


def ports(host: Host) -> Iterator[Finding]:
    """How many connections a client on this machine can make, such as a load test."""
    words = host.read("proc/sys/net/ipv4/ip_local_port_range").split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return
    count = int(words[1]) - int(words[0]) + 1
    if count < _FEW_PORTS:
        yield note(
            "ports",
            f"{count} for connections that are made here: a load test without keep-alive runs out of them",
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
        )


def place(host: Host) -> Iterator[Finding]:
    """What kind of place it is: a container, a virtual machine."""
    evidence = container_evidence(host.env, host.root)
    if evidence:
        yield ok("container", f"yes ({evidence})")
    flags = next((line for line in host.read("proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    product = " ".join(filter(None, (host.read(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))))
    if " hypervisor" in flags:
        yield ok("virtual machine", f"yes ({product})" if product else "yes")
