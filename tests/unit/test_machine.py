"""Cores, memory and GPUs as a container or a batch job has them, from files laid out as the kernel lays them out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpo import machine
from hpo.machine import Cgroups, GpuClaim, available_memory, gpu_indices, local_rank, usable_cores, worker_name

V1 = """\
36 32 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
37 32 0:32 {root} /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def lay(tmp_path: Path):
    """Writes ``/proc/self`` and the groups' files; returns what reads them."""

    def write(cgroup: str, mountinfo: str, files: dict[str, str]) -> Cgroups:
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "cgroup").write_text(cgroup)
        (proc / "mountinfo").write_text(mountinfo)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Cgroups(proc, tmp_path / "root")

    return write


class TestLimits:
    def test_version_2_with_a_limit_above_the_own_group(self, lay) -> None:
        group = "sys/fs/cgroup/kubepods/pod7"
        cgroups = lay(
            "0::/kubepods/pod7/main\n",
            V2,
            {
                f"{group}/cpu.max": "150000 100000\n",
                f"{group}/memory.max": "1000000000\n",
                f"{group}/memory.current": "400000000\n",
                f"{group}/memory.stat": "anon 1\ninactive_file 100000000\n",
                f"{group}/main/cpu.max": "max 100000\n",
                f"{group}/main/memory.max": "max\n",
                f"{group}/main/memory.events": "low 0\noom 3\noom_kill 2\n",
            },
        )
        assert cgroups.cpu_quota() == 1.5
        assert cgroups.memory_left() == 700_000_000
        assert cgroups.memory_kills() == 2
        assert usable_cores(cgroups) == 1
        assert available_memory(cgroups) <= 700_000_000

    def test_version_2_seen_from_within_a_container(self, lay) -> None:
        cgroups = lay("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "max\n"})
        assert cgroups.cpu_quota() == 0.5
        assert usable_cores(cgroups) == 1
        assert cgroups.memory_left() is None
        assert cgroups.memory_kills() is None

    @pytest.mark.parametrize("root", ["/", "/docker/abc"])
    def test_version_1(self, lay, root: str) -> None:
        """The host's path in ``/proc/self/cgroup`` is there on the host only; a container has the group at the top."""
        inside = "" if root != "/" else "docker/abc/"
        cgroups = lay(
            "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
            V1.format(root=root),
            {
                f"sys/fs/cgroup/cpu,cpuacct/{inside}cpu.cfs_quota_us": "400000\n",
                f"sys/fs/cgroup/cpu,cpuacct/{inside}cpu.cfs_period_us": "100000\n",
                f"sys/fs/cgroup/memory/{inside}memory.limit_in_bytes": "629145600\n",
                f"sys/fs/cgroup/memory/{inside}memory.usage_in_bytes": "29145600\n",
                f"sys/fs/cgroup/memory/{inside}memory.stat": "cache 5\ntotal_inactive_file 0\n",
                f"sys/fs/cgroup/memory/{inside}memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
            },
        )
        assert cgroups.cpu_quota() == 4.0
        assert cgroups.memory_left() == 600_000_000
        assert cgroups.memory_kills() == 7

    def test_no_limits(self, lay) -> None:
        cgroups = lay(
            "5:cpu,cpuacct:/\n4:memory:/\n",
            V1.format(root="/"),
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            },
        )
        assert cgroups.cpu_quota() is None
        assert cgroups.memory_left() is None
        assert usable_cores(cgroups) == len(os.sched_getaffinity(0))

    def test_no_groups_at_all(self, tmp_path: Path) -> None:
        assert Cgroups(tmp_path).cpu_quota() is None
        assert Cgroups(tmp_path).memory_left() is None


