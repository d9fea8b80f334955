"""Models of 2 GB and more, with the limit lowered so that small ones count as such."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core import files
from edgelathe.core.errors import UserError
from edgelathe.model import external, io, metadata, run
from edgelathe.model import onnx as onnx_model
from edgelathe.model.external import External
from edgelathe.model.inspect import inspect
from support.large_onnx import LIMIT, chain, load, samples, write


@pytest.fixture
def whole():
    return onnx_model.from_proto(chain(), "m")


@pytest.fixture
def large(whole, tmp_path, monkeypatch):  # the whole one is made before the limit falls
    return load(write(chain(), tmp_path / "m.onnx"), monkeypatch)


def test_it_answers_as_the_whole_model_does(large, whole):
    assert large.external is not None
    assert len(large.data) < LIMIT < len(large.external)
    assert large.signature == whole.signature
    for got, want in zip(run.outputs(large, samples()), run.outputs(whole, samples()), strict=True):
        np.testing.assert_array_equal(got, want)


def test_written_and_read_again_it_is_the_same_model(large, whole, tmp_path):
    (tmp_path / "out").mkdir()
    io.save(large, tmp_path / "out" / "again.onnx")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["again.onnx", "again.onnx.data"]
    again = io.load(tmp_path / "out" / "again.onnx", large=True)
    assert (again.sha256, again.bytes, again.external) == (large.sha256, large.bytes, large.external)
    onnx.checker.check_model(str(tmp_path / "out" / "again.onnx"), full_check=True)
    others = onnx.load(str(tmp_path / "out" / "again.onnx"))
    for got, want in zip(others.graph.initializer, chain().graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(got), numpy_helper.to_array(want))


def test_its_hash_follows_from_its_weights(tmp_path, monkeypatch):
    hashes = {load(write(chain(seed=s), tmp_path / f"{s}.onnx"), monkeypatch).sha256 for s in range(3)}
    assert len(hashes) == 3


def test_the_manifest_names_the_weights_by_hash(large):
    proto = onnx.load_from_string(large.manifest)
    places = {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}
    assert places == {large.external.sha256}


def test_a_graph_goes_there_and_back_without_a_copy(large, whole, monkeypatch):
    graph = onnx_model.to_ir(large)
    assert graph.graph.initializers["w0"].const_value.numpy().base is not None
    again = onnx_model.from_ir(graph, "m")
    assert again == large
    monkeypatch.setattr(external, "LARGEST", 2**31 - 1)
    assert onnx_model.from_ir(graph, "m") == onnx_model.from_ir(onnx_model.to_ir(whole), "m")


def test_a_result_that_grew_beyond_the_limit_parts(whole, large, monkeypatch):
    monkeypatch.setattr(external, "LARGEST", LIMIT)
    assert onnx_model.from_ir(onnx_model.to_ir(whole), "m") == large
    assert onnx_model.from_proto(onnx_model.to_proto(whole), "m") == large


def test_what_cannot_lie_outside_is_refused(monkeypatch):
    monkeypatch.setattr(external, "LARGEST", LIMIT)
    proto = chain(1)
    del proto.graph.initializer[:]
    value = numpy_helper.from_array(np.zeros((64, 64), np.float32))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w0"], value=value))
    with pytest.raises(UserError, match=r"m: 0\.0 GB beside its large weights: more than a protobuf holds"):
        onnx_model.from_proto(proto, "m")


def test_one_protobuf_is_refused_where_none_holds_it(large, tmp_path):
    with pytest.raises(UserError, match="more than the protobuf that is needed here holds; compress it"):
        onnx_model.to_proto(large)
    with pytest.raises(UserError, match="models of 2 GB and more are for inspect, compress, bench and eval"):
        io.load(tmp_path / "m.onnx")


def test_one_file_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(external, "LARGEST", LIMIT)
    (tmp_path / "m.onnx").write_bytes(chain().SerializeToString())
    with pytest.raises(UserError, match=r"GB in one file.*external data"):
        io.load(tmp_path / "m.onnx", large=True)


def test_inspect_counts_what_lies_outside(large, whole):
    parts, want = inspect(large), inspect(whole)
    assert (parts.parameters, parts.macs) == (want.parameters, want.macs)
    assert parts.bytes == large.bytes
    for got, layer in zip(parts.layers, want.layers, strict=True):
        assert layer.bytes <= got.bytes <= layer.bytes + 80  # and where it lies


def test_metadata_are_read_and_written(large):
    told = metadata.write(large, "key", "text")
    assert metadata.read(told, "key") == "text"
    assert told.external == large.external


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.int64, np.float64])
def test_weights_of_every_type_reach_the_runtime(tmp_path, monkeypatch, dtype):
    values = np.arange(-1024, 1024).reshape(64, 32).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    cast = helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [cast, helper.make_node("Add", ["x", "c"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 32])],
        [helper.make_tensor("w", kind, values.shape, values.tobytes(), raw=True)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = load(write(proto, tmp_path / "m.onnx"), monkeypatch, limit=1000)
    assert model.external is not None
    assert onnx_model.to_ir(model).graph.initializers["w"].const_value.numpy().dtype == dtype
    (got,) = run.session(model)({"x": np.zeros((64, 32), np.float32)})
    np.testing.assert_array_equal(got, values.astype(np.float32))


def test_packed_weights_stay_in_the_protobuf(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"]),
        helper.make_node("MatMul", ["x", "f"], ["h"]),
        helper.make_node("MatMul", ["h", "large"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [
            helper.make_tensor("w", TensorProto.INT4, [64, 64], rng.bytes(2048), raw=True),
            numpy_helper.from_array(np.float32(0.1), "s"),
            numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), "large"),
        ],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = {"x": rng.normal(size=(1, 64)).astype(np.float32)}
    want = run.session(onnx_model.from_proto(proto, "m"))(x)
    model = load(write(proto, tmp_path / "m.onnx"), monkeypatch)
    assert [len(part) for part in model.external.parts] == [64 * 64 * 4]
    np.testing.assert_array_equal(run.session(model)(x), want)
    assert onnx_model.from_ir(onnx_model.to_ir(model), "m").sha256 == model.sha256


def test_text_beside_large_weights_stays_in_the_protobuf(monkeypatch):
    proto = chain()
    proto.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"]))
    proto.graph.node.append(helper.make_node("Identity", ["words"], ["labels"]))
    proto.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.STRING, [2]))
    monkeypatch.setattr(external, "LARGEST", LIMIT)
    model = onnx_model.from_proto(proto, "m")
    assert model.external is not None
    assert run.session(model)(samples(1))[1].tolist() == ["a", "b"]


def test_initializers_that_are_inputs_too(tmp_path, monkeypatch):
    proto = chain(2)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model = load(write(proto, tmp_path / "m.onnx"), monkeypatch)
    assert model.external is not None
    assert [i.name for i in model.signature.inputs] == ["x"]
    want = run.outputs(onnx_model.from_proto(chain(2), "m"), samples())[0]
    np.testing.assert_array_equal(run.outputs(model, samples())[0], want)


def test_both_files_or_none(large, tmp_path):
    (tmp_path / "out.onnx.data").mkdir()
    with pytest.raises(UserError, match=r"out\.onnx\.data: cannot be written"):
        io.save(large, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
    assert not list(tmp_path.glob(".*part"))


def test_an_earlier_pair_is_replaced(large, tmp_path, monkeypatch):
    other = load(write(chain(seed=5), tmp_path / "other.onnx"), monkeypatch)
    for model in (other, large):
        io.save(model, tmp_path / "out.onnx")
    assert io.load(tmp_path / "out.onnx", large=True).sha256 == large.sha256


def test_two_that_write_there_at_once_leave_one_pair(large, tmp_path, monkeypatch):
    other = load(write(chain(seed=5), tmp_path / "other.onnx"), monkeypatch)
    settle, late = files._settle, threading.Thread(target=io.save, args=(other, tmp_path / "out.onnx"))

    def between(*paths):
        settle(*paths)
        if not late.ident:
            late.start()
            late.join(0.1)  # all the time that it needs, where it does not wait

    monkeypatch.setattr(files, "_settle", between)
    io.save(large, tmp_path / "out.onnx")
    late.join()
    assert io.load(tmp_path / "out.onnx", large=True).sha256 == other.sha256


def test_weights_of_another_model_are_not_replaced(large, tmp_path):
    (tmp_path / "out.onnx.data").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"out\.onnx\.data: is there without out\.onnx, and may hold the weights of"):
        io.save(large, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_bytes() == b"weights"
    assert not list(tmp_path.glob(".*part"))


def test_the_file_is_read_like_bytes():
    parts = [bytes([n]) * size for n, size in ((1, 5), (2, 4096), (3, 0), (4, 9000))]
    made = External(tuple(memoryview(p) for p in parts))
    assert made.offsets == (0, 4096, 8192, 8192)
    want = parts[0] + bytes(4091) + parts[1] + parts[3]
    assert len(made) == len(want)
    assert made[:] == want
    for start, stop in ((0, 3), (3, 9), (4000, 9000), (4095, 4097), (17000, 99999), (10, 10)):
        assert made[start:stop] == want[start:stop]
    assert len(External(())) == 0
