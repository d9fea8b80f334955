"""TensorRT itself, without ONNX Runtime: by its Python module, else by its program `trtexec`.

The module is built for the Python of the JetPack: where the agent runs on another one, as on the Jetson Nano, whose
last JetPack has bindings for Python 3.6, the program does.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from edgelathe_agent import engines, programs, progress
from edgelathe_agent.jobs import leash
from edgelathe_agent.protocol import AgentError
from edgelathe_agent.runtimes import Engine, Entries, choice, cuda, entries, onnx_file, trtexec

PROVIDER = "TensorRT"
_OPTIONS = ("fp16", "int8", "sparsity")
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
Shapes = Mapping[str, Tuple[int, ...]]


def describe(_: str) -> Tuple[str, List[str]]:
    """Version of the module, else of the program."""
    module = _module()
    if module is not None:
        return str(module.__version__), [PROVIDER]
    return _program()[1], [PROVIDER]


def load(
    name: str,
    path: str,
    provider: str,
    threads: int,  # noqa: ARG001 - the GPU has its own
    config: Dict[str, Any],
    root: str,
    profile: bool = False,
) -> Engine:
    """An engine for this GPU, from the cache or built now.

    `config`: `provider.fp16`, `provider.int8` and `provider.sparsity` (1 or 0) say what it may compute in; left out,
    half precision and integers are used by models that hold them (float16 weights, Q/DQ nodes).
    `edgelathe.trtexec=1`: through the program although the module is there. Raises AgentError: "model", "request",
    "missing".
    """
    if provider != PROVIDER:
        raise AgentError("missing", f"{name} has no provider {provider!r}", f"use {PROVIDER}")
    found = entries(config, name, ("trtexec",))
    if found.session:
        raise AgentError("request", f"{name} takes no session entry {min(found.session)!r}", "leave it out")
    file = onnx_file.read(path)
    flags = _flags(name, found, file)
    module = None if choice(found, "trtexec", ("0", "1")) == "1" else _module()
    if module is not None:
        from edgelathe_agent.runtimes.trt_module import Session

        return Session(module, Plans(root, path, str(module.__version__), flags, file), profile)
    from edgelathe_agent.runtimes.trt_program import Program

    program, version = _program()
    return Program(program, Plans(root, path, version, flags, file))


class Plans(NamedTuple):
    """The engine files of one model, one for each set of shapes; `version`: of TensorRT."""

    root: str
    model: str
    version: str
    flags: trtexec.Flags
    file: onnx_file.File

    def open_inputs(self) -> List[str]:
        """Inputs with open axes: an engine is built for the sizes that are fed."""
        return [i["name"] for i in self.file.inputs if None in i["shape"]]

    def first_shapes(self) -> Optional[Shapes]:
        """One sample; None where axes beside the batch are open, whose sizes are known when samples are fed."""
        if any(d is None for i in self.file.inputs for d in i["shape"][1:]):
            return None
        return {i["name"]: tuple(d or 1 for d in i["shape"]) for i in self.file.inputs if None in i["shape"]}

    def get(self, shapes: Shapes, build: Callable[[str, str], None]) -> Tuple[str, float]:
        """The engine file and the ms that building it took, 0 where it is there. `build(file, timing cache)`."""
        built = {"shapes": repr(sorted(shapes.items())), **{k: str(v) for k, v in self.flags._asdict().items()}}
        gpu, versions = cuda.gpu(), {"tensorrt": self.version}
        folder = engines.folder(self.root, "tensorrt", versions, gpu, os.path.basename(self.model), built)
        plan = os.path.join(folder, "engine.plan")
        if os.path.isfile(plan):
            return plan, 0.0
        progress.say("building an engine for this GPU")
        start = time.perf_counter()
        build(plan, os.path.join(os.path.dirname(folder), "timing.cache"))
        return plan, (time.perf_counter() - start) * 1e3

    def warnings(self) -> List[str]:
        """What was asked for and this version does not take."""
        if int(self.version.split(".", maxsplit=1)[0] or 0) < trtexec.STRONGLY_TYPED:
            return []
        ignored = [n for n, there in (("fp16", self.file.half), ("int8", self.file.quantized))
                   if getattr(self.flags, n) and not there]  # fmt: skip
        return [f"TensorRT {self.version} computes in the model's own types: {n} has no effect" for n in ignored]


def run(command: List[str], folder: str) -> str:
    """What the program printed. Raises AgentError("model") with its last error when it fails."""
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        preexec_fn=leash(),  # a build takes minutes: it must not outlive the agent
    )  # fmt: skip
    words = done.stdout.decode(errors="replace")
    if done.returncode:
        what = trtexec.complaint(words)[:400]
        raise AgentError("model", f"trtexec: {what}", "check the model's operators, or use ONNX Runtime")
    return words


def _flags(name: str, found: Entries, file: onnx_file.File) -> trtexec.Flags:
    chosen = {"fp16": file.half, "int8": file.quantized, "sparsity": False}
    for option, value in found.provider.items():
        if option not in chosen:
            raise AgentError("request", f"{name} has no option {option!r}", "one of " + ", ".join(_OPTIONS))
        if value.lower() not in (*_YES, *_NO):
            raise AgentError("request", f"provider.{option} is {value!r}", "1 or 0")
        chosen[option] = value.lower() in _YES
    return trtexec.Flags(**chosen)


def _module() -> Any:
    """The Python module; None where there is none, or it is for another Python and there is the program instead."""
    if importlib.util.find_spec("tensorrt") is None:
        folder = programs.packages("tensorrt")
        if folder is None:
            return None
        sys.path.append(folder)  # last: what the environment has comes first
    try:
        return importlib.import_module("tensorrt")
    except ImportError:
        if programs.find("trtexec"):
            return None
        raise


@functools.lru_cache(maxsize=None)
def _program() -> Tuple[str, str]:
    """The program's path and version, which it says before anything else."""
    path = programs.find("trtexec")
    if path is None:
        raise AgentError("missing", "neither TensorRT's Python module nor trtexec is there", "install TensorRT")
    return path, trtexec.version(run([path, "--help"], os.sep))
