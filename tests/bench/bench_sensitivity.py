"""Sensitivity of all layers of ResNet8 at 3 widths over 1,000 samples, against evaluating a whole model for each."""

from __future__ import annotations

import statistics
import time

import pytest

from edgelathe.compress.forward import partial
from edgelathe.compress.integer import weighted
from edgelathe.compress.sensitivity import measure as sensitivity
from edgelathe.compress.sensitivity import reference
from edgelathe.compress.sensitivity.reference import Change
from edgelathe.compress.sensitivity.scene import Scene
from edgelathe.core import dataset
from edgelathe.model import io, run
from edgelathe.model import onnx as onnx_model
from edgelathe.model.types import Model
from edgelathe.stats import metrics

pytestmark = pytest.mark.bench

ROUNDS = 3


@pytest.fixture
def case(data_dir):
    model = io.load(data_dir / "cifar10_resnet8" / "model.onnx")
    data = dataset.load(data_dir / "cifar10_resnet8" / "calib.npz")
    return model, dataset.bind(data, model.signature, "model.onnx")


def whole_models(case, widths, *, batched):
    """Each layer rounded in a model of its own, run on every sample: one by one as `eval` does, or in chunks."""
    model, data = case
    with partial.workers(1) as run_all:
        scene = Scene.of(model, data, run_all)
        values = {}
        for layer in scene.layers:
            for bits in widths:
                change = Change(weighted.rounded(layer, bits, scene.means[layer.source]))
                if batched:
                    outputs = reference.whole(scene.float, change).first
                else:
                    proto = onnx_model.to_proto(
                        Model("onnx", scene.float.proto.SerializeToString(), "w", model.signature)
                    )
                    del proto.graph.output[1:]
                    reference.replace(proto, change)
                    outputs = run.outputs(onnx_model.from_proto(proto, "whole"), data.inputs)[0]
                values[layer.name, bits] = metrics.evaluate(scene.metric, outputs, data.labels).value
    return values


def ours(case, widths, threads, *, early=False):
    model, data = case
    with partial.workers(threads) as run_all:
        found = sensitivity.measure(Scene.of(model, data, run_all), widths, early=early)
    return {(la.layer, w.bits): w.accuracy.value for la in found.layers for w in la.widths}


@pytest.mark.parametrize("widths", [(16, 8, 4), (8, 4, 2), (8, 6, 4)], ids=str)
def test_against_whole_models(case, widths):
    ways = {
        "whole models, sample by sample": lambda: whole_models(case, widths, batched=False),
        "whole models, in chunks": lambda: whole_models(case, widths, batched=True),
        "partial, 1 thread": lambda: ours(case, widths, 1),
        f"partial, {partial.cpus()} threads": lambda: ours(case, widths, None),
        f"partial, {partial.cpus()} threads, --early": lambda: ours(case, widths, None, early=True),
    }
    wall = {name: [] for name in ways}
    cpu = {name: [] for name in ways}
    values = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start, used = time.perf_counter(), time.process_time()
            values[name] = way()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    first = next(iter(ways))
    what = f"ResNet8, 10 layers, 1,000 samples, bits {widths}"
    print(f"\n{what:48} {'s':>7} {'times':>6} {'CPU s':>7} {'times':>6}")
    for name in ways:
        ratio, of_cpu = (statistics.median(a / b for a, b in zip(t[first], t[name], strict=True)) for t in (wall, cpu))
        seconds, used = (statistics.median(t[name]) for t in (wall, cpu))
        print(f"{name:48} {seconds:7.2f} {ratio:6.1f} {used:7.2f} {of_cpu:6.1f}")
    for name in list(ways)[1:4]:  # the same answers, to the last sample
        assert all(abs(values[name][k] - v) < 0.0005 for k, v in values[first].items())
    one = statistics.median(a / b for a, b in zip(cpu[first], cpu["partial, 1 thread"], strict=True))
    assert one > 2  # what is left out: half of each whole pass, and samples whose answers cannot turn
