import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgelathe.calibrate import probes, statistics
from edgelathe.calibrate.probes import Probe

RNG = np.random.default_rng(0)


def read(x, axis, opset=13):
    """What a graph with a probe on its one inner tensor, equal to `x`, says of it."""
    probe = Probe("t", x.shape, axis)
    extra = probes.beside([probe], opset)
    info = onnx.helper.make_tensor_value_info
    given, node = info("x", onnx.TensorProto.FLOAT, x.shape), onnx.helper.make_node("Identity", ["x"], ["t"])
    graph = onnx.helper.make_graph([node, *extra.node], "g", [given], list(extra.output), list(extra.initializer))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(probe.outputs), {"x": x})
    return probes.read(probe, dict(zip(probe.outputs, found, strict=True)))


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 5, 30, 70), 1),
        ((1, 30, 70, 5), 3),
        ((3, 5, 30, 70), 1),
        ((3, 7), 1),
        ((1, 900, 9), 2),
        ((2, 9000), None),
        ((), None),
    ],
)
def test_a_graph_says_of_a_tensor_what_numpy_does(shape, axis, opset):
    x = np.asarray(RNG.normal(size=shape) * 3 + 1, np.float32)
    found, true = read(x, axis, opset), statistics.of("t", x, axis)
    assert (found.low, found.high, found.shape, found.samples) == (true.low, true.high, true.shape, true.samples)
    assert np.array_equal(found.histogram.counts, true.histogram.counts)
    assert (found.channels is None) == (axis is None)
    if axis is not None:
        assert (found.channels.axis, found.channels.count) == (true.channels.axis, true.channels.count)
        for name in ("mean", "m2", "low", "high"):
            assert getattr(found.channels, name) == pytest.approx(getattr(true.channels, name), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [None, 1])
def test_a_single_value_that_is_not_finite_is_refused(bad, axis):
    x = np.zeros((1, 3, 4000), np.float32)
    x[0, 1, 2] = bad
    with pytest.raises(ValueError, match="'t' is not finite"):
        read(x, axis)


def test_values_whose_sum_float32_cannot_hold_keep_their_range():
    x = np.full((1, 2, 64), -3e38, np.float32)
    x[0, 0] = 0
    found = read(x, 1)
    assert found.low == x.min()
    assert found.mean.tolist() == [0, float(x.min())]
    assert np.isfinite(found.channels.m2).all()
