"""`mixed` of a small TFLite file: which layers get few bits, and what its limits and refusals say."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.tflite import mixed, steps
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import run
from edgelathe.model import tflite as reader
from support.float_tflite import from_onnx
from support.tiny_onnx import Graph

ANY = Hardware(None, frozenset())


@pytest.fixture(scope="module")
def model():
    """Three convolutions, the second depthwise, and a classifier."""
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 16))
    x = g.op("Relu", g.conv(x, 16, 16, group=16))
    x = g.op("Relu", g.conv(x, 16, 32))
    flat = g.op("Flatten", g.op("GlobalAveragePool", x))
    return from_onnx(g.build(g.op("Gemm", flat, g.weights(32, 5), g.weights(5)), shape=(1, 3, 8, 8)))


@pytest.fixture(scope="module")
def samples(model):
    (given,) = model.signature.inputs
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(264, *given.shape[1:])) + 2 * rng.normal(size=(264, 1, 1, 3))).astype(np.float32)
    return {given.name: x[:64]}, {given.name: x[64:]}


@pytest.fixture(scope="module")
def context(model, samples):
    labels = run.outputs(model, samples[0])[0].argmax(1)
    return Context(data=Dataset("calib.npz", samples[0], labels))


@pytest.fixture(scope="module")
def applied(model, context):
    return make(model, context, size="6bits")


def make(model, context, **options):
    return mixed.apply(model, mixed.resolve(mixed.Options(**options), ANY), context)


def stored(model):
    """Types of the weights, by layer."""
    graph = reader.parse(model.data).main
    layers = [op for op in graph.operators if op.op in steps.WEIGHTED]
    return {graph.tensors[op.outputs[0]].name: graph.tensors[op.inputs[1]].dtype for op in layers}


def bits_of_a_weight(model):
    graph = reader.parse(model.data).main
    layers = [op for op in graph.operators if op.op in steps.WEIGHTED]
    weights = [graph.tensors[op.inputs[1]] for op in layers]
    sizes = [int(np.prod(w.shape)) for w in weights]
    return sum(n * {"int4": 4, "int8": 8}[w.dtype] for n, w in zip(sizes, weights, strict=True)) / sum(sizes)


def test_a_size_is_kept_by_few_bits_where_they_lose_least(applied):
    assert bits_of_a_weight(applied.model) <= 6
    assert stored(applied.model) == {"t1_0": "int8", "t3_0": "int8", "t5_0": "int4", "t8_0_q": "int8"}
    said = {n.layer: n.what for n in applied.notes}
    loses = {name: float(re.findall(r"([0-9.]+) dB", said[name])[-1]) for name in ("t1_0", "t5_0", "t8_0")}  # in 4 bits
    assert max(loses, key=loses.__getitem__) == "t5_0"


def test_its_choice_replays_to_the_same_bytes(model, context, applied):
    again = replace(context, overrides={name: dict(v) for name, v in applied.chosen.items()})
    assert make(model, again, size="6bits").model.data == applied.model.data


def test_notes_tell_what_each_layer_loses_and_what_the_answers_are_worth(applied):
    said = [n.what for n in applied.notes if n.layer == "model"]
    assert "bytes allowed; weights take" in said[0]
    assert "of 64 answers changed" in said[1]
    assert sum("dB alone" in n.what for n in applied.notes) == 4


def test_a_drop_is_kept_by_the_integers_themselves(model, context):
    made = make(model, context, drop="10%").model
    right = run.outputs(made, context.data.inputs)[0].argmax(1) == context.data.labels
    assert right.mean() >= 0.9
    assert "int4" in stored(made).values()


def test_float16_and_float_are_kept_where_the_recipe_says(model, context):
    bits = {"t1_0": 16, "t3_0": 8, "t5_0": 4, "t8_0": 32}
    own = replace(context, overrides={name: {"weights": b} for name, b in bits.items()})
    made = make(model, own).model
    assert stored(made) == {"t1_0": "float32", "t3_0": "int8", "t5_0": "int4", "t8_0": "float32"}
    assert [t.shape for t in reader.parse(made.data).main.tensors if t.dtype == "float16"] == [(16, 3, 3, 3)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": "3/8"}, "mixed: widths: TFLite has no 3 bits; choose from 4, 8, 16 and float"),
        ({"size": "0.01x"}, "bytes of weights, the fewest bits take"),
        ({"cost": "0.1x"}, "the fewest bits take 0.514x of the bit operations"),
        ({"size": "5bits", "drop": "1%"}, "give drop alone"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(model, context, options, said):
    with pytest.raises(UserError) as e:
        make(model, context, **options)
    assert said in str(e.value)
    assert "\n" not in str(e.value)
