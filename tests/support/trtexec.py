"""A stand-in for TensorRT's program: checks its arguments as a release does, writes the files that NVIDIA documents.

Run as `trtexec`, by a script that `install` makes. Its engines are the ONNX file with a note of how it was "built";
ONNX Runtime computes. Options and forms: samples/common/sampleOptions.cpp and sampleReporting.cpp of the releases.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

OPTIONS = {
    "onnx", "saveEngine", "loadEngine", "timingCacheFile", "sparsity", "shapes", "profilingVerbosity", "warmUp",
    "duration", "iterations", "exportTimes", "exportOutput", "loadInputs", "exportProfile", "exportLayerInfo",
}  # fmt: skip
_OLD = {"fp16", "int8", "separateProfileRun", "help"}
FLAGS = {"8.2.1": _OLD, "10.3.0": _OLD, "11.0.0": {"separateProfileRun", "help"}}
NUMBERS = {"8.2.1": 8201, "10.3.0": 100300, "11.0.0": 110000}


def install(folder: Path, release: str = "10.3.0") -> Path:
    """A program `trtexec` in `folder`, which also writes a line for each of its runs to `folder/log`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "trtexec"
    here = Path(__file__).resolve()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(here.parents[1])!r})\n"
        f"from support.trtexec import main\nsys.exit(main({release!r}, {str(folder / 'log')!r}, sys.argv[1:]))\n"
    )
    program.chmod(0o755)
    return program


def main(release: str, log: str, argv: list[str]) -> int:
    with Path(log).open("a") as f:
        f.write(json.dumps(argv) + "\n")
    title = f"TensorRT.trtexec [TensorRT v{NUMBERS[release]}]"
    print(f"&&&& RUNNING {title} # trtexec {' '.join(argv)}")
    try:
        run(release, parsed(release, argv))
    except (ValueError, OSError) as e:
        print(f"[11/25/2026-10:00:00] [E] {e}\n&&&& FAILED {title} # trtexec {' '.join(argv)}")
        return 1
    print(f"&&&& PASSED {title} # trtexec {' '.join(argv)}")
    return 0


def parsed(release: str, argv: list[str]) -> dict[str, str]:
    found = {}
    for word in argv:
        name, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in (OPTIONS if value else FLAGS[release]):
            raise ValueError(f"Unknown option: {word}")
        found[name] = value
    return found


def run(release: str, asked: dict[str, str]) -> None:
    import numpy as np
    import onnxruntime as ort

    if "help" in asked:
        return
    if "onnx" in asked:
        note = {"release": release, "flags": sorted(set(asked) & {"fp16", "int8"}), "sparsity": asked.get("sparsity")}
        model = Path(asked["onnx"]).read_bytes()
        Path(asked["timingCacheFile"]).write_bytes(b"timings")
        Path(asked["saveEngine"]).write_bytes(json.dumps(note).encode() + b"\n" + model)
    else:
        note, _, model = Path(asked["loadEngine"]).read_bytes().partition(b"\n")
        if json.loads(note)["release"] != release:
            raise ValueError("Serialization assertion failed: the engine was built by another version")
    try:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise ValueError(f"ModelImporter.cpp: {' '.join(str(e).split())}") from None
    shapes = pairs(asked.get("shapes", ""))
    files = pairs(asked.get("loadInputs", ""))
    fed = {}
    for info in session.get_inputs():
        opened = any(not isinstance(d, int) for d in info.shape)
        if opened != (info.name in shapes):
            raise ValueError(f"{info.name}: shapes {shapes} for {info.shape}")
        dims = [int(d) for d in shapes[info.name].split("x")] if opened else info.shape
        dtype = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(int8)": "i1"}[info.type]
        data = np.fromfile(files[info.name], dtype) if files else np.ones(int(np.prod(dims)), dtype)
        fed[info.name] = data.reshape(dims)
    answer(asked, session, session.run(None, fed), layers(model))


def layers(model: bytes) -> tuple[str, str]:
    """Names of the two layers of its engines: made of the nodes where these are marked, as TensorRT makes them."""
    import onnx

    names = [node.name for node in onnx.load_model_from_string(model).graph.node]
    if not all(name.startswith("~") for name in names):
        return "conv1 + relu1", "dense"
    half = len(names) // 2
    return f"{{ForeignNode[{names[0]}...{names[half - 1]}]}}", " + ".join(names[half:])


def answer(asked: dict[str, str], session, outputs, names: tuple[str, str]) -> None:
    calls, warm = int(asked["iterations"]), float(asked["warmUp"])
    if "exportTimes" in asked:  # as releases before 10 do, with the calls of the warm-up
        rows = [(warm * k / 3, 9.0) for k in range(3)] if warm else []
        rows += [(warm + 3.0 * k, 1.25 + k / 1000) for k in range(calls)]
        Path(asked["exportTimes"]).write_text("[\n  " + ", ".join(map(times, rows)) + "]\n")
    if "exportOutput" in asked:
        rows = []
        for info, value in zip(session.get_outputs(), outputs, strict=True):
            values = ", ".join(f"{float(v):.6g}" for v in value.reshape(-1))
            dims = "x".join(map(str, value.shape))
            rows.append(f'{{ "name" : "{info.name}"\n  , "dimensions" : "{dims}"\n  , "values" : [ {values} ]\n  }}\n')
        Path(asked["exportOutput"]).write_text("[\n  " + ", ".join(rows) + "]\n")
    if "exportProfile" in asked:
        layer = f'{{ "name" : "{names[0]}", "timeMs" : 50, "averageMs" : 0.5, "percentage" : 80 }}'
        rest = f'{{ "name" : "{names[1]}", "timeMs" : 12.5, "averageMs" : 0.125, "percentage" : 20 }}'
        Path(asked["exportProfile"]).write_text(f'[\n  {{ "count" : {calls} }}\n, {layer}\n, {rest}\n]\n')
    if "exportLayerInfo" in asked:
        layers = [{"Name": names[0], "LayerType": "CaskConvolution"}, {"Name": names[1], "LayerType": "gemm"}]
        Path(asked["exportLayerInfo"]).write_text(json.dumps({"Layers": layers, "Bindings": ["input", "output"]}))


def times(row: tuple[float, float]) -> str:
    at, compute = row
    return (
        f'{{ "startEnqMs" : {at:.6g}, "endEnqMs" : {at + 0.1:.6g}, "startH2dMs" : {at:.6g}, '
        f'"endH2dMs" : {at + 0.5:.6g}, '
        f'"startComputeMs" : {at + 0.5:.6g}, "endComputeMs" : {at + 0.5 + compute:.6g}, "startD2hMs" : {at + 2:.6g}, '
        f'"endD2hMs" : {at + 2.25:.6g}, "h2dMs" : 0.5, "computeMs" : {compute:.6g}, "d2hMs" : 0.25, '
        f'"latencyMs" : {0.75 + compute:.6g}, "endToEndMs" : {2.25:.6g} }}\n'
    )


def pairs(text: str) -> dict[str, str]:
    """name:value, separated by commas; the last colon parts the two."""
    return dict(word.rsplit(":", 1) for word in text.split(",") if word)
