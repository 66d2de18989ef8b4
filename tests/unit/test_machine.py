import pytest

from paceline.config.machine import container_evidence, usable_cores, usable_memory_bytes


@pytest.fixture
def machine(tmp_path):
    """A root directory with the files of one machine."""

    def build(files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


def test_without_a_quota_the_affinity_mask_decides(machine):
    root = machine({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    cores = usable_cores(root, affinity=6)
    assert (cores.value, cores.whole) == (6.0, 6)
    assert cores.why == "affinity mask allows 6 cores"


def test_fault_011_half_a_core_is_one_whole_core(machine):
    root = machine({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"})
    cores = usable_cores(root, affinity=64)
    assert (cores.value, cores.whole) == (0.5, 1)
    assert "cpu.max" in cores.why
    assert cores.why.endswith("allows 0.5 cores")


def test_the_quota_of_an_ancestor_binds(machine):
    root = machine(
        {
            "proc/self/cgroup": "0::/kubepods/pod7/main\n",
            "sys/fs/cgroup/kubepods/cpu.max": "800000 100000\n",
            "sys/fs/cgroup/kubepods/pod7/cpu.max": "250000 100000\n",
            "sys/fs/cgroup/kubepods/pod7/main/cpu.max": "max 100000\n",
        }
    )
    cores = usable_cores(root, affinity=64)
    assert (cores.value, cores.whole) == (2.5, 2)


def test_inside_a_cgroup_namespace_the_mount_is_the_group(machine):
    root = machine(
        {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"},
    )
    assert usable_cores(root, affinity=8).whole == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1_quota(machine, mount):
    root = machine(
        {
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
            f"sys/fs/cgroup/{mount}/docker/abc/cpu.cfs_quota_us": "150000\n",
            f"sys/fs/cgroup/{mount}/docker/abc/cpu.cfs_period_us": "100000\n",
            f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": "-1\n",
            f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000\n",
        }
    )
    assert usable_cores(root, affinity=8).value == 1.5


@pytest.mark.parametrize("content", ["", "max", "garbage", "0 0", "100000", "1e5 100000"])
def test_an_unreadable_quota_is_no_quota(machine, content):
    root = machine({"proc/self/cgroup": "0::/\nnonsense\n", "sys/fs/cgroup/cpu.max": content})
    assert usable_cores(root, affinity=4).whole == 4


def test_without_proc_the_mask_is_all_there_is(tmp_path):
    assert usable_cores(tmp_path, affinity=2).whole == 2


def test_this_machine_grants_something():
    cores = usable_cores()
    assert cores.whole >= 1
    assert cores.value > 0


def test_container_evidence(machine, tmp_path):
    assert container_evidence({}, tmp_path) is None
    assert container_evidence({"K_SERVICE": "f"}, tmp_path) == "$K_SERVICE"
    assert container_evidence({}, machine({"run/.containerenv": ""})) == "/run/.containerenv"


def test_the_smallest_limit_of_memory_counts(machine):
    files = {
        "proc/meminfo": "MemTotal:       16000000 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "0::/kubepods/pod7/main\n",
        "sys/fs/cgroup/kubepods/memory.max": "max\n",
        "sys/fs/cgroup/kubepods/pod7/memory.max": "2147483648\n",
    }
    assert usable_memory_bytes(machine(files)) == 2 << 30


def test_memory_without_limits_or_without_proc(machine):
    assert usable_memory_bytes(machine({"proc/meminfo": "MemTotal: 1024 kB\n"})) == 1 << 20
    assert usable_memory_bytes(machine({"empty": ""}) / "elsewhere") is None


def test_the_memory_of_an_old_cgroup(machine):
    files = {
        "proc/meminfo": "MemTotal: 16000000 kB\n",
        "proc/self/cgroup": "9:memory:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
    }
    assert usable_memory_bytes(machine(files)) == 1 << 30
