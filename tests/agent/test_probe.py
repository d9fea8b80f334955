"""Trees as the kernel shows them, written from its documentation (Documentation/ABI, arch/arm64 cpuinfo.c)."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from edgelathe_agent import cpu, probe, sensors

ARM_CORE = """processor\t: {n}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: {maker}
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
V8 = "fp asimd evtstrm crc32 cpuid"
V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


def arm(*cores: tuple[str, str, str], tail: str = "") -> str:
    blocks = [ARM_CORE.format(n=i, maker=m, part=p, features=f) for i, (m, p, f) in enumerate(cores)]
    return "".join(blocks) + tail


def tree(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


@pytest.fixture
def pi4(tmp_path) -> str:
    tail = "Hardware\t: BCM2835\nRevision\t: c03114\nSerial\t\t: 100000001\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
    return tree(tmp_path / "pi4", {
        "proc/cpuinfo": arm(*[("0x41", "0xd08", V8)] * 4, tail=tail),
        "proc/meminfo": "MemTotal:        3885396 kB\nMemAvailable:    3100000 kB\nHugePages_Total:       0\n",
        "proc/loadavg": "0.52 0.58 0.59 1/389 4321\n",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "sys/devices/system/cpu/online": "0-3\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "600000\n",
        "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1800000\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48199\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
        "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    })  # fmt: skip


@pytest.fixture
def orin(tmp_path) -> str:
    files = {
        "proc/cpuinfo": arm(*[("0x41", "0xd42", V82)] * 6),
        "proc/meminfo": "MemTotal:        7802492 kB\n",
        "sys/firmware/devicetree/base/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "sys/devices/system/cpu/online": "0-3,5\n",
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
        "sys/class/thermal/cooling_device0/cur_state": "0\n",
        "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device1/cur_state": "3\n",
        "sys/class/hwmon/hwmon1/name": "ina3221\n",
        "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
        "sys/class/hwmon/hwmon1/in1_input": "5040\n",
        "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
        "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
        "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
        "sys/class/hwmon/hwmon2/oc1_event_cnt": "2\n",
        "sys/class/hwmon/hwmon2/oc3_event_cnt": "1\n",
    }
    for i, (name, temp) in enumerate({"cpu-thermal": "45500", "gpu-thermal": "44000", "tj-thermal": "45500"}.items()):
        files[f"sys/class/thermal/thermal_zone{i}/type"] = name + "\n"
        files[f"sys/class/thermal/thermal_zone{i}/temp"] = temp + "\n"
    (tmp_path / "orin" / "sys/class/thermal/thermal_zone10/temp").mkdir(parents=True)  # a zone that cannot be read
    for i, khz in {0: 729600, 4: 1510400}.items():
        files[f"sys/devices/system/cpu/cpufreq/policy{i}/scaling_cur_freq"] = f"{khz}\n"
        files[f"sys/devices/system/cpu/cpufreq/policy{i}/scaling_max_freq"] = "1510400\n"
        files[f"sys/devices/system/cpu/cpufreq/policy{i}/scaling_governor"] = "schedutil\n"
    return tree(tmp_path / "orin", files)


@pytest.fixture
def laptop(tmp_path) -> str:
    core = "processor\t: {}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-1185G7 @ 3.00GHz\n"
    core += "flags\t\t: fpu sse2 AVX2 avx512_vnni\n\n"
    files = {
        "proc/cpuinfo": core.format(0) + core.format(1),
        "sys/class/dmi/id/sys_vendor": "LENOVO\n",
        "sys/class/dmi/id/product_name": "20XW\n",
        "sys/class/hwmon/hwmon3/name": "coretemp\n",
        "sys/class/hwmon/hwmon3/temp1_input": "51000\n",
        "sys/class/hwmon/hwmon3/temp1_label": "Package id 0\n",
        "sys/class/powercap/intel-rapl:0/name": "package-0\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": "1234567\n",
    }
    for i in range(2):
        files[f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq"] = "2995212\n"
        files[f"sys/devices/system/cpu/cpu{i}/thermal_throttle/core_throttle_count"] = f"{i}\n"
        files[f"sys/devices/system/cpu/cpu{i}/thermal_throttle/package_throttle_count"] = "7\n"
    return tree(tmp_path / "laptop", files)


def test_a_raspberry_pi_4(pi4, tmp_path):
    found = probe.describe(pi4, str(tmp_path))
    assert (found["cpu"], found["cores"], found["model"]) == ("Cortex-A72", 4, "Raspberry Pi 4 Model B Rev 1.4")
    assert found["features"] == sorted(V8.split())
    assert found["memory_bytes"] == 3885396 * 1024
    assert found["memory_free_bytes"] == 3100000 * 1024
    assert (found["governor"], found["clock_max_khz"]) == ("ondemand", 1800000)
    assert found["system"] == "Debian GNU/Linux 12 (bookworm)"
    assert sensors.sense(pi4) == {
        "clocks_khz": {"cpu0": 600000}, "temperatures_c": {"cpu-thermal": 48.199}, "load1": 0.52,
        "throttled": False, "throttle_count": None,
    }  # fmt: skip


@pytest.mark.parametrize(("bits", "now"), [("0", False), ("50000", False), ("50005", True), ("8", True), ("", None)])
def test_a_raspberry_pi_says_whether_it_is_throttled_now_or_was(pi4, bits, now):
    Path(pi4, "sys/devices/platform/soc/soc:firmware/get_throttled").write_text(bits)
    assert sensors.throttled(pi4) is now


def test_a_jetson_orin(orin, tmp_path):
    found = probe.describe(orin, str(tmp_path))
    assert (found["cpu"], found["cores"]) == ("Cortex-A78AE", 5)
    assert found["model"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert "asimddp" in found["features"]
    assert (found["governor"], found["clock_max_khz"]) == ("schedutil", 1510400)
    now = sensors.sense(orin)
    assert now["clocks_khz"] == {"cpu0": 729600, "cpu4": 1510400}
    assert now["temperatures_c"] == {"cpu-thermal": 45.5, "gpu-thermal": 44.0, "tj-thermal": 45.5}
    assert (now["throttled"], now["throttle_count"], now["load1"]) == (False, 3, None)
    Path(orin, "sys/class/thermal/cooling_device0/cur_state").write_text("4\n")
    assert sensors.throttled(orin) is True
    kinds = [(s["kind"], s["label"]) for s in sensors.found(orin)]
    assert kinds.count(("power", "VDD_IN")) == 1
    assert ("power", "sum of shunt voltages") not in kinds


def test_an_x86_laptop(laptop, tmp_path):
    found = probe.describe(laptop, str(tmp_path))
    assert (found["cpu"], found["cores"]) == ("Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", 2)
    assert found["features"] == ["avx2", "avx512_vnni", "fpu", "sse2"]
    assert (found["model"], found["governor"], found["memory_bytes"]) == ("LENOVO 20XW", None, 0)
    now = sensors.sense(laptop)
    assert now["clocks_khz"] == {"cpu0": 2995212, "cpu1": 2995212}
    assert now["temperatures_c"] == {"Package id 0": 51.0}
    assert (now["throttled"], now["throttle_count"]) == (None, 15)
    assert ("energy", "package-0") in [(s["kind"], s["label"]) for s in sensors.found(laptop)]


def test_a_bare_tree_is_unknown_and_not_an_error(tmp_path):
    found = probe.describe(str(tmp_path), str(tmp_path))
    assert (found["cpu"], found["features"], found["model"]) == (os.uname().machine, [], None)
    assert found["cores"] >= 1
    assert sensors.sense(str(tmp_path)) == {
        "clocks_khz": {}, "temperatures_c": {}, "load1": None, "throttled": None, "throttle_count": None,
    }  # fmt: skip
    assert sensors.found(str(tmp_path)) == []


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


def test_zones_of_one_name_are_told_apart(tmp_path):
    files = {f"sys/class/thermal/thermal_zone{i}/type": "soc" for i in (0, 2, 10)}
    files |= {f"sys/class/thermal/thermal_zone{i}/temp": str(1000 * i) for i in (0, 2, 10)}
    assert sensors.sense(tree(tmp_path, files))["temperatures_c"] == {"soc": 0.0, "soc#2": 2.0, "soc#3": 10.0}


def test_conditions_tell_throttling_between_two_looks():
    def look(throttled, count):
        return {"throttled": throttled, "throttle_count": count}

    assert sensors.conditions(look(None, 3), look(None, 4))["throttled"] is True
    assert sensors.conditions(look(None, 3), look(None, 3))["throttled"] is False
    assert sensors.conditions(look(False, None), look(True, None))["throttled"] is True
    assert sensors.conditions(look(None, None), look(None, None))["throttled"] is None


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
