"""What a profile says: a class of devices, how models run there, what a recipe's open choices follow from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class RuntimeChoice:
    """One way to run models, in the profile's order of preference: runtime, provider, threads, session entries.

    `config` holds the runtime's entries, and those of its provider as `provider.NAME` (see `provider_options`).
    """

    runtime: str
    provider: str
    threads: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A class of devices. What is fast is a starting guess that measurement overrules.

    Attributes:
        name: as in `--profile`.
        title: in words.
        machine: `uname -m`; None fits any.
        match: regular expressions on the device's board model (device tree); the profile with the longest match fits.
        runtimes: ways to run, in order of preference.
        features: normalized: `sdot i8mm fp16 bf16 avx2 avx512 vnni gpu-fp16 tensor-cores`.
        fast_dtypes: `float32 float16 int8 int4`, fastest first.
        channel_multiple: widths that fill the vector units are multiples of this.
        memory_bytes: RAM of the smallest device of the class.
        sensors: labels of temperature sensors; rails: labels of power rails.
        recipes: default recipe space by model format.
        path: the file that it was read from.
    """

    name: str
    title: str
    machine: str | None
    match: tuple[str, ...]
    runtimes: tuple[RuntimeChoice, ...]
    features: frozenset[str]
    fast_dtypes: tuple[str, ...]
    channel_multiple: int
    memory_bytes: int
    sensors: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()
    recipes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    path: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values; features sorted."""
        runtimes = [{**asdict(r), "config": dict(r.config)} for r in self.runtimes]
        lists = {k: list(getattr(self, k)) for k in ("match", "fast_dtypes", "sensors", "rails")}
        recipes = {format: list(texts) for format, texts in self.recipes.items()}
        return {**vars(self), **lists, "features": sorted(self.features), "runtimes": runtimes, "recipes": recipes}


@dataclass(frozen=True)
class Hardware:
    """What a recipe's open choices are resolved by: the profile's facts, overruled by the device's own where probed."""

    machine: str | None
    features: frozenset[str]
    channel_multiple: int = 8


#: What features, dtypes and sensors a profile may name, and what each means; the reference page is made from these.
FEATURES = {
    "sdot": "Armv8.2 dot product of int8 (SDOT, UDOT)",
    "i8mm": "Armv8.6 matrix product of int8 (SMMLA)",
    "fp16": "Armv8.2 half-precision vector arithmetic",
    "bf16": "Armv8.6 bfloat16 products (BFMMLA)",
    "avx2": "x86 256-bit integer vectors",
    "avx512": "x86 512-bit vectors",
    "vnni": "x86 int8 dot product that does not saturate (AVX512-VNNI, AVX-VNNI)",
    "gpu-fp16": "half-precision arithmetic on a GPU without matrix units",
    "tensor-cores": "NVIDIA matrix units, Volta and later",
}
DTYPES = ("float32", "float16", "bfloat16", "int8", "int4")
FORMATS = ("onnx", "tflite")

#: Features that no CPU flag tells of: they stay as the profile says.
GPU_FEATURES = frozenset({"gpu-fp16", "tensor-cores"})

_ORT = (
    "ACL", "ArmNN", "Azure", "CANN", "CPU", "CUDA", "CoreML", "Dml", "Dnnl", "Js", "MIGraphX", "Nnapi", "NvTensorRTRTX",
    "OpenVINO", "QNN", "ROCM", "Rknpu", "Tensorrt", "VSINPU", "VitisAI", "WebGpu", "WebNN", "Xnnpack",
)  # fmt: skip

#: Runtimes by name: the model format that each takes and the providers that it may have.
RUNTIMES = {
    # onnxruntime.get_all_providers() of 1.32, and those of earlier releases that boards still run
    "onnxruntime": ("onnx", tuple(f"{name}ExecutionProvider" for name in _ORT)),
    # the CPU with XNNPACK, which is their default delegate
    "ai-edge-litert": ("tflite", ("CPU",)),
    "tflite-runtime": ("tflite", ("CPU",)),
    "tensorrt": ("onnx", ("TensorRT",)),
}

_FLAGS = {
    # docs.kernel.org/arch/arm64/elf_hwcaps.html
    "asimddp": "sdot",
    "i8mm": "i8mm",
    "asimdhp": "fp16",
    "fphp": "fp16",
    "bf16": "bf16",
    # arch/x86/include/asm/cpufeatures.h; avxvnni is how some tools write avx_vnni
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "vnni",
    "avx512vnni": "vnni",
    "avx_vnni": "vnni",
    "avxvnni": "vnni",
}


def normalize(flags: frozenset[str]) -> frozenset[str]:
    """The features that a profile speaks of, from CPU flags as the kernel names them; others are left out."""
    return frozenset(_FLAGS[f] for f in map(str.lower, flags) if f in _FLAGS)


def family(machine: str) -> str:
    """`arm`, `x86` or the machine itself: a 32-bit system on a 64-bit board is still that board."""
    lower = machine.lower()
    if lower.startswith(("aarch64", "arm")):
        return "arm"
    return "x86" if lower in ("x86_64", "amd64", "i386", "i686") else lower
