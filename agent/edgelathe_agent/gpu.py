"""The clock of the GPU: of one on the chip by devfreq, of one on a card by NVIDIA's management library.

Sources: ABI sysfs-class-devfreq; NVIDIA, NVML API reference (the structure of nvml.h has been the same since 2014).
`nvidia-smi` gives the same figures, but takes tens of milliseconds for each answer, which blocks of 100 ms would feel.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, NamedTuple, Optional

from edgelathe_agent.kernel import listed, number, read

#: What the device tree calls a GPU: `gpu` (Devicetree Specification, 2.2.2), `mali`, or NVIDIA's chips (gv11b, ga10b).
_GPU = re.compile(r"gpu|mali|adreno|(^|[.-])g[a-z]\d\d[a-z]")
#: Reasons that slow a GPU beyond what was asked for (nvml.h, nvmlClocksEventReasons).
_REASONS = {
    0x04: "GPU at its power cap", 0x08: "GPU slowed by hardware", 0x20: "GPU too hot",
    0x40: "GPU too hot (hardware)", 0x80: "GPU power brake",
}  # fmt: skip
_GRAPHICS, _TEMPERATURE = 0, 0


class State(NamedTuple):
    """`khz`: the highest clock of all GPUs; `why`: what slows one now, None: nothing tells."""

    khz: Optional[int]
    temperatures: Dict[str, float]
    why: Optional[List[str]]


def folder(root: str) -> str:
    """The devfreq folder of the GPU on the chip; "" where there is none."""
    for path in listed(root, "sys/class/devfreq/*"):
        names = [os.path.basename(path), read(path, "name"), read(path, "device/of_node/name")]
        if any(named(name) for name in names if name):
            return path
    return ""


def named(text: str) -> bool:
    """Whether a name of the kernel's is that of a GPU."""
    return bool(_GPU.search(text.lower()))


def khz(devfreq: str) -> Optional[int]:
    """Its clock now; devfreq counts in Hz."""
    hz = number(devfreq, "cur_freq") if devfreq else None
    return None if hz is None else hz // 1000


def locked(devfreq: str) -> Optional[bool]:
    """Whether its lowest and highest clocks are the same."""
    low, high = number(devfreq, "min_freq"), number(devfreq, "max_freq")
    return None if low is None or high is None else low == high


class Cards:
    """NVIDIA's GPUs on cards. Raises OSError where the library or the driver is not there."""

    def __init__(self, library: Any = None) -> None:
        import ctypes

        self._c = ctypes
        self._lib = library or ctypes.CDLL("libnvidia-ml.so.1")
        if self._lib.nvmlInit_v2():
            raise OSError("the driver does not answer")
        many = ctypes.c_uint()
        self._lib.nvmlDeviceGetCount_v2(ctypes.byref(many))
        self._cards: List[Any] = []
        for i in range(many.value):
            card = ctypes.c_void_p()
            if not self._lib.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(card)):
                self._cards.append(card)

    def state(self) -> State:
        """What all of them answer now; what a card does not support is left out."""
        clocks: List[int] = []
        temperatures: Dict[str, float] = {}
        why: List[str] = []
        told = False
        for i, card in enumerate(self._cards):
            mhz = self._uint("nvmlDeviceGetClockInfo", card, _GRAPHICS)
            celsius = self._uint("nvmlDeviceGetTemperature", card, _TEMPERATURE)
            if mhz is not None:
                clocks.append(mhz * 1000)
            if celsius is not None:
                temperatures[f"gpu{i}"] = float(celsius)
            bits = self._c.c_ulonglong()
            if not self._lib.nvmlDeviceGetCurrentClocksThrottleReasons(card, self._c.byref(bits)):
                told = True
                why += [text for bit, text in _REASONS.items() if bits.value & bit]
        return State(max(clocks, default=None), temperatures, list(dict.fromkeys(why)) if told else None)

    def _uint(self, name: str, card: Any, kind: int) -> Optional[int]:
        value = self._c.c_uint()
        return None if getattr(self._lib, name)(card, kind, self._c.byref(value)) else value.value


_opened: List[Optional[Cards]] = []


def cards(root: str) -> Optional[Cards]:
    """NVIDIA's GPUs of this machine, opened once; None where there is no driver of theirs."""
    if not _opened and root == "/" and os.path.exists("/dev/nvidiactl"):
        try:
            _opened.append(Cards())
        except (OSError, AttributeError, ImportError):
            _opened.append(None)
    return _opened[0] if _opened and root == "/" else None
