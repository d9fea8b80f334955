"""Documents with one of everything, as the commands make them."""

from __future__ import annotations

import math
from typing import Any

from edgelathe.core.device import Probe, Runtime, SessionOptions
from edgelathe.core.interval import Interval
from edgelathe.core.result import Accuracy, BudgetLine, Candidate, Latency
from edgelathe.report.document import fit_document

OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider", 1, {"session.x64quantprecision": "1"})
SHA = "0123456789abcdef" * 4
PROBE = Probe(
    "local",
    "x86_64",
    "AMD EPYC <7B13>",
    2,
    8_000_000_000,
    "3.11.9",
    (Runtime("onnxruntime", "1.32.0", ("CPUExecutionProvider",)),),
    emulated=False,
    features=frozenset({"avx2", "sse4_2"}),
    profile="x86-cpu",
    extra={"temperature_c": 48.5, "load": [0.1, 0.2, 0.3]},
)


def latency(p50: float, reach: float, n: int = 1200) -> Latency:
    p = {"p50": p50, "p90": p50 * 1.05, "p95": p50 * 1.1, "p99": p50 * 1.3}
    ci = {k: Interval(v - reach, v + reach) for k, v in p.items()}
    ci["p99"] = Interval(p["p99"] - reach, math.inf)
    return Latency(**p, mean=p50 * 1.01, min=p50 * 0.97, max=p50 * 2, n=n, ci=ci)


def accuracy(value: float, drop: float | None, reach: float = 0.003) -> Accuracy:
    ends = (None, None) if drop is None else (drop - reach, drop + reach)
    return Accuracy("top1", value, 540, value - 0.02, value + 0.015, drop, *ends)


def candidate(
    id_: str, recipe: str, size: int, p50: float, *, reach: float, drop: float | None, **more: Any
) -> Candidate:
    return Candidate(
        id=id_,
        recipe=recipe,
        format="onnx",
        options=OPTIONS,
        bytes=size,
        sha256=SHA,
        status="measured",
        latency=latency(p50, reach),
        accuracy=accuracy(0.978 - (drop or 0), drop),
        throughput=1000 / p50,
        peak_bytes=41_000_000,
        load_ms=12.5,
        **more,
    )


BASELINE = candidate("baseline", "", 140_000, 0.0612, reach=0.0008, drop=None)
INT8 = candidate("c1", "int8", 43_400, 0.0381, reach=0.0006, drop=0.001, warnings=("the governor is 'ondemand'",))
PRUNED = candidate("c2", "prune(channels=0.3)+int8", 25_200, 0.031, reach=0.001, drop=0.016)
FP16 = candidate("c3", "fp16", 72_800, 0.0638, reach=0.002, drop=0.0)
FAILED = Candidate(
    "c4", "sparse(threshold=<0.5>)", "onnx", OPTIONS, status="failed", why="the runtime ended with signal 11"
)
REJECTED = FP16.with_(id="c5", recipe="int4", status="rejected", why="accuracy fell to chance", latency=None)
CANDIDATES = [INT8, PRUNED, FP16, FAILED, REJECTED]

SIZE = BudgetLine("size<=0.35x", "size", 49_000.0, 43_400.0, 43_400.0, 140_000.0, "met")
DROP = BudgetLine("accuracy.drop<=2%", "accuracy.drop", 0.02, 0.001, 0.0046, 0.0, "met")


def fit(**changes: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "run": "7f3a91c2",
        "met": True,
        "reason": "met by int8: size 43.4 kB, drop 0.1 points",
        "profile": "x86-cpu",
        "model": {"path": "/models/digits <b>.onnx", "sha256": SHA, "format": "onnx", "bytes": 140_000},
        "device": PROBE.to_json(),
        "budget": [SIZE, DROP],
        "baseline": BASELINE,
        "chosen": "c1",
        "candidates": CANDIDATES,
        "timing": {"total_s": 31.25, "compress_s": 4.0, "measure_s": 25.0},
    }
    return fit_document(**{**parts, **changes})


