"""TensorRT's program `trtexec`: its command line, and the files and words that it answers with. Pure functions.

Sources: NVIDIA, TensorRT Developer Guide, "trtexec"; its source, github.com/NVIDIA/TensorRT, samples/common/
sampleOptions.cpp and sampleReporting.cpp of releases 8.2 (JetPack 4.6) to 11.0.
"""

from __future__ import annotations

import json
import re
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

#: Milliseconds that a fresh process warms up for before its calls count, which is the program's own default.
WARM_UP_MS = 200
#: From this version on networks are always strongly typed: the graph says what is computed in which type.
STRONGLY_TYPED = 11
_VERSION = re.compile(r"\[TensorRT v(\d+)\]")


class Flags(NamedTuple):
    """What an engine is allowed to compute in, and whether zeros in a 2:4 pattern may be skipped."""

    fp16: bool = False
    int8: bool = False
    sparsity: bool = False


class Timing(NamedTuple):
    """Times of the calls after the warm-up in ns: of a call, and of its parts."""

    latency: List[int]
    copy_in: List[int]
    compute: List[int]
    copy_out: List[int]


def version(words: str) -> str:
    """`8.2.1` of `&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # ...`; "" where it says none.

    NvInferVersion.h: 1000 a major and 100 a minor release until 9, 10000 and 100 from 10 on.
    """
    found = _VERSION.search(words)
    if not found:
        return ""
    number = int(found[1])
    major = 10_000 if number >= 100_000 else 1000
    return f"{number // major}.{number % major // 100}.{number % 100}"


def build(
    program: str, model: str, engine: str, timing: str, shapes: Mapping[str, Sequence[int]], flags: Flags, release: str
) -> List[str]:
    """Builds an engine file from an ONNX file and runs it once. `shapes`: those of inputs that have open axes."""
    strong = int(release.split(".", maxsplit=1)[0] or 0) >= STRONGLY_TYPED
    allowed = [] if strong else [f"--{name}" for name in ("fp16", "int8") if getattr(flags, name)]
    return [
        program, f"--onnx={model}", f"--saveEngine={engine}", f"--timingCacheFile={timing}", *allowed,
        *(["--sparsity=enable"] if flags.sparsity else []), *_shapes(shapes), "--profilingVerbosity=detailed",
        "--warmUp=0", "--duration=0", "--iterations=1",
    ]  # fmt: skip


def time(
    program: str, engine: str, shapes: Mapping[str, Sequence[int]], inputs: Mapping[str, str], calls: int, times: str
) -> List[str]:
    """Times calls in a row; `inputs`: files by input, `times`: the file for the answer."""
    return [
        *_run(program, engine, shapes, inputs), f"--warmUp={WARM_UP_MS}", "--duration=0", f"--iterations={calls}",
        f"--exportTimes={times}",
    ]  # fmt: skip


def infer(
    program: str, engine: str, shapes: Mapping[str, Sequence[int]], inputs: Mapping[str, str], outputs: str
) -> List[str]:
    """One call, whose outputs it writes to a file."""
    return [
        *_run(program, engine, shapes, inputs), "--warmUp=0", "--duration=0", "--iterations=1",
        f"--exportOutput={outputs}",
    ]  # fmt: skip


def profile(
    program: str,
    engine: str,
    shapes: Mapping[str, Sequence[int]],
    inputs: Mapping[str, str],
    calls: int,
    files: Sequence[str],
) -> List[str]:
    """Times each layer over so many calls; `files`: for the layers' times and for what they are."""
    times, layers = files
    return [
        *_run(program, engine, shapes, inputs), f"--warmUp={WARM_UP_MS}", "--duration=0", f"--iterations={calls}",
        "--separateProfileRun", f"--exportProfile={times}", f"--exportLayerInfo={layers}",
    ]  # fmt: skip


def timing(text: str) -> Timing:
    """Of `--exportTimes`: milliseconds of each call. Older releases write those of the warm-up too.

    The latency is the sum of both copies and of the computation on the GPU; the launch is not in it, as the program
    starts a call while the one before still runs. Raises ValueError for another form.
    """
    rows = [row for row in json.loads(text) if row["startComputeMs"] >= WARM_UP_MS]
    return Timing(*(_ns(rows, key) for key in ("latencyMs", "h2dMs", "computeMs", "d2hMs")))


def outputs(text: str) -> Dict[str, Tuple[List[int], List[float]]]:
    """Of `--exportOutput`: dimensions and values of each output, as text of six digits. Raises ValueError."""
    plain = re.sub(r"(?<=[\[,] )(-?)(inf|nan)(?= ?[,\]])", lambda m: m[1] + _JSON[m[2]], text)
    found = {}
    for row in json.loads(plain):
        dims = [int(d) for d in re.findall(r"\d+", row["dimensions"])]
        found[str(row["name"])] = dims, row["values"]
    return found


_JSON = {"inf": "Infinity", "nan": "NaN"}


def layers(text: str) -> Dict[str, int]:
    """Of `--exportProfile`: the average time of each layer in a call, in ns. Raises ValueError."""
    return {str(row["name"]): round(row["averageMs"] * 1e6) for row in json.loads(text) if "name" in row}


def operators(info: str) -> Dict[str, str]:
    """The type of each layer of an engine; layers are bare names where it was built without details."""
    try:
        found = json.loads(info).get("Layers", [])
    except ValueError:
        return {}
    return {layer["Name"]: layer.get("LayerType", "") for layer in found if isinstance(layer, dict) and "Name" in layer}


def complaint(words: str) -> str:
    """The last error that it printed, else its last line, without the time in front."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line and "&&&&" not in line]
    said = (errors or [line for line in lines if "&&&&" not in line] or ["it said nothing"])[-1]
    return re.sub(r"^(\[[^\]]*\] )+", "", said)


def _run(program: str, engine: str, shapes: Mapping[str, Sequence[int]], inputs: Mapping[str, str]) -> List[str]:
    files = ",".join(f"{name}:{file}" for name, file in inputs.items())  # it splits at the last colon
    return [program, f"--loadEngine={engine}", *_shapes(shapes), f"--loadInputs={files}"]


def _shapes(shapes: Mapping[str, Sequence[int]]) -> List[str]:
    text = ",".join("{}:{}".format(name, "x".join(map(str, dims))) for name, dims in shapes.items())
    return [f"--shapes={text}"] if text else []


def _ns(rows: Sequence[Mapping[str, float]], key: str) -> List[int]:
    return [round(row[key] * 1e6) for row in rows]
