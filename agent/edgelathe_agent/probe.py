"""What the machine is: functions of a root folder, "/" on a device, so that recorded trees can be read too."""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edgelathe_agent import cpu, jetson
from edgelathe_agent.cas import free_bytes
from edgelathe_agent.kernel import cpus, number, read
from edgelathe_agent.sensors import policies

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
        "cores": len(cpus(read(root, "sys/devices/system/cpu/online"))) or found.cores or os.cpu_count() or 1,
        "memory_bytes": memory.get("MemTotal", 0),
        "memory_free_bytes": memory.get("MemAvailable"),
        "swap_used_bytes": memory["SwapTotal"] - memory["SwapFree"]
        if {"SwapTotal", "SwapFree"} <= set(memory)
        else None,
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
        "clusters": clusters(root),
        "fastest_modes": list(jetson.fastest(jetson.modes(root))),
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
    clocks = sorted((_max_khz(folder), folder) for _, folder in policies(root))
    if not clocks:
        return {"governor": None, "clock_max_khz": None}
    khz, policy = clocks[-1]
    return {"governor": read(policy, "scaling_governor"), "clock_max_khz": khz or None}


def clusters(root: str) -> List[Dict[str, Any]]:
    """Cores of one kind together, fastest first: [{"name", "cpus", "max_khz"}]; max_khz None: unknown.

    Of one kind are those of one name (an x86 processor of two kinds is told apart by the kernel's cpu_core and
    cpu_atom) whose capacities (ABI sysfs-devices-system-cpu, cpu_capacity), else highest clocks, are within a tenth:
    some chips have one core of a kind that is clocked higher. The second cluster of one name is NAME#2.
    """
    names = cpu.names(read(root, "proc/cpuinfo") or "")
    for kind in ("core", "atom"):
        names.update(dict.fromkeys(cpus(read(root, f"sys/devices/cpu_{kind}/cpus")), kind))
    clocks = {n: _max_khz(f) for name, f in policies(root) for n in cpus(read(f, "related_cpus")) or [int(name[3:])]}
    rows = []
    for n, name in names.items():
        khz = clocks.get(n, 0)
        rows.append((name, number(root, f"sys/devices/system/cpu/cpu{n}/cpu_capacity") or khz, khz, n))
    rows.sort(key=lambda row: (row[0], -row[1], row[3]))
    groups: List[List[Tuple[str, int, int, int]]] = []
    for row in rows:
        same = groups and groups[-1][0][0] == row[0] and row[1] >= 0.9 * groups[-1][0][1]
        if same:
            groups[-1].append(row)
        else:
            groups.append([row])
    groups.sort(key=lambda group: (-group[0][1], -group[0][2], group[0][3]))
    out: List[Dict[str, Any]] = []
    for group in groups:
        name = group[0][0] or os.uname().machine
        taken = sum(c["name"].split("#")[0] == name for c in out)
        khz = max(row[2] for row in group)
        label = f"{name}#{taken + 1}" if taken else name
        out.append({"name": label, "cpus": sorted(row[3] for row in group), "max_khz": khz or None})
    return out


class Process(NamedTuple):
    """CPU time that a process has used, in seconds."""

    name: str
    parent: int
    seconds: float


def processes(root: str) -> Dict[int, Process]:
    """All processes by number (proc(5), /proc/PID/stat)."""
    hertz = os.sysconf("SC_CLK_TCK")
    out: Dict[int, Process] = {}
    for pid in filter(str.isdigit, os.listdir(os.path.join(root, "proc"))):
        head, _, tail = (read(root, "proc", pid, "stat") or "").rpartition(")")
        fields = tail.split()
        if len(fields) > 12:
            used = (int(fields[11]) + int(fields[12])) / hertz
            out[int(pid)] = Process(head.partition("(")[2], int(fields[1]), used)
    return out


def busiest(before: Dict[int, Process], after: Dict[int, Process], seconds: float, own: int) -> List[Dict[str, Any]]:
    """The three processes that took the most of a CPU in between, 10% at least; not `own`, its parent and children."""
    ours = {own, *([after[own].parent] if own in after else [])}
    shares = {
        pid: (now.seconds - before[pid].seconds) / seconds
        for pid, now in after.items()
        if seconds > 0 and pid in before and pid not in ours and now.parent != own
    }
    first = sorted((pid for pid in shares if shares[pid] >= 0.1), key=lambda pid: -shares[pid])[:3]
    return [{"name": after[pid].name, "pid": pid, "share": round(shares[pid], 2)} for pid in first]


def _max_khz(policy: str) -> int:
    return number(policy, "cpuinfo_max_freq") or number(policy, "scaling_max_freq") or 0


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


def _system(root: str) -> Optional[str]:
    for line in (read(root, "etc/os-release") or read(root, "usr/lib/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return None
