"""What the machine is: functions of a root folder, "/" on a device, so that recorded trees can be read too."""

from __future__ import annotations

import glob
import importlib.util
import os
import struct
import sys
from typing import Any, Dict, Optional

from edgelathe_agent import cpu
from edgelathe_agent.cas import free_bytes
from edgelathe_agent.sensors import number, read

#: e_machine of ELF (System V ABI) of programs that a processor runs by itself, by `uname -m`.
_NATIVE = {
    "aarch64": {183, 40}, "armv8l": {40}, "armv7l": {40}, "armv6l": {40},
    "x86_64": {62, 3}, "i686": {3}, "i386": {3}, "riscv64": {243},
}  # fmt: skip
_ELF_NAMES = {3: "x86", 40: "Arm", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 21: "POWER", 22: "S390"}
_FAMILY = {"aarch64": "arm", "armv8l": "arm", "armv7l": "arm", "armv6l": "arm", "x86_64": "x86", "i686": "x86"}
#: Names that an interpreting hypervisor or translator gives its processor in /proc/cpuinfo.
_MADE_UP = {"QEMU TCG": "QEMU without hardware help", "VirtualApple": "Apple's Rosetta"}


def describe(root: str, agent_root: str) -> Dict[str, Any]:
    """The fields of the verb `probe` that need no child. None: unknown."""
    uname = os.uname()
    found = cpu.parse(read(root, "proc/cpuinfo") or "")
    memory = _meminfo(root)
    return {
        "machine": uname.machine,
        "cpu": found.name or uname.machine,
        "features": found.features,
        "cores": _online(root) or found.cores or os.cpu_count() or 1,
        "memory_bytes": memory.get("MemTotal", 0),
        "memory_free_bytes": memory.get("MemAvailable"),
        "model": board(root) or found.board,
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}",
        "implementation": sys.implementation.name,
        "bits": struct.calcsize("P") * 8,
        "libc": libc(),
        "kernel": uname.release,
        "system": _system(root),
        "pip": importlib.util.find_spec("pip") is not None,
        "ensurepip": importlib.util.find_spec("ensurepip") is not None,
        "free_bytes": free_bytes(agent_root),
        "clusters": [],
        **clock(root),
    }


def board(root: str) -> Optional[str]:
    """The board's own name: the device tree's model, else maker and product of the firmware tables."""
    for path in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        name = read(root, path)
        if name:
            return name
    parts = [read(root, "sys/class/dmi/id", f) for f in ("sys_vendor", "product_name")]
    return " ".join(p for p in parts if p) or None


def clock(root: str) -> Dict[str, Any]:
    """`governor` and highest clock in kHz of the fastest CPU; None where the kernel does not scale clocks."""
    policies = glob.glob(os.path.join(root, "sys/devices/system/cpu/cpufreq/policy*"))
    policies = policies or glob.glob(os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    clocks = sorted((number(p, "cpuinfo_max_freq") or number(p, "scaling_max_freq") or 0, p) for p in policies)
    if not clocks:
        return {"governor": None, "clock_max_khz": None}
    khz, policy = clocks[-1]
    return {"governor": read(policy, "scaling_governor"), "clock_max_khz": khz or None}


def emulation(pid: int, root: str = "/") -> str:
    """Why this machine is emulated, "" when nothing says so. `pid`: a child of this process that runs Python.

    A user-mode emulator shows a process a made-up view of itself, but not of others: the program behind a child is
    the emulator, built for another processor than the one that `uname` names.
    """
    machine = os.uname().machine
    folder = os.path.join(root, "proc", str(pid), "exe")
    try:
        with open(folder, "rb") as f:
            header = f.read(20)
        name = os.path.basename(os.readlink(folder))
    except OSError:
        header, name = b"", ""
    return foreign_program(header, name, machine) or foreign_cpu(read(root, "proc/cpuinfo") or "", machine)


def foreign_program(header: bytes, name: str, machine: str) -> str:
    """Why a process on `machine` whose program has this ELF header and file name is emulated; "" if it need not be."""
    if name.startswith("qemu-"):
        return "programs run under {}".format(name.split(" ", maxsplit=1)[0])
    if header[:4] != b"\x7fELF" or len(header) < 20 or machine not in _NATIVE:
        return ""
    (kind,) = struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)
    if kind in _NATIVE[machine]:
        return ""
    processor = _ELF_NAMES.get(kind, f"ELF machine {kind}")
    return f"an {processor} processor runs the programs of this {machine}"


def foreign_cpu(cpuinfo: str, machine: str) -> str:
    """Why a processor of this description is no real `machine`; "" when it may be."""
    found = cpu.parse(cpuinfo)
    for sign, what in _MADE_UP.items():
        if sign in cpuinfo:
            return f"the processor is made up by {what}"
    if found.family and _FAMILY.get(machine, found.family) != found.family:
        return f"/proc/cpuinfo is that of an {found.family} processor, the machine is {machine}"
    return ""


def libc() -> Optional[str]:
    """`glibc 2.36`; None for a C library that does not tell (musl)."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None


def _meminfo(root: str) -> Dict[str, int]:
    """Bytes by field of /proc/meminfo, which counts in kB of 1024."""
    out = {}
    for line in (read(root, "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            out[key] = int(value.split()[0]) * 1024
    return out


def _online(root: str) -> int:
    """CPUs in a kernel list such as `0-3,6`."""
    total = 0
    for part in (read(root, "sys/devices/system/cpu/online") or "").split(","):
        first, _, last = part.partition("-")
        if first.strip().isdigit():
            total += int(last or first) - int(first) + 1
    return total


def _system(root: str) -> Optional[str]:
    for line in (read(root, "etc/os-release") or read(root, "usr/lib/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return None
