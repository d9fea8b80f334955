"""Random inputs, and the lengths of open axes."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.signature import Signature, TensorInfo
from edgelathe.device.errors import ModelFailure
from edgelathe.measure import inputs, subject
from edgelathe.model import onnx as onnx_model
from edgelathe.model.types import Model
from support.benching import OPTIONS, models
from support.tiny_onnx import Graph


def image_model():
    g = Graph()
    return g.build(g.conv("x", 3, 4), shape=("n", 3, "h", "w"))


def fed(wanted, model=None, samples=4):
    ((arrays, said),) = inputs.generated([("m.onnx", model or image_model())], wanted, 0, samples)
    return arrays, said


def test_open_axes_are_taken_as_1_and_that_is_said():
    arrays, said = fed({})
    assert arrays["x"].shape == (4, 3, 1, 1)
    assert said == (
        "input 'x' is ?x3x?x?: axes 2, 3 are of any length and taken as 1; say --shape x=1,3,N,N, or give --data",
    )
    (made,) = subject.subjects([("m.onnx", image_model())], [OPTIONS], None, 0, 0)
    assert made.remarks == said


def test_an_open_number_of_samples_is_nothing_to_be_said():
    assert inputs.guessed(models(1)[0][1].signature) == []


@pytest.mark.parametrize("text", ["x=1,3,16,24", "1,3,16,24", "x=1x3x16x24"])
def test_given_lengths_are_taken_and_axis_0_still_counts_samples(text):
    arrays, said = fed(inputs.shapes([text]), samples=5)
    assert arrays["x"].shape == (5, 3, 16, 24)
    assert said == ()


def test_a_part_of_the_inputs_may_be_given():
    g = Graph()
    model = g.build(
        g.op("Add", "x", "y"),
        shape=("n", "k"),
        inputs=(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", "k")),),
    )
    arrays, said = fed(inputs.shapes(["y=1,7"]), model)
    assert arrays["y"].shape == (4, 7)
    assert [s.split(":")[0] for s in said] == ["input 'x' is ?x?"]


def test_each_model_takes_the_shapes_of_its_own_inputs():
    ours, other = image_model(), models(1)[0]
    (arrays, _), (digits, said) = inputs.generated([("m.onnx", ours), other], {"x": (1, 3, 8, 9)}, 0)
    assert arrays["x"].shape == (4, 3, 8, 9)
    assert said == ()
    assert all(a.shape[1:] == t.shape[1:] for a, t in zip(digits.values(), other[1].signature.inputs, strict=True))


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["z=1,3,8,8"], "no input 'z'"),
        (["x=2,3,8,8"], "axis 0 of 'x' is samples, not 2; write 1"),
        (["x=1,4,8,8"], "1,4,8,8 does not fit input 'x' of m.onnx, ?x3x?x?"),
        (["x=1,3,8"], "does not fit"),
        (["x=1,3,8,-1"], "'1,3,8,-1' is not a list of lengths above 0"),
        (["x=1,3,0,8"], "above 0"),
        (["x="], "is not a list"),
        (["x=1,3,8,8", "x=1,3,9,9"], "x is given twice"),
    ],
)
def test_refusals(texts, says):
    with pytest.raises(UserError) as caught:
        fed(inputs.shapes(texts))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_integers_and_truths_are_in_their_ranges():
    of = [TensorInfo("ids", (1, 64), "int64"), TensorInfo("mask", (1, 64), "bool"), TensorInfo("x", (1, 64), "float16")]
    made = inputs.random_inputs(Signature(tuple(of), ()), 0, samples=20)
    assert (made["ids"].min(), made["ids"].max()) == (0, 127)
    assert made["mask"].dtype == np.bool_
    assert 0 <= made["x"].min() < made["x"].max() <= 1


def test_inputs_that_no_array_is_for_are_refused_by_name():
    proto = image_model()
    text = TensorInfo("words", (None, 3), "str")
    spoken = Model(proto.format, proto.data, proto.name, Signature((text,), ()))
    with pytest.raises(UserError, match=r"m\.onnx: input 'words' takes text"):
        fed({}, spoken)


def lookup(rows: int, *, shifted: bool = False):
    """A model of ids [n, 6] and a table of so many rows; `shifted`: it computes with the ids first."""
    g = Graph()
    ids = g.op("Add", "ids", g.const(np.int64(0))) if shifted else "ids"
    model = g.build(
        g.op("Gather", g.weights(rows, 8), ids),
        inputs=[helper.make_tensor_value_info("ids", TensorProto.INT64, ("n", 6))],
    )
    proto = onnx_model.to_proto(model)
    del proto.graph.input[0]
    return onnx_model.from_proto(proto, "tiny")


def test_numbers_fit_the_smallest_table_of_the_models_that_are_compared():
    pair = [("a.onnx", lookup(100)), ("b.onnx", lookup(5))]
    (a, _), (b, _) = inputs.generated(pair, {}, 0, samples=20)
    assert (a["ids"].min(), a["ids"].max()) == (0, 4)
    assert (a["ids"] == b["ids"]).all()
    ((alone, _),) = inputs.generated(pair[:1], {}, 0, samples=200)
    assert alone["ids"].max() == 99


def test_a_failure_on_drawn_numbers_says_what_to_do():
    (made,) = subject.subjects([("m.onnx", lookup(3, shifted=True))], [OPTIONS], None, 0, 0)
    failure = ModelFailure("pi", "indices element out of data bounds", "check the model", "model")
    assert made.failed(failure).mend == "its integer inputs were drawn at random: give real samples with --data"
    data = Dataset("d.npz", {"ids": np.zeros((4, 6), np.int64)})
    (given,) = subject.subjects([("m.onnx", lookup(3))], [OPTIONS], data, 0, 0)
    assert given.failed(failure) is failure
    (floats,) = subject.subjects([("m.onnx", image_model())], [OPTIONS], None, 0, 0)
    assert floats.failed(failure) is failure
