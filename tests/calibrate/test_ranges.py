import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgelathe.calibrate import ranges
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from support import large_onnx
from support.tiny_onnx import Graph, samples


@pytest.fixture
def net():
    g = Graph()
    a = g.op("Relu", g.conv("x", 3, 4))
    return g.build(g.conv(a, 4, 2)), a


def test_range_mean_and_shape_are_exact(net):
    model, inner = net
    data = samples(model, 5)
    seen = ranges.collect(model, data, {"x": 1, inner: None})
    x = data.inputs["x"]
    assert (seen["x"].low, seen["x"].high) == (x.min(), x.max())
    assert seen["x"].mean == pytest.approx(x.mean(axis=(0, 2, 3)), abs=1e-6)
    assert seen[inner].low >= 0
    assert seen[inner].mean is None
    assert seen[inner].shape == (1, 4, 8, 8)


def test_tensors_looked_at_whole_give_what_the_graph_says_of_them(net, monkeypatch):
    model, inner = net
    data, wanted = samples(model, 4), {"x": 1, inner: 1, model.signature.outputs[0].name: 1}
    probed = ranges.gather(model, data, wanted)
    monkeypatch.setattr(ranges, "_shapes", lambda *_: {})
    monkeypatch.setattr(ranges, "WHOLE_AT_ONCE", 1)
    whole = ranges.gather(model, data, wanted)
    for name in wanted:
        assert (probed[name].low, probed[name].high) == (whole[name].low, whole[name].high)
        assert probed[name].mean == pytest.approx(whole[name].mean, abs=1e-6)
        assert np.array_equal(probed[name].histogram.counts, whole[name].histogram.counts)


def test_samples_in_a_wrong_layout_are_refused_in_one_line(net):
    model, inner = net
    data = Dataset("d", {"x": np.zeros((2, 8, 8, 3), np.float32)})
    with pytest.raises(UserError, match=r"fails to run on calibration samples .'x' 1x8x8x3.*layout"):
        ranges.gather(model, data, {inner: None})


def test_memory_does_not_grow_with_the_samples(net):
    model, inner = net

    def peak(n):
        data = Dataset("d", {"x": np.broadcast_to(np.float32(1), (n, 3, 8, 8))})
        tracemalloc.start()
        ranges.collect(model, data, {inner: 1})
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(2)
    assert peak(2400) - peak(400) < 2000 * 100  # bytes: garbage that waits for its collection; one activation is 1 kB


def test_a_fixed_batch_is_filled_up():
    g = Graph()
    model = g.build(g.conv("x", 3, 4), shape=(4, 3, 8, 8))
    data = samples(model, 6)
    assert ranges.collect(model, data, {"x": None})["x"].high == data.inputs["x"].max()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(net, bad):
    model, inner = net
    x = np.zeros((3, 3, 8, 8), np.float32)
    x[1, 0, 0, 0] = bad
    with pytest.raises(UserError, match=r"sample 1.*not finite"):
        ranges.collect(model, Dataset("d.npz", {"x": x}), {inner: None})


def test_a_second_recipe_does_not_run_the_model_again(net, monkeypatch):
    model, inner = net
    data = samples(model, 4)
    first = ranges.collect(model, data, {"x": 1, inner: None})
    ran = []
    gather = ranges.gather
    monkeypatch.setattr(ranges, "gather", lambda m, d, t: ran.append(dict(t)) or gather(m, d, t))
    again = ranges.collect(model, data, {"x": None, inner: None})
    assert ran == [{}]
    assert np.array_equal(again["x"].histogram.counts, first["x"].histogram.counts)
    ranges.collect(model, data, {"x": 1, inner: 1})
    assert ran[1:] == [{inner: 1}]
    ranges.collect(model, samples(model, 4, seed=2), {"x": 1})
    assert ran[2:] == [{"x": 1}]


def test_resident_memory_is_flat_from_64_to_1024_samples():
    def peak(n):
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(n)], check=True, capture_output=True, cwd=Path(__file__).parents[1]
        )
        return int(child.stdout)

    assert peak(1024) - peak(64) < 8_000_000  # bytes; the model's activations of 1,024 samples are 200 MB


def test_a_model_with_external_weights_is_never_opened_from_a_file_without_them(tmp_path, monkeypatch):
    large = large_onnx.load(large_onnx.write(large_onnx.chain(), tmp_path / "m.onnx"), monkeypatch)
    data = Dataset("d", large_onnx.samples())
    want = ranges.gather(large, data, {"x1": None})["x1"]
    monkeypatch.setattr(ranges, "_LARGE", 0)
    have = ranges.gather(large, data, {"x1": None})["x1"]
    assert (have.low, have.high) == (want.low, want.high)


CHILD = """
import resource, sys
import numpy as np
from edgelathe.calibrate import ranges
from edgelathe.core.dataset import Dataset
from support.tiny_onnx import Graph
g = Graph()
a = g.op("Relu", g.conv("x", 3, 16))
model = g.build(g.conv(a, 16, 16), shape=("n", 3, 40, 40))
x = np.random.default_rng(0).normal(size=(1, 3, 40, 40)).astype(np.float32)
data = Dataset("d", {"x": np.broadcast_to(x, (int(sys.argv[1]), 3, 40, 40))})
ranges.gather(model, data, {"x": 1, a: 1, model.signature.outputs[0].name: 1})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
