"""Boards as their kernels show them, as files under a folder: names, labels and forms of the kernel's documents.

Raspberry Pi OS 12 (Pi 4, Pi 5), Jetson Linux 32.7 (Nano), 35.4 and 36.3 (Orin), the RK3588 boards' 5.10 kernel, a
laptop with an Intel processor, and a virtual machine that shows nothing but /proc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

_ARM_CORE = """processor\t: {n}
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
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"

Files = dict[str, str]


def write(folder: Path, files: Mapping[str, str]) -> str:
    """Write a tree; gives its root. A name that ends with a slash is a folder: a file that cannot be read."""
    for name, text in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o755)
    return str(folder)


def arm(*cores: tuple[str, str, str], tail: str = "") -> str:
    """/proc/cpuinfo of cores given as (implementer, part, features)."""
    blocks = [_ARM_CORE.format(n=i, maker=m, part=p, features=f) for i, (m, p, f) in enumerate(cores)]
    return "".join(blocks) + tail


def policy(first: int, cpus: str, governor: str, low: int, high: int, now: int) -> Files:
    """A cpufreq policy."""
    values = {
        "scaling_governor": governor, "scaling_cur_freq": now, "scaling_min_freq": low, "scaling_max_freq": high,
        "cpuinfo_min_freq": low, "cpuinfo_max_freq": high, "related_cpus": cpus,
        "scaling_available_governors": "conservative ondemand userspace powersave performance schedutil",
    }  # fmt: skip
    return {f"sys/devices/system/cpu/cpufreq/policy{first}/{k}": f"{v}\n" for k, v in values.items()}


def zones(**celsius: float) -> Files:
    """Thermal zones by their type (`_` for `-`)."""
    out: Files = {}
    for i, (kind, value) in enumerate(celsius.items()):
        out[f"sys/class/thermal/thermal_zone{i}/type"] = kind.replace("_", "-") + "\n"
        out[f"sys/class/thermal/thermal_zone{i}/temp"] = f"{int(value * 1000)}\n"
    return out


def coolers(**states: int) -> Files:
    """Cooling devices by their type (`_` for `-`), and their states."""
    out: Files = {}
    for i, (kind, state) in enumerate(states.items()):
        out[f"sys/class/thermal/cooling_device{i}/type"] = kind.replace("_", "-") + "\n"
        out[f"sys/class/thermal/cooling_device{i}/cur_state"] = f"{state}\n"
    return out


def devfreq(name: str, low: int, high: int, now: int) -> Files:
    """A devfreq device; in Hz."""
    values = {"min_freq": low, "max_freq": high, "cur_freq": now}
    return {f"sys/class/devfreq/{name}/{k}": f"{v}\n" for k, v in values.items()}


def stat(user: int, system: int, idle: int, iowait: int = 0, steal: int = 0, guest: int = 0) -> Files:
    """/proc/stat; in ticks."""
    return {"proc/stat": f"cpu  {user} 0 {system} {idle} {iowait} 0 0 {steal} {guest} 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"}


def _common(memory_kb: int) -> Files:
    return {
        "proc/meminfo": f"MemTotal:       {memory_kb:8} kB\nMemAvailable:    3100000 kB\nHugePages_Total:       0\n"
        "SwapTotal:        102396 kB\nSwapFree:         101372 kB\n",
        "proc/loadavg": "0.52 0.58 0.59 1/389 4321\n",
        "proc/vmstat": "nr_free_pages 512\npswpin 3\npswpout 259\npgfault 1\n",
        "proc/sys/kernel/random/boot_id": "6f1c7e0e-4b1c-4f55-9d3c-0a4f3b5a1c11\n",
        **stat(1000, 500, 8000, 200),
    }