def judged() -> dict[str, list[BudgetLine]]:
    """Budget lines by candidate, as the loop has them."""
    open_ = BudgetLine(
        DROP.expr, DROP.metric, 0.02, 0.016, 0.025, 0.0, "undecided", "about 1.8 times the samples would settle it"
    )
    missed = BudgetLine(SIZE.expr, SIZE.metric, 49_000.0, 72_800.0, 72_800.0, 140_000.0, "missed")
    return {"c1": [SIZE, DROP], "c2": [SIZE, open_], "c3": [missed, DROP]}


def running() -> dict[str, Any]:
    """A fit of which only the baseline and one candidate are there."""
    return fit(met=None, reason="", chosen=None, budget=[], candidates=[INT8], timing={})


RESULT = {"runtime": "onnxruntime", "options": OPTIONS.to_json(), "warnings": []}
SESSION = {"runtime": "onnxruntime", **OPTIONS.to_json()}
TENSOR = {"name": "input", "shape": [None, 1, 8, 8], "dtype": "float32"}
TRACED = {
    "model": "a.onnx",
    "method": "profiler",
    "total_ms": 0.18,
    "low": 0.179,
    "high": 0.182,
    "profiled_ms": 0.27,
    "overhead": 1.5,
    "operators_ms": 0.21,
    "grade": {"letter": "A", "reasons": []},
    "rows": [
        {
            "layer": "conv1",
            "layers": ["conv1", "relu1"],
            "op": "Conv",
            "kernel": "Conv",
            "provider": "CPUExecutionProvider",
            "dtype": "float32",
            "kind": "operator",
            "ms": 0.1795,
            "low": 0.178,
            "high": None,
            "measured_ms": 0.182,
            "taken_ms": 0.0025,
            "share": 0.997,
            "calls": 1,
        },
        {
            "layer": None,
            "layers": [],
            "op": "outside of operators",
            "kernel": None,
            "provider": None,
            "dtype": None,
            "kind": "outside",
            "ms": 0.0005,
            "low": None,
            "high": None,
            "measured_ms": 0.0005,
            "taken_ms": 0.0,
            "share": 0.003,
            "calls": 0,
        },
    ],
    **RESULT,
}


EXPLAINED = {
    "n": 64,
    "sqnr_db": 12.5,
    "accuracy": accuracy(0.9, 0.07).to_json(),
    "changed": 9,
    "chance": False,
    "layers": [
        {
            "layer": "conv1",
            "op": "Conv",
            "sqnr_db": 11.2,
            "fall_db": 28.8,
            "channel_db": 4.0,
            "clipped": 0.02,
            "channel_ratio": 31.0,
            "weight_ratio": None,
            "dead": 0,
            "lost": 3,
            "saturating": 0.25,
            "overflow": False,
            "causes": ["2.0% of its values clipped", "3 channels became constant"],
        }
    ],
    "tries": ["int8(scale=minmax) or scale=percentile", "skip = true for layer 'conv1'"],
}


def _together(drop: float, db: float, size: int) -> dict[str, Any]:
    return {"accuracy": accuracy(0.978 - drop, drop).to_json(), "changed": 27, "sqnr_db": db, "bytes": size}


def _width(bits: int, db: float, drop: float, size: int) -> dict[str, Any]:
    more = {"activations": None, "hidden_db": db + 4, "weights_db": 41.0, "n": 540, "sampled": 128}
    return {"bits": bits, **_together(drop, db, size), **more}


