from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper

from edgelathe.compress.pruning import sparse
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model


def two_layers():
    """Two products that share their weights, and one of its own."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 8)), "v": rng.normal(size=(8, 4)), "b": rng.normal(size=(4,))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "w"], ["c"], name="two"),
        helper.make_node("Gemm", ["c", "v", "b"], ["y"], name="three"),
    ]
    x, y = (helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [1, 8]), ("y", [1, 4])))
    init = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], init)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx_model.from_proto(proto, "two")


def weights(model):
    return {t.name: numpy_helper.to_array(t) for t in onnx_model.to_proto(model).graph.initializer}


def test_the_smallest_go_and_the_rest_stays():
    model = two_layers()
    a = sparse.apply(model, sparse.Options(amount=0.5), Context())
    old, new = weights(model), weights(a.model)
    assert len(new) == len(old) == 3
    (shared,) = (v for v in new.values() if v.shape == (8, 8))
    assert (shared == 0).sum() == 32
    kept = shared != 0
    assert (shared[kept] == old["w"][kept]).all()
    assert np.abs(old["w"])[~kept].max() <= np.abs(old["w"])[kept].min()
    assert (new["b"] == old["b"]).all()


def test_notes_give_the_share_and_say_that_nothing_gets_faster():
    a = sparse.apply(two_layers(), sparse.Options(amount=0.25), Context())
    notes = {n.layer: n.what for n in a.notes}
    assert notes["three"] == "25.0% zeros"
    assert "neither smaller nor faster" in notes["model"]
    assert a.model.bytes == pytest.approx(two_layers().bytes, abs=50)


def test_the_threshold_is_a_share_of_each_layers_largest():
    w = np.array([[1.0, -0.2, 0.05], [0.1, -0.09, 0.0]], np.float32)
    assert sparse.zeroed(w, sparse.Options(threshold=0.1)).tolist() == [[False, False, True], [False, True, True]]


def test_a_skipped_layer_keeps_its_weights():
    model = two_layers()
    a = sparse.apply(model, sparse.Options(amount=0.5), replace(Context(), overrides={"thr*": {"skip": True}}))
    assert (weights(a.model)["v"] == weights(model)["v"]).all()


def test_both_options_are_refused():
    with pytest.raises(UserError, match="leave one"):
        sparse.apply(two_layers(), sparse.Options(threshold=0.1, amount=0.5), Context())


def test_without_options_a_threshold_is_chosen_and_written_down():
    assert sparse.SPEC.resolve(sparse.Options(), Hardware(None, frozenset())).threshold == 0.05


def test_equal_input_gives_equal_bytes():
    runs = [sparse.apply(two_layers(), sparse.Options(threshold=0.3), Context()).model.sha256 for _ in range(2)]
    assert runs[0] == runs[1]


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-4, 4, width=32)),
    st.floats(0, 1),
)
def test_the_amount_is_exact_whatever_the_ties(w, amount):
    assert sparse.zeroed(w, sparse.Options(amount=amount)).sum() == round(amount * w.size)
