"""The parts of an Arm board that qemu does not make: /proc/cpuinfo and /sys, as the kernel's documents lay them out.

Documentation/ABI/testing/sysfs-devices-system-cpu, admin-guide/pm/cpufreq.rst, driver-api/thermal/sysfs-api.rst.
"""

from __future__ import annotations

from pathlib import Path

MODEL, COMPATIBLE = "Edgelathe test board", "edgelathe,test-board\0arm,cortex-a72\0"
CELSIUS, KHZ, MIN_KHZ, MAX_KHZ = 48.5, 1_200_000, 600_000, 1_500_000


def cpuinfo(cpus: int) -> str:
    """`cpus` cores of a Cortex-A72 r0p3, as arch/arm64/kernel/cpuinfo.c prints them."""
    return "".join(
        f"processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
        for n in range(cpus)
    )


def sysfs(folder: Path, cpus: int) -> None:
    """A tree for `folder` as /sys: processors with one clock, a thermal zone, a cooling device and a device tree."""
    listed, every = f"0-{cpus - 1}" if cpus > 1 else "0", " ".join(map(str, range(cpus)))
    files = {
        **dict.fromkeys([f"devices/system/cpu/{n}" for n in ("possible", "present", "online")], listed),
        "devices/system/cpu/kernel_max": str(cpus - 1),
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": str(round(1000 * CELSIUS)),
        "class/thermal/cooling_device0/type": "cpufreq-cpu0",
        "class/thermal/cooling_device0/cur_state": "0",
        "class/thermal/cooling_device0/max_state": "3",
    }
    policy = {
        "affected_cpus": every, "related_cpus": every, "scaling_driver": "cpufreq-dt", "scaling_governor": "ondemand",
        "scaling_available_governors": "ondemand performance powersave", "scaling_cur_freq": KHZ,
        "scaling_min_freq": MIN_KHZ, "scaling_max_freq": MAX_KHZ, "cpuinfo_min_freq": MIN_KHZ,
        "cpuinfo_max_freq": MAX_KHZ,
    }  # fmt: skip
    files |= {f"devices/system/cpu/cpufreq/policy0/{name}": str(value) for name, value in policy.items()}
    for n in range(cpus):
        topology = {"core_id": n, "physical_package_id": 0, "core_siblings_list": listed, "thread_siblings_list": n}
        files |= {f"devices/system/cpu/cpu{n}/topology/{name}": str(value) for name, value in topology.items()}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    for n in range(cpus):
        (folder / f"devices/system/cpu/cpu{n}/cpufreq").symlink_to("../cpufreq/policy0")
    tree = folder / "firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "model").write_text(MODEL + "\0")
    (tree / "compatible").write_text(COMPATIBLE)