DOCUMENTS: dict[str, dict[str, Any]] = {
    "bench": {
        "schema": "edgelathe.bench/1",
        "device": "local",
        "results": [
            {"model": "a.onnx", "latency_ms": latency(3.05, 0.01).to_json(), **RESULT},
            {"model": "b.onnx", "latency_ms": latency(2.88, 0.01).to_json(), **RESULT},
        ],
        "comparisons": [
            {"a": "a.onnx", "b": "b.onnx", "ratio": 0.944, "low": 0.939, "high": 0.949, "verdict": "faster"}
        ],
    },
    "trace": {
        "schema": "edgelathe.trace/1",
        "device": "local",
        "models": [TRACED, {**TRACED, "model": "b.onnx"}],
        "layers": [
            {
                "layer": "conv1",
                "layers": ["conv1", "relu1"],
                "op": "Conv",
                "kind": "operator",
                "a": {"ms": 0.18, "kernels": ["Conv"], "dtypes": ["float32"], "providers": []},
                "b": None,
                "difference_ms": -0.18,
                "ratio": None,
                "low": None,
                "high": None,
                "verdict": "undecided",
                "notes": [],
            }
        ],
        "warnings": [],
    },
    "eval": {
        "schema": "edgelathe.eval/1",
        "device": "local",
        "results": [
            {
                "model": "b.onnx",
                "accuracy": accuracy(0.876, None).to_json(),
                "parity": {"n": 540, "same": 539, "max_abs": 0.031},
                **RESULT,
            }
        ],
    },
    "sensitivity": {
        "schema": "edgelathe.sensitivity/1",
        "model": {"path": "a.onnx", "sha256": SHA, "format": "onnx", "bytes": 140_000},
        "data": "calib.npz",
        "options": {"widths": [8, 4], "activations": None, "early": False, "seed": 0, "threads": 2, "chunk": 32},
        "n": 540,
        "metric": "top1",
        "labels": True,
        "baseline": accuracy(0.978, None).to_json(),
        "layers": [
            {
                "rank": 1,
                "layer": "conv1 <first>",
                "op": "Conv",
                "parameters": 320,
                "macs": 18_432,
                "macs_share": 0.02,
                "float_bytes": 1280,
                "mean_db": 28.55,
                "widths": [_width(8, 45.0, 0.0, 360), _width(4, 12.1, 0.045, 200)],
            }
        ],
        "skipped": [{"layer": "up", "why": "its weights are computed by the model"}],
        "keep": [
            {
                "bits": 4,
                "layers": ["conv1 <first>"],
                "extra_bytes": 1080,
                "macs_share": 0.02,
                "gain": 0.04,
                "all": _together(0.05, 9.0, 17_000),
                "kept": _together(0.01, 20.0, 18_080),
            }
        ],
        "seconds": {"layers": 1.5, "keep": 0.4},
    },
    "simulate": {
        "schema": "edgelathe.simulate/1",
        "model": "a.tflite",
        "format": "tflite",
        "sha256": SHA,
        "recipe": "int8",
        "against": "float model",
        "arithmetic": {
            "weights": None,
            "activations": None,
            "accumulator": 32,
            "accumulator_wide": 64,
            "overflow": "wrap",
            "kernels": "reference",
            "rounding": None,
        },
        "metric": "top1",
        "float": 0.885,
        "simulated": 0.88,
        "samples": 200,
        "error": {
            "mse": 0.00042,
            "sqnr_db": 23.1,
            "cosine": 0.998,
            "classification": {
                "n": 200,
                "changed": 3,
                "changed_share": 0.015,
                "lost": 2,
                "won": 1,
                "top1_change": -0.005,
            },
            "regression": {"function": "abs", "mean": 0.001, "mean_abs": 0.01, "rmse": 0.02, "max_abs": 0.11},
        },
        "layers": [
            {
                "name": "conv1",
                "op": "CONV_2D",
                "mse": 0.0013,
                "sqnr_db": 29.6,
                "cosine": 0.9995,
                "clipped": 0.0002,
                "overflows": 0,
                "bits": 8,
            },
            {
                "name": "softmax",
                "op": "SOFTMAX",
                "mse": None,
                "sqnr_db": None,
                "cosine": None,
                "clipped": 0.0,
                "overflows": 4,
                "bits": None,
            },
        ],
    },
    "compress": {
        "schema": "edgelathe.compress/1",
        "model": "out.onnx",
        "recipe": "fold+int8",
        "bytes_before": 140_000,
        "bytes_after": 43_400,
        "sha256": SHA,
        "options": SESSION,
        "steps": [
            {
                "use": "int8",
                "seconds": 0.41,
                "layers": [
                    {"layer": "conv1", "done": True, "what": "int8"},
                    {"layer": "fc", "done": False, "what": "8 channels only"},
                ],
                "explain": EXPLAINED,
            }
        ],
    },
    "inspect": {
        "schema": "edgelathe.inspect/1",
        "format": "onnx",
        "bytes": 140_000,
        "parameters": 34_000,
        "macs": 900_000,
        "inputs": [TENSOR],
        "outputs": [{**TENSOR, "name": "out", "shape": [None, 10]}],
        "layers": [
            {
                "name": "conv1",
                "op": "Conv",
                "parameters": 320,
                "macs": 18_432,
                "bytes": 1280,
                "steps": ["int8", "prune"],
            }
        ],
    },
    "runs": {
        "schema": "edgelathe.runs/1",
        "runs": [
            {
                "run": "7f3a91c2",
                "state": "done",
                "model": "/m/a.onnx",
                "device": "cam",
                "started": "2026-11-03T10:00:00+00:00",
                "finished": None,
                "met": True,
            }
        ],
    },
    "probe": {"schema": "edgelathe.probe/1", **PROBE.to_json()},
    "devices": {
        "schema": "edgelathe.devices/1",
        "devices": [
            {
                "name": "cam",
                "url": "ssh://pi@cam",
                "root": None,
                "python": None,
                "profile": "raspberry-pi-4",
                "fingerprint": "SHA256:abc",
            }
        ],
    },
    "doctor": {
        "schema": "edgelathe.doctor/1",
        "device": "cam",
        "checks": [
            {"name": "key", "state": "ok", "what": "ED25519", "mend": ""},
            {
                "name": "governor",
                "state": "warn",
                "what": "'ondemand': latencies will wander",
                "mend": "set 'performance'",
            },
            {"name": "runtime", "state": "fail", "what": "none found", "mend": "edgelathe device install cam"},
        ],
    },
    "profiles": {
        "schema": "edgelathe.profiles/1",
        "profiles": [
            {
                "name": "x86-cpu",
                "title": "a PC",
                "machine": "x86_64",
                "runtimes": [
                    {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "threads": 1, "config": {}}
                ],
            }
        ],
    },
    "rollout": {
        "schema": "edgelathe.rollout/1",
        "id": None,
        "fleet": "shops.toml",
        "state": "not-ready",
        "waves": [],
        "gates": [],
        "devices": [
            {
                "name": "cam-1",
                "group": "shops",
                "state": "ready",
                "why": "",
                "agent": "0.1.0",
                "runtimes": [{"name": "onnxruntime", "version": "1.32.0"}],
                "free_bytes": 11_000_000_000,
            },
            {"name": "cam-2", "group": "shops", "state": "unreachable", "why": "no answer from cam-2:22"},
        ],
    },
    "comparison": {"schema": "edgelathe.comparison/1", "runs": [fit(), running()]},
    "device": {
        "schema": "edgelathe.device/1",
        "name": "cam",
        "url": "ssh://pi@cam",
        "root": None,
        "python": None,
        "profile": None,
        "fingerprint": "SHA256:abc",
    },
    "profile": {
        "schema": "edgelathe.profile/1",
        "name": "x86-cpu",
        "title": "a PC",
        "machine": "x86_64",
        "runtimes": [],
        "features": ["avx2"],
        "recipes": {"onnx": ["int8"]},
    },
    "check": {
        "schema": "edgelathe.check/1",
        "profile": "mine.toml",
        "problems": ["mine.toml: no key 'threds'"],
        "warnings": [],
    },
    "export": {"schema": "edgelathe.export/1", "run": "7f3a91c2", "files": ["out/model.onnx"]},
    "report": {"schema": "edgelathe.report/1", "run": "7f3a91c2", "file": "report.html"},
    "deleted": {"schema": "edgelathe.deleted/1", "deleted": ["7f3a91c2"]},
}
