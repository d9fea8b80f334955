"""Random inputs, and the lengths of open axes."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgelathe.core.errors import UserError
from edgelathe.core.signature import Signature, TensorInfo
from edgelathe.measure import inputs, subject
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
