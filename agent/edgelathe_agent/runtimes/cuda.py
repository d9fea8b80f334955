"""NVIDIA's GPU through its own libraries, called by ctypes: they are there wherever CUDA runs, Python packages are not.

Sources: CUDA Driver API (cuDeviceGetName, cuDeviceGetAttribute), CUDA Runtime API (memory, streams, events), NVML API
(nvmlDeviceGetComputeRunningProcesses). Functions that take part here are the same from CUDA 10.2 on.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any, Dict, Iterable, Optional

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_CUDART = ("libcudart.so", *(f"libcudart.so.{v}" for v in ("13", "12", "11.0", "10.2")))
_FOLDERS = ("", "/usr/local/cuda/lib64/")
#: Lines of the memory map of Jetson's GPU: user, process, pid, size (nvmap's debugfs, readable by root alone).
_NVMAP = "/sys/kernel/debug/nvmap/iovmm/clients"


def library(names: Iterable[str], folders: Iterable[str] = ("",)) -> Optional[ctypes.CDLL]:
    """The first of these libraries that can be loaded."""
    for folder in folders:
        for name in names:
            try:
                return ctypes.CDLL(folder + name)
            except OSError:
                continue
    return None


def gpu(number: int = 0) -> Dict[str, str]:
    """{"name", "capability"} of a GPU, from its driver; {} where there is none."""
    lib = library(("libcuda.so.1",))
    device = c_int()
    if lib is None or lib.cuInit(0) or lib.cuDeviceGet(byref(device), number):
        return {}
    name = ctypes.create_string_buffer(256)
    major, minor = c_int(), c_int()
    lib.cuDeviceGetName(name, len(name), device)
    lib.cuDeviceGetAttribute(byref(major), _MAJOR, device)
    lib.cuDeviceGetAttribute(byref(minor), _MINOR, device)
    return {"name": name.value.decode(errors="replace"), "capability": f"{major.value}.{minor.value}"}


def memory_bytes(pid: int) -> Optional[int]:
    """GPU memory that a process holds; None where nothing tells."""
    try:
        with open(_NVMAP) as f:
            return nvmap(f.read(), pid)
    except OSError:
        return _nvml(pid)


def nvmap(text: str, pid: int) -> int:
    """Bytes of a process in the table of nvmap's clients, whose sizes end in K."""
    total = 0
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[2] == str(pid) and words[3].endswith("K"):
            total += int(words[3][:-1]) * 1024
    return total


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of NVML 11 and later."""

    _fields_ = (
        ("pid", c_uint), ("used", c_ulonglong), ("instance", c_uint), ("compute", c_uint),
    )  # fmt: skip


def _nvml(pid: int) -> Optional[int]:
    lib = library(("libnvidia-ml.so.1",))
    versions = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
    ask: Any = next((getattr(lib, v) for v in versions if hasattr(lib, v)), None)
    if lib is None or ask is None or lib.nvmlInit_v2():
        return None
    total: Optional[int] = None
    cards = c_uint()
    lib.nvmlDeviceGetCount_v2(byref(cards))
    for i in range(cards.value):
        card, many, found = c_void_p(), c_uint(256), (_Process * 256)()
        if lib.nvmlDeviceGetHandleByIndex_v2(i, byref(card)) or ask(card, byref(many), found):
            continue
        for process in found[: many.value]:
            if process.pid == pid and process.used != c_ulonglong(-1).value:
                total = (total or 0) + process.used
    lib.nvmlShutdown()
    return total


class Cuda:
    """Memory, one stream and events of the runtime library. Raises RuntimeError with its words when a call fails."""

    def __init__(self) -> None:
        lib = library(_CUDART, _FOLDERS)
        if lib is None:
            raise RuntimeError("libcudart is not there: TensorRT's Python module needs the CUDA runtime")
        self._lib: Any = lib
        lib.cudaGetErrorString.restype = c_char_p
        stream = c_void_p()
        self._call("cudaStreamCreate", byref(stream))
        self.stream = int(stream.value or 0)

    def device(self, size: int) -> int:
        """Address of that many bytes on the GPU."""
        return self._address("cudaMalloc", size)

    def host(self, size: int) -> int:
        """Address of that many bytes that are locked in memory, which copies need to be fast."""
        return self._address("cudaMallocHost", size)

    def free(self, device: int, host: int) -> None:
        """Give both back."""
        self._call("cudaFree", c_void_p(device))
        self._call("cudaFreeHost", c_void_p(host))

    def copy_in(self, device: int, host: int, size: int) -> None:
        """Start a copy to the GPU."""
        self._copy(device, host, size, _TO_DEVICE)

    def copy_out(self, device: int, host: int, size: int) -> None:
        """Start a copy from the GPU."""
        self._copy(host, device, size, _TO_HOST)

    def wait(self) -> None:
        """All that was started is done."""
        self._call("cudaStreamSynchronize", c_void_p(self.stream))

    def event(self) -> Any:
        """Something to mark a point in the stream with."""
        made = c_void_p()
        self._call("cudaEventCreate", byref(made))
        return made

    def mark(self, event: Any) -> None:
        """This point in the stream."""
        self._call("cudaEventRecord", event, c_void_p(self.stream))

    def between_ns(self, first: Any, last: Any) -> int:
        """Nanoseconds between two marks that have passed."""
        ms = c_float()
        self._call("cudaEventElapsedTime", byref(ms), first, last)
        return int(ms.value * 1e6)

    def _address(self, name: str, size: int) -> int:
        at = c_void_p()
        self._call(name, byref(at), c_size_t(max(1, size)))
        return int(at.value or 0)

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync", c_void_p(to), c_void_p(source), c_size_t(size), c_int(kind), c_void_p(self.stream)
        )

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code:
            words = self._lib.cudaGetErrorString(code) or b""
            raise RuntimeError(f"{name}: {words.decode(errors='replace')} ({code})")


def own_memory() -> Optional[int]:
    """GPU memory of this process."""
    return memory_bytes(os.getpid())