class TestGpus:
    @pytest.mark.parametrize(
        ("visible", "expected"),
        [
            ("0,1", ["0", "1"]),
            (" 2 , 3 ", ["2", "3"]),
            ("", []),
            ("-1", []),
            ("NoDevFiles", []),
            ("none", []),
            ("0,-1,1", ["0"]),
            ("0,NoDevFiles,1", ["0"]),
            ("GPU-8932f937-d72c,MIG-4a2b/1/0", ["GPU-8932f937-d72c", "MIG-4a2b/1/0"]),
        ],
    )
    def test_what_cuda_reads_of_its_variable(self, visible: str, expected: list[str], tmp_path: Path) -> None:
        (tmp_path / "nvidia0").touch()
        assert gpu_indices({"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == expected

    def test_nodes_are_counted_from_zero(self, tmp_path: Path) -> None:
        for name in ("nvidia3", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
            (tmp_path / name).touch()
        assert gpu_indices({}, tmp_path) == ["0", "1"]
        assert gpu_indices({}, tmp_path / "absent") == []

    def test_wsl2_has_one_node_for_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "dxg").touch()
        monkeypatch.setattr(machine, "WSL_CUDA", tmp_path / "libcuda.so.1")
        assert gpu_indices({}, tmp_path) == []  # a WSL2 without CUDA
        (tmp_path / "libcuda.so.1").touch()
        monkeypatch.setenv("PATH", str(tmp_path))
        assert gpu_indices({}, tmp_path) == ["0"]
        lists(tmp_path, "GPU 0: A (UUID: GPU-11)\nGPU 1: B (UUID: GPU-22)\n")
        assert gpu_indices({}, tmp_path) == ["0", "1"]
        assert gpu_indices({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) == ["1"]

    @pytest.mark.parametrize(
        ("visible", "wanted", "missing"),
        [
            (None, ("0",), []),
            (None, ("0", "2"), ["2"]),
            (None, ("GPU-8932f937",), []),
            (None, ("GPU-beef",), ["GPU-beef"]),
            (None, ("MIG-41b3",), []),
            (None, ("MIG-dead", "0"), ["MIG-dead"]),
            (None, ("MIG-",), ["MIG-"]),
            ("GPU-8932f937-d72c", ("GPU-8932f937-d72c",), []),
            ("GPU-8932f937-d72c", ("GPU-1f00",), ["GPU-1f00"]),
            ("MIG-41b3", ("0",), ["0"]),
            ("", ("0", "MIG-41b3"), ["0", "MIG-41b3"]),
        ],
    )
    def test_names_of_devices(
        self,
        visible: str | None,
        wanted: tuple[str, ...],
        missing: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Two GPUs, of which the second is split (MIG), as nvidia-smi lists them."""
        lists(
            tmp_path,
            "GPU 0: NVIDIA H100 (UUID: GPU-8932f937-d72c)\nGPU 1: NVIDIA H100 (UUID: GPU-1f00)\n"
            "  MIG 1g.10gb     Device  0: (UUID: MIG-41b3)\n",
        )
        monkeypatch.setenv("PATH", str(tmp_path))
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            found = ["0", "1"]
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            found = gpu_indices()
        monkeypatch.setattr(machine, "gpu_indices", lambda: found)
        assert machine.missing_gpus(wanted) == missing

    def test_eight_replicas_use_eight_gpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each replica of a Compose service sees all GPUs; the folder of their locks is a volume that they share."""
        for name in machine.LOCAL_RANK_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        names = [str(index) for index in range(6)] + ["GPU-8932f937-d72c", "MIG-4a2b/1/0"]
        claims = [GpuClaim(names, tmp_path) for _ in range(9)]
        assert [claim.gpu for claim in claims] == [*names, names[0]]
        assert [claim.num_others for claim in claims] == [0] * 8 + [1]

    def test_groups(self) -> None:
        assert machine.gpu_groups(["0", "1", "2"], 1) == ["0", "1", "2"]
        assert machine.gpu_groups(["0", "1", "2", "GPU-3", "4"], 2) == ["0,1", "2,GPU-3"]
        assert machine.gpu_groups(["0"], 2) == []
        assert machine.gpu_groups([], 1) == []

    @pytest.mark.parametrize("variable", ["SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK"])
    def test_the_number_on_the_node_chooses(
        self, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in machine.LOCAL_RANK_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, "5")
        assert local_rank() == 5
        assert GpuClaim(["0", "1", "2", "3"], tmp_path).gpu == "1"

    def test_without_numbers_workers_spread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the replicas of one Compose service do, and workers that a shell starts."""
        for name in machine.LOCAL_RANK_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        program = (
            "import sys; from pathlib import Path; from hpo.machine import GpuClaim;"
            "claim = GpuClaim(['0', '1'], Path(sys.argv[1])); print(claim.gpu, claim.num_others, flush=True);"
            "sys.stdin.read()"
        )
        started = []
        for _ in range(3):
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", program, str(tmp_path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            started[-1].wait_for = started[-1].stdout.readline()
        assert [process.wait_for for process in started] == ["0 0\n", "1 0\n", "0 1\n"]
        started[1].kill()
        started[1].communicate()
        # The kernel has taken the lock of the dead one back.
        assert GpuClaim(["0", "1"], tmp_path).gpu == "1"
        for process in (started[0], started[2]):
            process.communicate()


def lists(folder: Path, text: str) -> None:
    """Puts an ``nvidia-smi`` into the folder that prints ``text``."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{text}'\n")
    command.chmod(0o755)


def test_names_differ_where_host_and_process_id_do_not() -> None:
    first, second = machine.new_worker_id(), machine.new_worker_id()
    assert worker_name(first, 1) != worker_name(second, 1)
    assert worker_name(first, 1).count(":") == 3
