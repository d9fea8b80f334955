from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgelathe.core import dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.model import io, run
from edgelathe.model import onnx as onnx_model

# README of the data: correct answers of 600.
CORRECT = {"model.onnx": 527, "model.tflite": 527, "model_int8_reference.tflite": 528}


@pytest.mark.parametrize("name", CORRECT)
def test_real_models_give_the_published_answers(data_dir, name):
    model = io.load(data_dir / "cifar10_resnet8" / name)
    data = dataset.bind(dataset.load(data_dir / "cifar10_resnet8/eval.npz"), model.signature)
    (answers,) = run.outputs(model, data.inputs)
    assert answers.shape == (600, 10)
    assert int((answers.argmax(1) == data.labels).sum()) == CORRECT[name]
    assert run.real([answers], model.signature)[0].sum(1) == pytest.approx(1, abs=0.05)  # softmax


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tflite-runtime"])
def test_both_tflite_runtimes(data_dir, runtime):
    options = SessionOptions(runtime, "CPU", threads=2)
    if not run.available(options):
        pytest.skip(f"no {runtime} here")
    model = io.load(data_dir / "cifar10_resnet8/model.tflite")
    x = {"input_1": np.full((3, 32, 32, 3), 99, np.float32)}
    np.testing.assert_allclose(run.outputs(model, x, options)[0], run.outputs(model, x)[0], atol=1e-5)


def two_by_two(batch):
    """y = a + b and z = a * b; two inputs, two outputs, a batch that the model fixes or not."""
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 2]) for n in "abyz"}
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Mul", ["a", "b"], ["z"])]
    graph = helper.make_graph(nodes, "g", [values["a"], values["b"]], [values["y"], values["z"]])
    return onnx_model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "m"
    )


@pytest.mark.parametrize("batch", ["any", 1, 4])
def test_several_inputs_and_outputs_in_any_batch(batch):
    a, b = np.random.default_rng(0).random((2, 7, 2), np.float32)
    y, z = run.outputs(two_by_two(batch), {"b": b, "a": a})
    np.testing.assert_array_equal(y, a + b)
    np.testing.assert_array_equal(z, a * b)


def test_batches_are_single_samples_unless_the_model_fixes_more(monkeypatch):
    seen = []

    def fake(model, options):
        return lambda inputs: seen.append(inputs["a"].shape[0]) or [inputs["a"], inputs["b"]]

    monkeypatch.setattr(run, "session", fake)
    data = {"a": np.zeros((5, 2), np.float32), "b": np.zeros((5, 2), np.float32)}
    run.outputs(two_by_two("any"), data)
    assert seen == [1] * 5
    seen.clear()
    assert run.outputs(two_by_two(4), data)[0].shape == (5, 2)
    assert seen == [4, 4]


def test_outputs_without_a_batch_axis_are_one_sample(monkeypatch):
    monkeypatch.setattr(run, "session", lambda *_: lambda inputs: [inputs["a"][0] * 2, inputs["a"].sum()])
    a = np.arange(6, dtype=np.float32).reshape(3, 2)
    y, z = run.outputs(two_by_two("any"), {"a": a, "b": a})
    np.testing.assert_array_equal(y, a * 2)
    np.testing.assert_array_equal(z, a.sum(1))


def test_outputs_that_change_their_shape_are_refused(monkeypatch):
    monkeypatch.setattr(run, "session", lambda *_: lambda inputs: [np.zeros((1, int(inputs["a"][0, 0]))), np.zeros(1)])
    a = np.arange(6, dtype=np.float32).reshape(3, 2)
    with pytest.raises(UserError, match=r"output 'y' has shape \(0,\) for one sample and \(2,\)"):
        run.outputs(two_by_two("any"), {"a": a, "b": a})


def test_what_is_not_here_is_said():
    model = two_by_two(1)
    missing = SessionOptions("onnxruntime", "NoSuchExecutionProvider")
    assert not run.available(missing)
    assert not run.available(SessionOptions("tensorrt", "TensorRT"))
    with pytest.raises(UserError, match=r"NoSuchExecutionProvider.*CPUExecutionProvider"):
        run.session(model, missing)


def test_a_failure_while_running_is_one_line():
    with pytest.raises(UserError, match=r"^m: ONNX Runtime fails to run the model: Got invalid dimensions"):
        run.outputs(two_by_two("any"), {n: np.ones((1, 3), np.float32) for n in "ab"})


def test_session_entries_reach_the_runtime():
    options = SessionOptions("onnxruntime", "CPUExecutionProvider", config={"session.intra_op.allow_spinning": "0"})
    assert len(run.session(two_by_two(1), options)({n: np.ones((1, 2), np.float32) for n in "ab"})) == 2


def test_entries_that_are_not_the_runtimes_own_are_left_to_whom_they_are_for(data_dir):
    folder = data_dir / "cifar10_resnet8"
    with np.load(folder / "eval.npz") as z:
        x = z["x"][:2].astype(np.float32)
    for name, runtime, provider, entries in [
        ("model.onnx", "onnxruntime", "CPUExecutionProvider", {"edgelathe.io_binding": "1", "provider.x": "1"}),
        ("model.tflite", "ai-edge-litert", "CPU", {"edgelathe.kernels": "reference"}),
        ("model.tflite", "ai-edge-litert", "CPU", {"edgelathe.xnnpack": "0"}),
    ]:
        model = io.load(folder / name)
        fed = {model.signature.inputs[0].name: x}
        (plain,) = run.outputs(model, fed, SessionOptions(runtime, provider))
        (got,) = run.outputs(model, fed, SessionOptions(runtime, provider, 1, entries))
        np.testing.assert_allclose(got, plain, rtol=1e-3, atol=1e-5)
