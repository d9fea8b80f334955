from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core.errors import UserError
from edgelathe.core.signature import TensorInfo
from edgelathe.model import io

MODELS = [
    "cifar10_resnet8/model.onnx",
    "cifar10_resnet8/model.tflite",
    "cifar10_resnet8/model_int8_reference.tflite",
    "cifar10_mobilenetv2/model.onnx",
    "cifar10_mobilenetv2/model_unbalanced.onnx",
    "imagenet_mobilenetv2/model.onnx",
    "imagenet_mobilenetv2/model_int8_reference.tflite",
]


def proto(*nodes, opset=17, constants=(), domain="", functions=()):
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"], name="act")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    sets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=sets, ir_version=8, functions=list(functions))


@pytest.mark.parametrize("name", MODELS)
def test_real_models_load_and_save_unchanged(data_dir, tmp_path, name):
    model = io.load(data_dir / name)
    io.save(model, tmp_path / "again")
    again = io.load(tmp_path / "again")  # by content: the name tells nothing
    assert (again.format, again.sha256, again.signature) == (model.format, model.sha256, model.signature)
    assert io.from_bytes(model.data, model.format, model.name) == model


def test_signatures_of_both_formats(data_dir):
    onnx_model = io.load(data_dir / "cifar10_resnet8/model.onnx")
    integer = io.load(data_dir / "cifar10_resnet8/model_int8_reference.tflite")
    assert onnx_model.signature.inputs == (TensorInfo("input", (None, 32, 32, 3), "float32"),)
    assert onnx_model.signature.outputs == (TensorInfo("output", (None, 10), "float32"),)
    assert integer.signature.inputs == (TensorInfo("input_1_int8", (None, 32, 32, 3), "int8", 1.0, -128),)
    assert integer.signature.outputs == (TensorInfo("Identity_int8", (None, 10), "int8", 1 / 256, -128),)


def test_initializers_are_no_inputs(tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    made = proto(helper.make_node("MatMul", ["x", "w"], ["y"]), constants=[weight])
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))
    assert [i.name for i in load(made, tmp_path).signature.inputs] == ["x"]


BYTES = {
    "empty.onnx": (b"", ["empty"]),
    "empty.tflite": (b"", ["empty"]),
    "noise.onnx": (np.random.default_rng(0).bytes(5000), ["not an ONNX"]),
    "noise.tflite": (np.random.default_rng(0).bytes(5000), ["TFL3"]),
    "settings.toml": (b'extends = "x86-cpu"\n', ["text file"]),
    "umlaut.txt": ("Grüße\n".encode(), ["text file"]),
    "torch.pt": (b"PK\x03\x04" + bytes(100), ["zip", "torch.onnx.export"]),
    "keras.h5": (b"\x89HDF\r\n" + bytes(100), ["HDF5", "tf2onnx"]),
    "pointer.onnx": (b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
    "mark.tflite": (b"\x1c\0\0\0TFL3" + bytes(50), ["broken TFLite"]),
    "short.tflite": (b"\x1c\0\0\0TFL3", ["broken TFLite"]),
}


@pytest.mark.parametrize("name", BYTES)
def test_files_that_are_no_models(tmp_path, name):
    content, words = BYTES[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *words)


def test_paths_that_are_no_files(tmp_path):
    refused(tmp_path / "missing.onnx", "no such file")
    refused(tmp_path, "folder")


@pytest.mark.parametrize("name", ["cifar10_resnet8/model.onnx", "cifar10_resnet8/model.tflite"])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.9, 0.9999])
def test_cut_off_models(data_dir, tmp_path, name, part):
    whole = (data_dir / name).read_bytes()
    path = tmp_path / f"cut{name[-7:]}"
    path.write_bytes(whole[: int(len(whole) * part)])
    refused(path, "cut off" if path.suffix == ".onnx" else "broken TFLite")


def dense(name="w", location="w.bin", **entries):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto(helper.make_node("MatMul", ["x", "w"], ["y"]), constants=[tensor])


def branches():
    """An operator that does not exist, inside of an If."""
    outputs = {n: [helper.make_tensor_value_info(n, TensorProto.FLOAT, None)] for n in "ab"}
    return proto(
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node(
            "If", ["c"], ["y"],
            then_branch=helper.make_graph([helper.make_node("Sparkle", ["x"], ["a"])], "t", [], outputs["a"]),
            else_branch=helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "e", [], outputs["b"]),
        ),
    )  # fmt: skip


node = helper.make_node
ADD = [node("Add", ["a", "a"], ["b"])]
TWICE = helper.make_function("mine", "Twice", ["a"], ["b"], ADD, [helper.make_opsetid("", 17)])
FOREIGN = node("Nope", ["x"], ["y"], domain="com.microsoft")
PROTOS = {
    "old": (proto(opset=9), ["opset 9", "11 to", "version_converter"]),
    "future": (proto(opset=99), ["opset 99", "newer"]),
    "operator": (proto(node("Sparkle", ["x"], ["y"], name="n1")), ["Sparkle", "n1", "opset 17"]),
    "later": (proto(node("Gelu", ["x"], ["y"], name="n1")), ["Gelu", "opset 17"]),
    "domain": (proto(node("F", ["x"], ["y"], domain="acme"), domain="acme"), ["acme:F"]),
    "microsoft": (proto(FOREIGN, domain="com.microsoft"), ["ONNX Runtime refuses", "Nope"]),
    "inside": (branches(), ["Sparkle"]),
    "dangling": (proto(node("Relu", ["nowhere"], ["y"])), ["not valid ONNX", "nowhere"]),
    "types": (proto(node("Not", ["x"], ["y"], name="n1")), ["ONNX Runtime refuses", "n1"]),
    "external": (dense(), ["w.bin", "missing", "beside external.onnx"]),
    "outside": (dense(location="../w.bin"), ["../w.bin", "outside"]),
}


@pytest.mark.parametrize("name", PROTOS)
def test_onnx_that_does_not_run(tmp_path, name):
    made, words = PROTOS[name]
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(made.SerializeToString())
    refused(path, *words)


def test_external_weights_become_part_of_the_model(tmp_path):
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    (tmp_path / "w.bin").write_bytes(bytes(8) + values.tobytes())
    (tmp_path / "m.onnx").write_bytes(dense(offset=8, length=64).SerializeToString())
    model = io.load(tmp_path / "m.onnx")
    loaded = onnx.load_from_string(model.data).graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(loaded), values)
    (tmp_path / "w.bin").write_bytes(bytes(20))
    refused(tmp_path / "m.onnx", "w.bin", "20 bytes of 72")


def test_operators_of_onnx_runtime_and_of_the_model_itself_are_known(tmp_path):
    gelu = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    load(proto(gelu, domain="com.microsoft"), tmp_path)
    load(proto(helper.make_node("Twice", ["x"], ["y"], domain="mine"), domain="mine", functions=[TWICE]), tmp_path)


def test_save_where_it_cannot(tmp_path):
    model = io.from_bytes(proto().SerializeToString(), "onnx", "m")
    with pytest.raises(UserError, match="make the folder"):
        io.save(model, tmp_path / "no" / "m.onnx")


def load(made, tmp_path):
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    return io.load(tmp_path / "m.onnx")


def refused(path, *words):
    with pytest.raises(UserError) as e:
        io.load(path)
    text = str(e.value)
    assert "\n" not in text
    assert len(text) < 500
    assert e.value.mend
    missing = [w for w in (path.name, *words) if w not in text]
    assert not missing, f"{missing} not in: {text}"
