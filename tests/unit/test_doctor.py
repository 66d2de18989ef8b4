"""`paceline doctor` on machines that nobody here has: trees of /proc and /sys, and environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from paceline.doctor import limits, memory, processor, software, variables
from paceline.doctor.examination import examine
from paceline.doctor.finding import Finding
from paceline.doctor.host import Host, listed_numbers
from paceline.doctor.software import Software

Build = Callable[..., Host]


@pytest.fixture
def machine(tmp_path: Path) -> Build:
    """A machine with these files and variables."""

    def build(files: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None) -> Host:
        for name, text in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Host(tmp_path, env or {})

    return build


def only(findings) -> Finding:
    (finding,) = findings
    if finding.level != "ok":
        assert finding.hint, "what is not well says what to do"
    return finding


STATUS = "Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t{}\n"
GROUP = {"proc/self/cgroup": "0::/box\n"}


def test_lists_of_the_kernel():
    assert list(listed_numbers("0-3,8")) == [0, 1, 2, 3, 8]
    assert list(listed_numbers("")) == list(listed_numbers("x-y,-3")) == []


def test_the_mask_counts_as_the_kernel_tells_it(machine):
    host = machine({"proc/self/status": STATUS.format("0-1,6-7")})
    assert host.allowed == {0, 1, 6, 7}
    assert only(limits.cores(host)).text == "4 (affinity mask allows 4 cores)"


@pytest.mark.parametrize(("quota", "level"), [("50000", "problem"), ("250000", "note"), ("200000", "ok")])
def test_a_quota_is_used_best_in_whole_cores(machine, quota, level):
    files = {"proc/self/status": STATUS.format("0-7"), "sys/fs/cgroup/box/cpu.max": f"{quota} 100000"}
    assert only(limits.cores(machine(GROUP | files))).level == level


@pytest.mark.parametrize(("throttled", "level"), [(0, "ok"), (10, "ok"), (200, "problem")])
def test_a_quota_that_stops_the_server(machine, throttled, level):
    stat = f"usage_usec 5\nnr_periods 1000\nnr_throttled {throttled}\nthrottled_usec 3500000\n"
    finding = only(limits.throttling(machine(GROUP | {"sys/fs/cgroup/box/cpu.stat": stat})))
    assert finding.level == level
    assert level == "ok" or "20% of 1000 periods, 3.5 s" in finding.text


def test_without_a_quota_there_is_no_throttling(machine):
    host = machine(GROUP | {"sys/fs/cgroup/box/cpu.stat": "usage_usec 5\n"})
    assert list(limits.throttling(host)) == []


@pytest.mark.parametrize(("stolen", "level"), [(0, "ok"), (30, "note"), (100, "problem")])
def test_time_that_goes_to_other_virtual_machines(machine, stolen, level):
    line = f"cpu  500 0 100 {400 - stolen} 0 0 0 {stolen} 0 0\ncpu0 1 2 3\n"
    assert only(limits.steal(machine({"proc/stat": line}))).level == level


@pytest.mark.parametrize(("average", "level"), [("0.10", "ok"), ("1.50", "note"), ("9.00", "problem")])
def test_a_machine_that_is_busy(machine, average, level):
    cores = {f"sys/devices/system/cpu/cpu{index}/online": "1" for index in range(2)}
    assert only(limits.load(machine({"proc/loadavg": f"{average} 0.5 0.4 1/200 7\n"} | cores))).level == level


def test_tasks_that_wait_for_a_core(machine):
    pressure = "some avg10=9.00 avg60=31.50 avg300=3.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert "31.50 %" in only(limits.pressure(machine(GROUP | {"sys/fs/cgroup/box/cpu.pressure": pressure}))).text


def test_hyper_threads_count_as_one_core(machine):
    files = {"proc/self/status": STATUS.format("0-3")}
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = siblings
    assert only(processor.siblings(machine(files))).text.startswith("the 4 cores are 2 physical ones")


def cpuinfo(flags: str) -> dict[str, str]:
    return {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: Test 9000\nflags\t\t: {flags}\n"}


def test_instruction_sets_are_named_as_people_know_them(machine):
    found = list(processor.instructions(machine(cpuinfo("fpu sse2 lm avx2 avx512f avx512_vnni amx_int8 amx_bf16"))))
    assert found[0].text == "AVX2, AVX-512, AVX-512 VNNI, AMX int8, AMX bf16"
    assert [each.level for each in found] == ["ok", "ok", "ok"]
    assert "bf16" in found[2].text


def test_a_processor_without_avx2_is_a_problem(machine):
    levels = {each.check: each.level for each in processor.instructions(machine(cpuinfo("fpu sse2 lm sse4_2")))}
    assert levels == {"instructions": "problem", "8-bit integers": "note", "half precision": "ok"}


def test_arm_has_its_own(machine):
    info = {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\n"}
    found = list(processor.instructions(machine(info)))
    assert found[0].text == "NEON, dot product, I8MM, BF16, SVE"
    assert found[1].level == "ok"


CPU = "sys/devices/system/cpu"


@pytest.mark.parametrize(
    ("governor", "driver", "level"),
    [
        ("performance", "acpi-cpufreq", "ok"),
        ("powersave", "intel_pstate", "note"),
        ("powersave", "acpi-cpufreq", "problem"),
        ("ondemand", "acpi-cpufreq", "note"),
    ],
)
def test_the_governor_counts_with_its_driver(machine, governor, driver, level):
    files = {f"{CPU}/cpu0/cpufreq/scaling_governor": governor, f"{CPU}/cpu0/cpufreq/scaling_driver": driver}
    assert only(processor.frequency(machine(files))).level == level


def test_turbo_that_is_off_is_said(machine):
    assert only(processor.frequency(machine({f"{CPU}/intel_pstate/no_turbo": "1"}))).check == "turbo"
    assert only(processor.heat(machine({f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "12"}))).level == "note"


@pytest.mark.parametrize(("source", "level"), [("tsc", "ok"), ("hpet", "problem"), ("something", "ok")])
def test_clocks_that_take_long_to_read(machine, source, level):
    files = {"sys/devices/system/clocksource/clocksource0/current_clocksource": source}
    assert only(processor.clock(machine(files))).level == level


def test_cores_on_two_memory_nodes(machine):
    files = {"proc/self/status": STATUS.format("0-7")}
    files |= {f"sys/devices/system/node/node{index}/cpulist": f"{index * 4}-{index * 4 + 3}" for index in range(3)}
    assert only(processor.nodes(machine(files))).text.startswith("the cores lie on 2 memory nodes")


def test_the_memory_of_a_group_that_is_nearly_full(machine):
    files = {
        "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 9000000 kB\n",
        "sys/fs/cgroup/box/memory.max": str(4 << 30),
        "sys/fs/cgroup/box/memory.current": str((4 << 30) - (100 << 20)),
        "sys/fs/cgroup/box/memory.stat": f"anon 5\ninactive_file {50 << 20}\n",
        "sys/fs/cgroup/box/memory.events": "low 0\noom 3\noom_kill 2\n",
    }
    host = machine(GROUP | files)
    finding = only(memory.total(host))
    assert (finding.level, finding.text) == ("problem", "4.29 GB, 157 MB of it free")
    assert "killed 2 processes" in only(memory.killed(host)).text


def test_memory_on_a_disk(machine):
    assert only(memory.swap(machine({"proc/meminfo": "SwapTotal: 4096 kB\nSwapFree: 1024 kB\n"}))).level == "note"


def test_swap_that_is_not_used_is_well(machine):
    assert only(memory.swap(machine({"proc/meminfo": "SwapTotal: 4096 kB\nSwapFree: 4096 kB\n"}))).text == "not in use"


@pytest.mark.parametrize(
    ("enabled", "defrag", "level"),
    [
        ("always [madvise] never", "[always]", "ok"),
        ("always madvise [never]", "", "note"),
        ("[always] madvise never", "[always] defer", "note"),
        ("[always] madvise never", "always [madvise]", "ok"),
    ],
)
def test_transparent_huge_pages(machine, enabled, defrag, level):
    folder = "sys/kernel/mm/transparent_hugepage"
    host = machine({f"{folder}/enabled": enabled, f"{folder}/defrag": defrag})
    assert only(memory.transparent_huge_pages(host)).level == level


def test_huge_pages_that_nobody_uses(machine):
    host = machine({"proc/meminfo": "HugePages_Total: 1024\nHugePages_Free: 512\nHugepagesize: 2048 kB\n"})
    assert only(memory.reserved_huge_pages(host)).text.startswith("1.07 GB are set aside")


@pytest.mark.parametrize(
    ("preload", "maps", "level"),
    [
        ("", "7f00 r-xp /lib/libc.so.6", "ok"),
        ("/usr/lib/libjemalloc.so.2", "7f00 r-xp /usr/lib/libjemalloc.so.2", "ok"),
        ("/wrong/libjemalloc.so.2", "7f00 r-xp /lib/libc.so.6", "problem"),
    ],
)
def test_an_allocator_that_was_asked_for_is_really_there(machine, preload, maps, level):
    assert only(memory.allocator(machine({"proc/self/maps": maps}, {"LD_PRELOAD": preload}))).level == level


@pytest.mark.parametrize(("size", "level"), [("size=65536k", "note"), ("size=8g", "ok"), ("rw", "ok")])
def test_little_room_for_shared_tensors(machine, size, level):
    mounts = f"shm /dev/shm tmpfs rw,{size} 0 0\nproc /proc proc rw 0 0\n"
    assert only(memory.shared(machine({"proc/mounts": mounts}))).level == level


@pytest.mark.parametrize(
    ("value", "level"), [("64", "problem"), ("4,2", "note"), ("zero", "problem"), ("0", "problem")]
)
def test_thread_variables_that_lie(machine, value, level):
    host = machine({"proc/self/status": STATUS.format("0-3")}, {"OMP_NUM_THREADS": value})
    assert only(variables.threads(host)).level == level


def test_no_thread_variable_is_best(machine):
    assert only(variables.threads(machine())).level == "ok"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_WAIT_POLICY", "ACTIVE"),
        ("GOMP_SPINCOUNT", "infinite"),
        ("KMP_BLOCKTIME", "200"),
    ],
)
def test_threads_that_burn_their_core(machine, name, value):
    assert name in only(variables.spinning(machine(env={name: value}))).text


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "0"), ("KMP_BLOCKTIME", "1"), ("OMP_WAIT_POLICY", "")])
def test_threads_that_sleep_are_well(machine, name, value):
    assert list(variables.spinning(machine(env={name: value}))) == []


def test_pinning_and_slow_modes(machine):
    env = {"OMP_PROC_BIND": "close", "PYTHONDEVMODE": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "DNNL_MAX_CPU_ISA": "AVX2"}
    host = machine(env=env)
    assert "OMP_PROC_BIND=close" in only(variables.pinning(host)).text
    assert [each.level for each in variables.slow_modes(host)] == ["problem", "note", "note"]


def test_few_open_files_connections_and_ports(machine):
    host = machine(
        {
            "proc/self/limits": "Limit  Soft Limit  Hard Limit  Units\nMax open files   256   1024   files\n",
            "proc/sys/net/core/somaxconn": "128\n",
            "proc/sys/net/ipv4/ip_local_port_range": "40000\t45000\n",
        }
    )
    for check in (limits.files, limits.backlog, limits.ports):
        assert only(check(host)).level == "note"


def test_a_virtual_machine_names_its_maker(machine):
    files = cpuinfo("fpu hypervisor") | {"sys/class/dmi/id/sys_vendor": "ACME", "sys/class/dmi/id/product_name": "M1"}
    found = {each.check: each.text for each in limits.place(machine(files, {"K_SERVICE": "x"}))}
    assert found == {"container": "yes ($K_SERVICE)", "virtual machine": "yes (ACME M1)"}


def test_versions_that_have_to_be_replaced():
    packages = {"onnx": "1.20.9", "numpy": "2.1.0", "torch": "2.13.0+cpu", "keras": "3.9.2", "skops": "0.11.0rc1"}
    found = [each.check for each in software.old_versions(Software(packages=packages))]
    assert found == ["onnx 1.20.9", "keras 3.9.2", "skops 0.11.0rc1"]


def test_packages_that_overwrite_each_other():
    found = Software(packages={"onnxruntime": "1.20", "onnxruntime-gpu": "1.20", "xgboost-cpu": "3.0"})
    assert only(software.clashes(found)).check == "onnxruntime, onnxruntime-gpu"


def test_a_python_that_is_slow():
    levels = [each.level for each in software.python(Software(debug=True, traced=True))]
    assert levels == ["ok", "problem", "problem"]
    levels = [each.level for each in software.python(Software(optimized=False, gil=False))]
    assert levels == ["ok", "note", "note"]


def test_what_is_missing_says_how_to_get_it():
    texts = {each.check: each.text for each in software.runtimes(Software(packages={"onnxruntime": "1.31.1"}))}
    assert texts["ONNX Runtime"] == "1.31.1"
    assert texts["PyTorch"] == "not installed; pip install 'paceline[torch]'"


def test_without_onnx_runtime_nothing_is_served():
    assert {each.level for each in software.runtimes(Software()) if each.check == "ONNX Runtime"} == {"problem"}


def test_a_machine_that_tells_nothing_is_not_judged(machine):
    """Another kernel, or no right to read: whatever cannot be read has no finding."""
    found = examine(machine(), Software(packages={"onnxruntime": "1.31.1"}))
    assert found.problems == 0
    assert {group.title for group in found.groups} >= {"Cores", "Software"}


GARBAGE = ("", "\0", "-1", "x y z\n" * 3, "9" * 18, "some avg60=x", "cpu 1 2", "Max open files")


@pytest.mark.parametrize("text", GARBAGE)
def test_files_that_hold_something_else_do_no_harm(machine, text):
    names = [
        "proc/self/status", "proc/self/cgroup", "proc/stat", "proc/loadavg", "proc/meminfo", "proc/mounts",
        "proc/self/limits", "proc/cpuinfo", "proc/sys/net/core/somaxconn", "proc/sys/net/ipv4/ip_local_port_range",
        "sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu.pressure", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.stat",
        "sys/kernel/mm/transparent_hugepage/enabled",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "sys/devices/system/node/node0/cpulist", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    ]  # fmt: skip
    files = dict.fromkeys(names, text) | {"proc/self/cgroup": "0::/\n"}
    found = examine(machine(files), Software(packages={"onnxruntime": "1.31.1"}))
    assert found.groups
