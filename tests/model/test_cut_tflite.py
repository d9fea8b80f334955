"""TFLite models cut off after an operator compute what the whole one computes up to there."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.compress.types import Context
from edgelathe.model import cut_tflite, io, run, tflite

litert = pytest.importorskip("ai_edge_litert.interpreter")


@pytest.fixture(scope="module")
def resnet(data_dir):
    return io.from_bytes((data_dir / "cifar10_resnet8" / "model.tflite").read_bytes(), "tflite", "resnet8")


def tensors(model, x):
    """All tensors of the whole model by name, operator by operator, without a delegate."""
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    it = litert.Interpreter(
        model_content=model.data, experimental_op_resolver_type=kind, experimental_preserve_all_tensors=True
    )
    it.allocate_tensors()
    it.set_tensor(it.get_input_details()[0]["index"], x)
    it.invoke()
    made = {t for op in tflite.parse(model.data).main.operators for t in op.outputs}
    return {d["name"]: it.get_tensor(d["index"]) for d in it.get_tensor_details() if d["index"] in made}


def test_each_beginning_gives_the_tensors_that_the_rest_would_read(resnet):
    x = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    wanted = tensors(resnet, x)
    before = 0
    for n in cut_tflite.borders(resnet, 24):
        cut = cut_tflite.prefix(resnet, n)
        assert len(tflite.parse(cut.data).main.operators) == n
        for info, got in zip(cut.signature.outputs, run.session(cut)({"input_1": x}), strict=True):
            np.testing.assert_allclose(got, wanted[info.name], rtol=1e-4, atol=1e-4)
        assert before <= cut.bytes <= resnet.bytes
        before = cut.bytes * 0.9
    assert cut is resnet


def test_weights_stored_small_are_unpacked_and_neither_cut_at_nor_put_out(resnet):
    from edgelathe.compress.tflite import steps

    half = steps.fp16(resnet, steps.NoOptions(), Context({})).model
    graph = tflite.parse(half.data).main
    cuts = cut_tflite.borders(half, 24)
    assert [graph.operators[n - 1].op for n in cuts] == [
        op.op for op in tflite.parse(resnet.data).main.operators
    ]  # fmt: skip
    x = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    cut = cut_tflite.prefix(half, cuts[2])
    assert {o.dtype for o in cut.signature.outputs} == {"float32"}
    assert [o.shape for o in run.session(cut)({"input_1": x})] == [o.shape for o in cut_outputs(resnet, 3, x)]


def cut_outputs(model, n, x):
    return run.session(cut_tflite.prefix(model, n))({"input_1": x})


def test_large_models_are_cut_into_parts_of_like_work(resnet):
    count = len(tflite.parse(resnet.data).main.operators)
    few = cut_tflite.borders(resnet, 4)
    assert len(few) == 4
    assert few[-1] == count
    assert list(few) == sorted(few)
    assert few[0] > 1  # the first operator does less than a fourth
    names = [
        tflite.parse(resnet.data).main.tensors[tflite.parse(resnet.data).main.operators[n - 1].outputs[0]].name
        for n in few
    ]
    assert cut_tflite.borders(resnet, 24, names[:-1]) == few
