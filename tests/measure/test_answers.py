"""Models whose answers cannot be measured are refused before a device is asked for anything."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgelathe.cli import main
from edgelathe.core.errors import UserError
from edgelathe.measure import answers
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph

NO_AXIS = "input 'x' is one sample (8): it has no axis of samples; export the model with a batch axis before its others"


def dense(shape, declared=None):
    """x [shape] times [8, 4]; `declared`: what the file says of the output, instead of what it is."""
    g = Graph()
    model = g.build(g.op("MatMul", "x", g.const(np.ones((8, 4), np.float32), "w"), name="fc"), shape=shape)
    if declared is None:
        return model
    proto = onnx_model.to_proto(model)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info(proto.graph.output[0].name, 1, declared))
    return onnx_model.from_proto(proto, "tiny")


def ending(kind: str) -> bytes:
    """A model with a second output that is text or a sequence."""
    proto = onnx_model.to_proto(dense(("n", 8)))
    (y,) = proto.graph.output
    if kind == "text":
        proto.graph.node.append(helper.make_node("Cast", [y.name], ["z"], to=TensorProto.STRING))
        proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.STRING, ("n", 4)))
    else:
        proto.graph.node.append(helper.make_node("SequenceConstruct", [y.name], ["z"]))
        proto.graph.output.append(helper.make_tensor_sequence_value_info("z", TensorProto.FLOAT, None))
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


@pytest.mark.parametrize("declared", [None, ("k",)])
def test_an_input_without_an_axis_of_samples(declared):
    with pytest.raises(UserError) as caught:
        answers.check(dense((8,), declared), "m.onnx")
    assert str(caught.value) == f"m.onnx: {NO_AXIS}"


@pytest.mark.parametrize(
    ("shape", "declared"), [((8, 8), None), ((8, 8), ("a", "b")), ((1, 8), None), (("n", 8), None), ((2, 2, 8), None)]
)
def test_fixed_batches_are_measured(shape, declared):
    answers.check(dense(shape, declared), "m.onnx")


def test_one_sample_may_answer_without_an_axis_for_it():
    g = Graph()
    total = g.op("ReduceSum", "x", keepdims=0)
    answers.check(g.build(total, shape=(1, 8)), "m.onnx")


@pytest.mark.parametrize(("command", "more"), [("bench", []), ("eval", ["--data", "d.npz"]), ("trace", [])])
@pytest.mark.parametrize("kind", ["text", "sequence"])
def test_outputs_that_are_no_numbers_are_the_models_fault(command, more, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(ending(kind))
    np.savez(tmp_path / "d.npz", x=np.ones((4, 8), np.float32), y=np.arange(4))
    monkeypatch.setattr("edgelathe.device.open.open_device", None)  # not asked for
    assert main.run([command, "m.onnx", *more]) == 2
    said = f"error: m.onnx: output 'z' is no array of numbers ({kind}); export the model without it\n"
    assert capsys.readouterr() == ("", said)


def test_bench_says_so_before_it_asks_a_device(tmp_path, monkeypatch, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(dense((8,)).data)
    monkeypatch.setattr("edgelathe.device.open.open_device", None)
    assert main.run(["bench", str(path)]) == 2
    assert capsys.readouterr() == ("", f"error: {path}: {NO_AXIS}\n")
