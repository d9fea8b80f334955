"""The power mode of a Jetson, from what its nvpmodel keeps (Jetson Linux guide, "nvpmodel")."""

from __future__ import annotations

import os
import re
from typing import Dict, Optional, Tuple

from edgelathe_agent.kernel import read, said

_STATUS = "var/lib/nvpmodel/status"
_PROGRAM = "usr/sbin/nvpmodel"
#: Modes change by hand only.
_SECONDS = 10.0


def modes(root: str) -> Dict[int, str]:
    """Names of the power modes by number, from nvpmodel's own table."""
    text = read(root, "etc/nvpmodel.conf") or ""
    return {int(n): name for n, name in re.findall(r"POWER_MODEL\s[^>]*?ID=(\d+)\s+NAME=(\S+)", text)}


def mode(root: str, names: Dict[int, str]) -> Optional[str]:
    """The mode by its name, as nvpmodel noted it (`pmode:0002 fmode:quiet`), else as `nvpmodel -q` says; None: none."""
    noted = re.search(r"pmode:(\d+)", read(root, _STATUS) or "")
    if noted:
        number = int(noted.group(1))
        return names.get(number, f"mode {number}")
    program = os.path.join(root, _PROGRAM)
    if not os.access(program, os.X_OK):
        return None
    told = re.search(r"NV Power Mode:\s*(\S+)", said([program, "-q"], _SECONDS) or "")
    return told.group(1) if told else None


def fastest(names: Dict[int, str]) -> Tuple[str, ...]:
    """Modes without a limit: those named MAXN, of which SUPER ones are above; else the one of the most watts."""
    unlimited = [n for n in names.values() if n.upper().startswith("MAXN")]
    if unlimited:
        return tuple([n for n in unlimited if "SUPER" in n.upper()] or unlimited)
    watts = {n: int(w.group(1)) for n in names.values() for w in [re.match(r"(?:MODE_)?(\d+)W", n)] if w}
    most = max(watts.values(), default=0)
    return tuple(n for n, w in watts.items() if w == most)
