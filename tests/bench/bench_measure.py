"""Whether `bench` tells the truth: against a bare loop, a model against itself, a model made slower, again and again.

`EDGELATHE_BENCH_RUNS` scales the number of runs (1: as the document says; 0.1: a tenth).
"""

from __future__ import annotations

import collections
import os
import random
import sys
import time
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core import dataset
from edgelathe.core.device import SessionOptions, Target
from edgelathe.device.open import LOCAL, open_device
from edgelathe.measure.bench import bench_document
from edgelathe.measure.plan import Job
from edgelathe.model import io
from edgelathe.stats.quantile import bounds
from support import sshd

pytestmark = pytest.mark.bench

CPU = SessionOptions("onnxruntime", "CPUExecutionProvider")
LITE = SessionOptions("ai-edge-litert", "CPU")
SCALE = float(os.environ.get("EDGELATHE_BENCH_RUNS", "1"))
MIRROR = {"faster": "slower", "slower": "faster"}
QUICK = Job(min_ms=300, max_ms=2000, cool_down_ms=0)


def runs(count):
    return max(2, round(count * SCALE))


@pytest.fixture(scope="module")
def device():
    with open_device(LOCAL) as opened:
        yield opened


def chain(layers, width=192):
    """A network of equal layers: one with 5% more layers takes 5% more time."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array((rng.normal(size=(width, width)) / np.sqrt(width)).astype(np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"]) for i in range(layers)]
    tensor = helper.make_tensor_value_info
    ends = [tensor(f"t{i}", TensorProto.FLOAT, [32, width]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return io.from_bytes(model.SerializeToString(), "onnx", f"{layers} layers")


def verdict(device, models, job):
    named = [(f"{i} {model.name}", model) for i, model in enumerate(models)]
    document = bench_document(device, named, [CPU] * len(models), None, job)
    (row,) = document["comparisons"]
    return row["verdict"], row, sum(r["latency_ms"]["n"] * r["latency_ms"]["mean"] for r in document["results"]) / 1000


def bare(model, x, seconds):
    """Median of a loop over the runtime alone, in ms."""
    call, times = loop(model, x), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times[len(times) // 5 :])) / 1e6


def loop(model, x):
    if model.format == "tflite":
        interpreter = Interpreter(model_content=model.data, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        return interpreter.invoke
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    session = ort.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def test_fidelity_against_a_bare_loop(data_dir, device, tmp_path):
    """Here, over ssh, and the bare loop, in short turns of random order: medians of the ratios, 95% intervals."""
    files = {
        "ResNet8": ("cifar10_resnet8/model.onnx", "cifar10_resnet8/eval.npz"),
        "ResNet8, TFLite": ("cifar10_resnet8/model.tflite", "cifar10_resnet8/eval.npz"),
        "MobileNetV2 CIFAR": ("cifar10_mobilenetv2/model.onnx", None),
        "MobileNetV2 224": ("imagenet_mobilenetv2/model.onnx", None),
    }
    job, chance = Job(min_ms=400, cool_down_ms=0), random.Random(0)
    print(f"\n{'model':18} {'bare ms':>9} {'here':>23} {'over ssh':>23}")
    with sshd.sshd(tmp_path / "sshd") as server:
        server.trust()
        board = Target("board", f"ssh://{server.name}", root=str(tmp_path / "root"), python=sys.executable)
        with open_device(board, ssh_config=server.config) as far:
            for title, (file, data) in files.items():
                model = io.load(data_dir / file)
                samples = dataset.take(dataset.load(data_dir / data), np.arange(1)) if data else None
                (tensor,) = model.signature.inputs
                x = (
                    dataset.bind(samples, model.signature, title).inputs[tensor.name]
                    if samples
                    else np.random.default_rng(0).random([n or 1 for n in tensor.shape], np.float32)
                )
                ways = [
                    lambda model=model, x=x: bare(model, x, 0.4),
                    *(lambda d=d, m=model, t=title, s=samples: ours(d, t, m, s, job) for d in (device, far)),
                ]
                table = np.empty((runs(30), len(ways)))
                for row in table:
                    for i in chance.sample(range(len(ways)), len(ways)):
                        row[i] = ways[i]()
                ratios = [median_interval(table[:, i] / table[:, 0]) for i in (1, 2)]
                print(f"{title:18} {np.median(table[:, 0]):9.3f} {ratios[0]:>23} {ratios[1]:>23}")


def ours(device, title, model, samples, job):
    document = bench_document(device, [(title, model)], [LITE if model.format == "tflite" else CPU], samples, job)
    return document["results"][0]["latency_ms"]["p50"]


def median_interval(values):
    ordered = np.sort(values)
    ends = bounds(ordered, 0.5, 0.025, len(ordered))
    return f"{np.median(ordered):.3f}x [{ends.low:.3f}, {ends.high:.3f}]"


def test_a_model_against_itself(data_dir, device):
    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    counts: collections.Counter[str] = collections.Counter()
    total = runs(200)
    for seed in range(total):
        counts[verdict(device, [model, model], replace(QUICK, seed=seed))[0]] += 1
    wrong = counts["faster"] + counts["slower"]
    print(f"\nA/A, {total} comparisons: {wrong / total:.1%} faster or slower, {dict(counts)}")
    assert wrong <= 0.075 * total + 2 * np.sqrt(total * 0.075)


@pytest.mark.parametrize(("layers", "more", "job", "count"), [
    (40, 42, Job(cool_down_ms=0), 20), (100, 102, Job(max_ms=60_000, cool_down_ms=0), 10),
])  # fmt: skip
def test_a_slower_model_is_found_whichever_comes_first(device, layers, more, job, count):
    a, b, total = chain(layers), chain(more), runs(count)
    found, agreed, spent = 0, 0, []
    for seed in range(total):
        this = replace(job, seed=seed)
        first, row, seconds = verdict(device, [a, b], this)
        second, _, _ = verdict(device, [b, a], this)
        found += first == "slower"
        agreed += first == MIRROR.get(second, second)
        spent.append(seconds)
    print(
        f"\n{more / layers - 1:.0%} slower: found in {found} of {total} (last {row['ratio']:.3f}x "
        f"[{row['low']:.3f}, {row['high']:.3f}]), orders agree in {agreed}, {np.median(spent):.1f} s of calls a run"
    )


@pytest.mark.parametrize("way", ["one after the other", "in turns"])
def test_intervals_cover_across_runs(data_dir, device, way):
    """How many intervals hold the median of all runs together.

    A shared machine changes its speed for seconds at a time, which no short run can know of those before and after it;
    runs in turns, each in a process of its own, all see the same changes.
    """
    model, total, job = io.load(data_dir / "cifar10_resnet8" / "model.onnx"), runs(40), Job(min_ms=1000, cool_down_ms=0)
    if way == "in turns":
        named, turns = [(str(i), model) for i in range(total)], replace(job, max_ms=job.min_ms)
        rows = [r["latency_ms"] for r in bench_document(device, named, [CPU] * total, None, turns)["results"]]
    else:
        once = [bench_document(device, [("a", model)], [CPU], None, replace(job, seed=i)) for i in range(total)]
        rows = [document["results"][0]["latency_ms"] for document in once]
    for name in ("p50", "p95"):
        truth = float(np.median([row[name] for row in rows]))
        ends = [(row[f"{name}_ci"][0] or 0.0, row[f"{name}_ci"][1] or np.inf) for row in rows]
        held, unbounded = sum(low <= truth <= high for low, high in ends), sum(high == np.inf for _, high in ends)
        spread = np.percentile([row[name] for row in rows], [5, 95]) / truth
        print(
            f"\n{way}, {name}: {held} of {total} intervals hold {truth:.4f} ms, {unbounded} without an upper end; "
            f"runs spread {spread[0]:.3f} to {spread[1]:.3f}"
        )
