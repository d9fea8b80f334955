"""What a machine is, by what its kernel shows."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from edgelathe_agent import cpu, jetson, probe
from support.trees import BOARDS, V8, V82, arm, write


@pytest.mark.parametrize(
    ("board", "cpu", "cores", "model", "governor", "khz"),
    [
        ("pi4", "Cortex-A72", 4, "Raspberry Pi 4 Model B Rev 1.4", "ondemand", 1800000),
        ("pi5", "Cortex-A76", 4, "Raspberry Pi 5 Model B Rev 1.0", "ondemand", 2400000),
        ("orin36", "Cortex-A78AE", 5, "NVIDIA Jetson Orin Nano Developer Kit", "schedutil", 1510400),
        ("nano", "Cortex-A57", 4, "NVIDIA Jetson Nano Developer Kit", "schedutil", 918000),
        ("rk3588", "4x Cortex-A76 + 4x Cortex-A55", 8, "Radxa ROCK 5B", "interactive", 2304000),
        ("laptop", "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", 4, "LENOVO 20XW", "powersave", 4800000),
        ("vm", "AMD EPYC", 1, None, None, None),
    ],
)
def test_a_board_is_what_its_kernel_shows(board, cpu, cores, model, governor, khz, tmp_path):
    found = probe.describe(write(tmp_path, BOARDS[board]()), str(tmp_path))
    assert (found["cpu"], found["cores"], found["model"]) == (cpu, cores, model)
    assert (found["governor"], found["clock_max_khz"]) == (governor, khz)


def test_memory_swap_features_and_system(tmp_path):
    found = probe.describe(write(tmp_path, BOARDS["pi4"]()), str(tmp_path))
    assert found["features"] == sorted(V8.split())
    assert (found["memory_bytes"], found["memory_free_bytes"]) == (3885396 * 1024, 3100000 * 1024)
    assert found["swap_used_bytes"] == 1024 * 1024
    assert found["system"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["fastest_modes"] == []


def test_a_bare_tree_is_unknown_and_not_an_error(tmp_path):
    found = probe.describe(str(tmp_path), str(tmp_path))
    assert (found["cpu"], found["features"], found["model"]) == (os.uname().machine, [], None)
    assert found["cores"] >= 1
    assert (found["swap_used_bytes"], found["clusters"]) == (None, [])


@pytest.mark.parametrize(
    ("board", "clusters"),
    [
        ("pi5", [("Cortex-A76", [0, 1, 2, 3], 2400000)]),
        ("orin35", [("Cortex-A78AE", [0, 1, 2, 3, 5], 1510400)]),
        ("rk3588", [("Cortex-A76", [4, 5, 6, 7], 2304000), ("Cortex-A55", [0, 1, 2, 3], 1800000)]),
        ("laptop", [("Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", [0, 1, 2, 3], 4800000)]),
        ("vm", [("AMD EPYC", [0], None)]),
    ],
)
def test_cores_of_one_kind_are_together_and_the_fastest_first(board, clusters, tmp_path):
    found = probe.clusters(write(tmp_path, BOARDS[board]()))
    assert [(c["name"], c["cpus"], c["max_khz"]) for c in found] == clusters


def test_the_one_core_that_is_clocked_higher_is_a_cluster_of_its_own(tmp_path):
    files = {"proc/cpuinfo": arm(*[("0x41", "0xd05", V82)] * 2, *[("0x41", "0xd0d", V82)] * 2)}
    for n, capacity in enumerate((260, 260, 824, 1024)):
        files[f"sys/devices/system/cpu/cpu{n}/cpu_capacity"] = f"{capacity}\n"
    found = probe.clusters(write(tmp_path, files))
    assert [(c["name"], c["cpus"]) for c in found] == [
        ("Cortex-A77", [3]), ("Cortex-A77#2", [2]), ("Cortex-A55", [0, 1]),
    ]  # fmt: skip


def test_an_x86_processor_of_two_kinds_is_told_apart_by_the_kernels_names(tmp_path):
    more = {"sys/devices/cpu_core/cpus": "0-1\n", "sys/devices/cpu_atom/cpus": "2-3\n"}
    files = {**BOARDS["laptop"](), **more}
    files |= {f"sys/devices/system/cpu/cpufreq/policy{n}/cpuinfo_max_freq": "3800000\n" for n in (2, 3)}
    found = probe.clusters(write(tmp_path, files))
    assert [(c["name"], c["cpus"], c["max_khz"]) for c in found] == [
        ("core", [0, 1], 4800000), ("atom", [2, 3], 3800000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("modes", "fastest"),
    [
        ("15W 25W MAXN_SUPER", ("MAXN_SUPER",)),
        ("MAXN 5W", ("MAXN",)),
        ("15W 7W", ("15W",)),
        ("MODE_10W MODE_20W_6CORE MODE_20W_2CORE", ("MODE_20W_6CORE", "MODE_20W_2CORE")),
        ("", ()),
    ],
)
def test_the_power_mode_without_a_limit_is_known_by_its_name(modes, fastest):
    assert jetson.fastest(dict(enumerate(modes.split()))) == fastest


def test_who_took_the_cpu_is_named_by_what_the_kernel_counts(tmp_path):
    hertz = os.sysconf("SC_CLK_TCK")

    def look(**seconds: float) -> dict[int, probe.Process]:
        lines = {
            f"proc/{pid[1:]}/stat": f"{pid[1:]} (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 {int(s * hertz)} 0 0 0 20 0 1 0 99\n"
            for pid, s in seconds.items()
        }
        return probe.processes(write(tmp_path, lines))

    before = look(_10=1.0, _11=5.0, _12=0.0)
    after = look(_10=1.5, _11=5.05, _12=0.9, _13=7.0)
    assert probe.busiest(before, after, 1.0, own=12) == [{"name": "a (b) c", "pid": 10, "share": 0.5}]
    assert probe.busiest(before, after, 1.0, own=1) == []  # they are all children of it
    assert [b["pid"] for b in probe.busiest(before, after, 1.0, own=99)] == [12, 10]
    assert probe.busiest(before, after, 0.0, own=99) == []
    host = {**after, 20: probe.Process("agent", 10, 0.0)}  # on this machine, the command that asks is its parent
    assert [b["pid"] for b in probe.busiest(before, host, 1.0, own=20)] == [12]


def test_what_only_this_python_knows(tmp_path):
    found = probe.describe("/", str(tmp_path / "not" / "there"))
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["bits"] == 64
    assert found["free_bytes"] > 0
    assert found["machine"] == os.uname().machine


def test_two_kinds_of_core_are_both_named_and_only_common_features_count():
    found = cpu.parse(arm(*[("0x41", "0xd05", V82)] * 4, *[("0x41", "0xd0b", V82 + " sve")] * 4))
    assert found.name == "4x Cortex-A76 + 4x Cortex-A55"
    assert "sve" not in found.features
    assert "asimddp" in found.features


def test_an_old_32_bit_kernel_gives_the_core_once_at_the_end():
    text = "processor\t: 0\nBogoMIPS\t: 697.95\n\nprocessor\t: 1\nBogoMIPS\t: 697.95\n\n"
    text += "Features\t: half thumb neon vfpv4\nCPU implementer\t: 0x41\nCPU part\t: 0xc07\n\nHardware\t: BCM2709\n"
    assert cpu.parse(text)[:4] == ("Cortex-A7", ["half", "neon", "thumb", "vfpv4"], 2, "arm")


def test_a_core_that_nobody_listed_is_named_by_its_numbers():
    assert cpu.parse(arm(("0x41", "0xfff", V8))).name == "Arm core 0xfff"
    assert cpu.parse(arm(("0x77", "0x001", V8))).name == "0x77 core 0x001"


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine)


@pytest.mark.parametrize(
    ("header", "name", "machine", "word"),
    [
        (elf(62), "qemu-aarch64-static", "aarch64", "qemu-aarch64-static"),
        (elf(62), "anything", "aarch64", "x86-64"),
        (elf(183), "python3.11", "aarch64", ""),
        (elf(40), "python3.9", "aarch64", ""),  # a 32-bit system on a 64-bit kernel
        (elf(62), "python3", "x86_64", ""),
        (elf(3), "python3", "x86_64", ""),
        (elf(183), "rosetta", "x86_64", "AArch64"),
        (elf(62), "python3", "sparc64", ""),
        (b"", "", "aarch64", ""),
    ],
)
def test_the_program_behind_a_process_tells_an_emulator(header, name, machine, word):
    why = probe.foreign_program(header, name, machine)
    assert bool(why) == bool(word)
    assert word in why


def test_a_processor_that_cannot_be_this_machines_tells_too():
    x86 = "processor : 0\nvendor_id : GenuineIntel\nmodel name : Xeon\nflags : avx2\n"
    assert "x86" in probe.foreign_cpu(x86, "aarch64")
    assert probe.foreign_cpu(x86, "x86_64") == ""
    assert probe.foreign_cpu(arm(("0x41", "0xd08", V8)), "aarch64") == ""
    assert probe.foreign_cpu(arm(("0x41", "0xd08", V8)), "x86_64")
    assert "QEMU" in probe.foreign_cpu(x86.replace("Xeon", "QEMU TCG CPU version 2.5+"), "x86_64")
    assert probe.foreign_cpu("", "aarch64") == ""


def test_this_machine_is_what_it_says(agent):
    found = agent.ask("probe").head
    assert found["emulated"] is False
    assert found["emulated_why"] == ""
    assert {r["name"] for r in found["runtimes"]} >= {"onnxruntime", "ai-edge-litert"}
    assert "CPUExecutionProvider" in next(r for r in found["runtimes"] if r["name"] == "onnxruntime")["providers"]
    assert found["broken"] == []


def test_a_runtime_that_crashes_or_cannot_be_imported_is_reported_as_broken(start, tmp_path):
    bad = tmp_path / "bad"
    for package, text in (
        ("onnxruntime", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"),
        ("ai_edge_litert", "raise ImportError('libstdc++.so.6: cannot open shared object file')\n"),
    ):
        (bad / package).mkdir(parents=True)
        (bad / package / "__init__.py").write_text(text)
    package = Path(__file__).parents[2] / "agent"
    found = start(env={"PYTHONPATH": f"{package}{os.pathsep}{bad}"}).ask("probe").head
    why = {b["name"]: b["why"] for b in found["broken"]}
    assert set(why) == {"onnxruntime", "ai-edge-litert"}
    assert "SIGSEGV" in why["onnxruntime"]
    assert "libstdc++.so.6" in why["ai-edge-litert"]
    assert {r["name"] for r in found["runtimes"]} <= {"tflite-runtime"}