def pi4() -> Files:
    tail = "Hardware\t: BCM2835\nRevision\t: c03114\nSerial\t\t: 100000001\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
    return {
        **_common(3885396),
        "proc/cpuinfo": arm(*[("0x41", "0xd08", V8)] * 4, tail=tail),
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "sys/devices/system/cpu/online": "0-3\n",
        **policy(0, "0 1 2 3", "ondemand", 600000, 1800000, 600000),
        **zones(cpu_thermal=48.199),
        FIRMWARE: "50000\n",
        "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }


def pi5() -> Files:
    """Without the firmware's file, which later kernels dropped: vcgencmd and the hwmon alarm tell."""
    return {
        **_common(8245868),
        "proc/cpuinfo": arm(*[("0x41", "0xd0b", V82)] * 4, tail="Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n"),
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "sys/devices/system/cpu/online": "0-3\n",
        **policy(0, "0 1 2 3", "ondemand", 1500000, 2400000, 1500000),
        **zones(cpu_thermal=52.35),
        **coolers(pwm_fan=1),
        "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
        "sys/class/hwmon/hwmon2/name": "rpi_volt\n",
        "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "0\n",
    }


def vcgencmd(bits: str) -> Files:
    """The program, which answers `bits` (`0x50005`) and counts how often it was asked."""
    script = f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 1\necho x >> "$0.asked"\necho "throttled={bits}"\n'
    return {"usr/bin/vcgencmd": script}


def orin(l4t: int = 36) -> Files:
    """Orin Nano of six cores, one of them off, in its 15 W mode."""
    older = l4t < 36
    heat = {"CPU_therm": 45.5, "GPU_therm": 44.0, "tj_therm": 45.5}
    newer = {"cpu_thermal": 45.5, "gpu_thermal": 44.0, "tj_thermal": 45.5}
    modes = "15W 7W" if older else "15W 25W MAXN_SUPER"
    conf = "".join(f"< POWER_MODEL ID={i} NAME={m} >\nCPU_ONLINE CORE_0 1\n" for i, m in enumerate(modes.split()))
    return {
        **_common(7802492),
        "proc/cpuinfo": arm(*[("0x41", "0xd42", V82)] * 5).replace("processor\t: 4", "processor\t: 5"),
        "sys/firmware/devicetree/base/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "sys/devices/system/cpu/online": "0-3,5\n",
        **policy(0, "0 1 2 3", "schedutil", 115200, 1510400, 729600),
        **policy(4, "4 5", "schedutil", 115200, 1510400, 1510400),
        **zones(**(heat if older else newer)),
        "sys/class/thermal/thermal_zone10/temp/": "",  # cv0: its power is off, and so it cannot be read
        **coolers(cpufreq_cpu0=0, pwm_fan=3, cpu_throttle_alert=0, gpu_throttle_alert=0),
        **devfreq("17000000.ga10b" if older else "17000000.gpu", 306000000, 624750000, 306000000),
        **devfreq("15340000.vic", 115200000, 601600000, 115200000),
        "sys/class/hwmon/hwmon1/name": "ina3221\n",
        "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
        "sys/class/hwmon/hwmon1/in1_input": "5040\n",
        "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
        "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
        "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
        "sys/class/hwmon/hwmon2/oc1_event_cnt": "2\n",
        "sys/class/hwmon/hwmon2/oc3_event_cnt": "1\n",
        "etc/nvpmodel.conf": "< PM_CONFIG DEFAULT=0 >\n" + conf,
        "var/lib/nvpmodel/status": "pmode:0000 fmode:quiet\n",
    }


def jetson_clocks() -> Files:
    """A jetson_clocks that stores, raises and restores the lowest clock of policy0 in the tree that it lies in."""
    script = """#!/bin/sh
cd "$(dirname "$0")/../.." || exit 1
low=sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq
case "$1" in
    --store) [ ! -e "$2" ] || { echo "File $2 already exists. Can I overwrite it? Y/N:"; exit 1; }; cp "$low" "$2" ;;
    --restore) [ -e "$2" ] || { echo "Error: $2 file not found !"; exit 1; }; cp "$2" "$low" ;;
    *) cp sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq "$low" ;;
esac
"""
    return {"usr/bin/jetson_clocks": script}


def nano() -> Files:
    """Jetson Nano with the last JetPack that it has, clocks held by jetson_clocks, in its 5 W mode."""
    return {
        **_common(4059712),
        "proc/cpuinfo": arm(*[("0x41", "0xd07", V8)] * 4),
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
        "sys/devices/system/cpu/online": "0-3\n",
        **policy(0, "0 1 2 3", "schedutil", 918000, 918000, 918000),
        **zones(AO_therm=41.0, CPU_therm=35.5, GPU_therm=34.0, PLL_therm=33.5, PMIC_Die=100.0),
        **coolers(thermal_cpufreq_0=0, pwm_fan=0),
        **devfreq("57000000.gpu", 640000000, 640000000, 640000000),
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n< PM_CONFIG DEFAULT=0 >\n",
        "var/lib/nvpmodel/status": "pmode:0001\n",
    }


def rk3588() -> Files:
    """Four Cortex-A55, and two pairs of Cortex-A76 of slightly different highest clocks."""
    capacities = {0: 530, 4: 1002, 6: 1024}
    capacity = {n: capacities[0 if n < 4 else n // 2 * 2] for n in range(8)}
    return {
        **_common(16252928),
        "proc/cpuinfo": arm(*[("0x41", "0xd05", V82)] * 4, *[("0x41", "0xd0b", V82)] * 4),
        "proc/device-tree/model": "Radxa ROCK 5B\0",
        "sys/devices/system/cpu/online": "0-7\n",
        **policy(0, "0 1 2 3", "interactive", 408000, 1800000, 1800000),
        **policy(4, "4 5", "interactive", 408000, 2256000, 2256000),
        **policy(6, "6 7", "interactive", 408000, 2304000, 408000),
        **{f"sys/devices/system/cpu/cpu{n}/cpu_capacity": f"{c}\n" for n, c in capacity.items()},
        **zones(soc_thermal=44.4, bigcore0_thermal=45.3, littlecore_thermal=44.4, gpu_thermal=43.4),
        **coolers(thermal_cpufreq_0=0, thermal_cpufreq_1=2, thermal_devfreq_0=0),
        **devfreq("dmc", 528000000, 2112000000, 528000000),
        **devfreq("fb000000.gpu", 300000000, 1000000000, 300000000),
        **devfreq("fdab0000.npu", 300000000, 1000000000, 1000000000),
    }


def laptop() -> Files:
    """Two cores of two threads each; each thread repeats the counts of its core and package."""
    files = _common(16254028)
    cpuinfo = ""
    for n in range(4):
        cpuinfo += f"processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-1185G7 @ 3.00GHz\n"
        cpuinfo += "flags\t\t: fpu sse2 AVX2 avx512_vnni\n\n"
        at = f"sys/devices/system/cpu/cpu{n}"
        files |= {
            f"{at}/topology/physical_package_id": "0\n", f"{at}/topology/core_id": f"{n % 2}\n",
            f"{at}/thermal_throttle/core_throttle_count": f"{n % 2}\n",
            f"{at}/thermal_throttle/package_throttle_count": "7\n",
            **policy(n, str(n), "powersave", 400000, 4800000, 2995212),
            f"sys/devices/system/cpu/cpufreq/policy{n}/scaling_available_governors": "performance powersave\n",
        }  # fmt: skip
    return {
        **files,
        "proc/cpuinfo": cpuinfo,
        "sys/class/dmi/id/sys_vendor": "LENOVO\n",
        "sys/class/dmi/id/product_name": "20XW\n",
        "sys/devices/system/cpu/online": "0-3\n",
        **coolers(Processor=0, intel_powerclamp=-1, TCC_Offset=9),
        "sys/class/hwmon/hwmon3/name": "coretemp\n",
        "sys/class/hwmon/hwmon3/temp1_input": "51000\n",
        "sys/class/hwmon/hwmon3/temp1_label": "Package id 0\n",
        "sys/class/powercap/intel-rapl:0/name": "package-0\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": "1234567\n",
    }


def vm() -> Files:
    """A virtual machine: no clocks, no temperatures, and a hypervisor that takes its share."""
    cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2\n\n"
    return {**_common(2014208), "proc/cpuinfo": cpuinfo, **stat(100, 50, 300, steal=50)}


BOARDS: dict[str, Callable[[], Files]] = {
    "pi4": pi4, "pi5": pi5, "orin35": lambda: orin(35), "orin36": orin, "nano": nano, "rk3588": rk3588,
    "laptop": laptop, "vm": vm,
}  # fmt: skip
