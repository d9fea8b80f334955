"""What /proc/cpuinfo says: the names of cores and their features, for x86 and Arm."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple

#: Names by implementer and part of the main ID register, as arch/arm64/include/asm/cputype.h of Linux and the Arm
#: documents on MIDR_EL1 list them.
CORES: Dict[int, Dict[int, str]] = {
    0x41: {
        0xB76: "ARM1176", 0xC05: "Cortex-A5", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9",
        0xC0D: "Cortex-A17", 0xC0E: "Cortex-A17", 0xC0F: "Cortex-A15", 0xD01: "Cortex-A32", 0xD02: "Cortex-A34",
        0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD06: "Cortex-A65", 0xD07: "Cortex-A57",
        0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1",
        0xD0D: "Cortex-A77", 0xD0E: "Cortex-A76AE", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE",
        0xD43: "Cortex-A65AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2",
        0xD49: "Neoverse-N2", 0xD4A: "Neoverse-E1", 0xD4B: "Cortex-A78C", 0xD4C: "Cortex-X1C", 0xD4D: "Cortex-A715",
        0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4",
        0xD83: "Neoverse-V3AE", 0xD84: "Neoverse-V3", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725",
        0xD88: "Cortex-A520AE", 0xD89: "Cortex-A720AE", 0xD8E: "Neoverse-N3",
    },
    0x4E: {
        0x000: "Denver", 0x003: "Denver 2", 0x004: "Carmel",
    },
    0x51: {
        0x800: "Kryo 2xx Gold", 0x801: "Kryo 2xx Silver", 0x802: "Kryo 3xx Gold", 0x803: "Kryo 3xx Silver",
        0x804: "Kryo 4xx Gold", 0x805: "Kryo 4xx Silver", 0xC00: "Falkor", 0x001: "Oryon",
    },
    0x48: {
        0xD01: "TaiShan V110",
    },
    0xC0: {
        0xAC3: "Ampere-1",
    },
    0x61: {
        0x022: "Icestorm", 0x023: "Firestorm",
    },
}  # fmt: skip
_IMPLEMENTERS = {
    0x41: "Arm", 0x42: "Broadcom", 0x43: "Cavium", 0x46: "Fujitsu", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x50: "APM",
    0x51: "Qualcomm", 0x53: "Samsung", 0x61: "Apple", 0x69: "Intel", 0xC0: "Ampere",
}  # fmt: skip


class Cpu(NamedTuple):
    """`name` of the cores (`Cortex-A72`, or `4x Cortex-A76 + 4x Cortex-A55`), lower-case `features` that all of them
    have, number of `cores` listed, and the instruction set (`x86`, `arm`) whose form the text has; None: neither."""

    name: str
    features: List[str]
    cores: int
    family: Optional[str]
    board: Optional[str]


def parse(text: str) -> Cpu:
    """The processors in the text of /proc/cpuinfo."""
    cores, common = _blocks(text)
    family = "arm" if any("CPU part" in c for c in cores) else "x86" if any("vendor_id" in c for c in cores) else None
    names = [_name(c) for c in cores]
    sets = [set((c.get("flags") or c.get("Features") or "").lower().split()) for c in cores]
    features = sorted(set.intersection(*sets)) if sets else []
    counted = [(names.count(n), n) for n in dict.fromkeys(names)]
    if len(counted) > 1:
        # The strongest come last in the kernel's numbering; they are what a model runs on, so they are named first.
        name = " + ".join(f"{n}x {core}" for n, core in reversed(counted))
    else:
        name = counted[0][1] if counted else common.get("model name", "")
    return Cpu(name, features, len(cores), family, common.get("Model"))


def names(text: str) -> Dict[int, str]:
    """The name of each CPU that is online, by its number."""
    cores, _ = _blocks(text)
    return {int(c["processor"]): _name(c) for c in cores if c["processor"].isdigit()}


def _blocks(text: str) -> Tuple[List[Dict[str, str]], Dict[str, str]]:
    """Fields of each processor, and those for all: old 32-bit kernels give the Arm fields once, at the end."""
    cores: List[Dict[str, str]] = []
    common: Dict[str, str] = {}
    for block in text.replace("\r", "").split("\n\n"):
        fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in block.splitlines()) if k.strip()}
        if "processor" in fields:
            cores.append(fields)
        else:
            common.update(fields)
    common.update({k: c[k] for c in cores for k in ("Model", "Hardware") if k in c})
    return [{**common, **c} for c in cores], common


def _name(core: Dict[str, str]) -> str:
    try:
        implementer, part = int(core["CPU implementer"], 16), int(core["CPU part"], 16)
    except (KeyError, ValueError):
        return core.get("model name") or core.get("uarch") or core.get("isa") or ""
    maker = _IMPLEMENTERS.get(implementer, f"0x{implementer:02x}")
    return CORES.get(implementer, {}).get(part, f"{maker} core 0x{part:03x}")
