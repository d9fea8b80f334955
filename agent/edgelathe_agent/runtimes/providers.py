"""What ONNX Runtime's execution providers are started with: their options, threads, and where engines are kept.

Sources: the pages of the XNNPACK, CUDA and TensorRT providers, onnxruntime.ai/docs/execution-providers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from edgelathe_agent import engines, progress
from edgelathe_agent.protocol import AgentError

CPU, XNNPACK = "CPUExecutionProvider", "XnnpackExecutionProvider"
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

#: Options of the providers that ignore one they do not know; the others refuse it in words of their own.
_KNOWN: Dict[str, Tuple[str, ...]] = {CPU: (), XNNPACK: ("intra_op_num_threads",)}
#: Options of TensorRT that name files to be written, which is the agent's to decide.
_OURS = ("trt_engine_cache_path", "trt_timing_cache_path", "trt_ep_context_file_path")
#: What matters in ONNX Runtime's errors (1.31), which name places in its source before and after it.
_SAID = re.compile(r'CUDA failure \d+: [^;]*|Unknown provider option: "[^"]*"|Failed to parse provider option "[^"]*"')
_SPINNING = "session.intra_op.allow_spinning"


class Plan(NamedTuple):
    """How a session is made: (provider, options) in order, its threads and entries, the folder of its engines."""

    chain: List[Tuple[str, Dict[str, str]]]
    threads: int
    entries: Dict[str, str]
    engines: str = ""
    before: Optional[Dict[str, int]] = None

    def build_ms(self, ms: float) -> float:
        """The time that making the session took, if it built an engine; 0 where it found one."""
        return ms if engines.stamps(self.engines, ".engine") != self.before else 0.0

    def refused(self, words: str) -> bool:
        """Whether an error says that one of our provider options is unknown or has a bad value."""
        mine = [name for _, options in self.chain for name in options]
        told = any(word in words for word in ("option", "should be", "must be", "Failed to parse", "Failed to map"))
        return "provider option" in words.lower() or (told and any(name in words for name in mine))


def check(provider: str, options: Dict[str, str]) -> None:
    """Raises AgentError("request") for an option that the provider does not know and would ignore."""
    unknown = sorted(set(options) - set(_KNOWN[provider])) if provider in _KNOWN else []
    if unknown:
        there = ", ".join(_KNOWN[provider])
        raise AgentError(
            "request", f"{provider} has no option {unknown[0]!r}", f"it has {there}" if there else "leave it out"
        )


def plan(provider: str, threads: int, options: Dict[str, str], path: str, root: str, version: str) -> Plan:
    """For a model file at `path`, named by its sha256. Raises AgentError("request") as `check`, or for a path."""
    check(provider, options)
    if provider == CPU:
        return Plan([(CPU, {})], threads, {})
    if provider == XNNPACK:
        # It has threads of its own: those of the session would stand in their way (recommended configuration there).
        own = {"intra_op_num_threads": str(threads), **options}
        return Plan([(XNNPACK, own), (CPU, {})], 1, {_SPINNING: "0"})
    if provider == TENSORRT:
        return _tensorrt(threads, options, path, root, version)
    return Plan([(provider, dict(options)), (CPU, {})], threads, {})


def _tensorrt(threads: int, options: Dict[str, str], path: str, root: str, version: str) -> Plan:
    """CUDA takes what TensorRT does not; engines are kept for the next session."""
    for name in _OURS:
        if name in options:
            raise AgentError("request", f"{TENSORRT}: {name} is the agent's to choose", "leave it out")
    from edgelathe_agent.runtimes import cuda, onnx_file

    with contextlib.suppress(AgentError):  # what is no model is found out by the runtime
        if "trt_int8_enable" not in options and onnx_file.read(path).quantized:  # else Q/DQ nodes compute in float
            options = {**options, "trt_int8_enable": "True"}
    device = {"device_id": options["device_id"]} if "device_id" in options else {}
    versions = {"onnxruntime": version, "tensorrt": _version()}
    gpu = cuda.gpu(int(device.get("device_id", 0)))
    folder = engines.folder(root, "onnxruntime", versions, gpu, os.path.basename(path), options)
    cache = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": folder}
    if at_least(version, 1, 15):
        cache["trt_timing_cache_enable"] = "True"
    if at_least(version, 1, 17):  # before that it lies beside the engines
        cache["trt_timing_cache_path"] = os.path.dirname(folder)
    before = engines.stamps(folder, ".engine")
    if not before:
        progress.say("building engines for this GPU")
    chain = [(TENSORRT, {**cache, **options}), (CUDA, device), (CPU, {})]
    return Plan(chain, threads, {}, folder, before)


def reason(words: str, limit: int = 240) -> str:
    """What an error says, without the places in ONNX Runtime's source in front of it."""
    text = " ".join(words.split())
    found = _SAID.search(text)
    text = found[0].strip() if found else re.sub(r"/\S+\.(?:cc|h|cu):\d+ .*?\)(?: const)? ", "", text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def missing_library(provider: str, package: str) -> str:
    """Which library a provider of this build wants and does not find: ONNX Runtime logs that and goes on without."""
    name = provider[: -len("ExecutionProvider")].lower()
    path = os.path.join(os.path.dirname(package), "capi", f"libonnxruntime_providers_{name}.so")
    if os.path.isfile(path):
        try:
            ctypes.CDLL(path)
        except OSError as e:
            if "cannot open shared object" in str(e):
                return str(e)
    return ""


def at_least(version: str, major: int, minor: int) -> bool:
    """Whether a version such as "1.17.0+cu12" is that one or later; what cannot be read is taken for an old one."""
    numbers: List[int] = []
    for part in version.split(".")[:2]:
        with contextlib.suppress(ValueError):
            numbers.append(int(part))
    return numbers >= [major, minor]


def _version() -> str:
    """The number that TensorRT's library gives itself (10.3.0: 100300); "" where it is not found."""
    names: Sequence[str] = [f"libnvinfer.so.{v}" for v in (11, 10, 9, 8, 7)]
    for name in names:
        with contextlib.suppress(OSError, AttributeError):
            lib: Any = ctypes.CDLL(name)
            return str(int(lib.getInferLibVersion()))
    return ""
