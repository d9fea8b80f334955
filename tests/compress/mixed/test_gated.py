"""The gate by channel: what was made worse on purpose is mended, what was not is left, and nothing gets worse."""

import numpy as np
import pytest

from edgelathe.compress.corrections.slots import scale_weights, slot
from edgelathe.compress.graph import fold
from edgelathe.compress.graph import moves as g
from edgelathe.compress.integer import int8
from edgelathe.compress.mixed import mixed
from edgelathe.compress.mixed.gated import gated
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, outputs, samples, sqnr

ARM = Hardware("aarch64", frozenset({"sdot"}))


def network():
    g = Graph()
    x = g.op("Relu", g.op("Conv", "x", g.weights(12, 3, 3, 3), g.weights(12), pads=[1] * 4, name="first"))
    y = g.op("Conv", x, g.weights(12, 12, 3, 3), g.weights(12), pads=[1] * 4, name="second")
    y = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", g.op("Add", x, y))))
    return g.build(g.op("Gemm", y, g.weights(12, 6), g.weights(6), name="head"))


@pytest.fixture(scope="module")
def case():
    model = fold.apply(network(), fold.Options(), Context()).model
    data = samples(model, 24)
    made = int8.apply(model, int8.resolve(int8.Options(), ARM), Context(data=data))
    return model, data, made.model, made.twin


def harmed(model, name, scale, shift):
    """The integer model with some channels of one layer scaled and shifted."""
    work = onnx_model.to_ir(model)
    node = next(n for n in work.graph if g.layer(n) == name)
    names, place = g.Names(work.graph), slot(node, len(scale), g.rank(node.inputs[0]))
    scale_weights(node, scale, names)
    place.scaled(scale).write(place.now * scale + shift, names)
    return onnx_model.from_ir(work, "harmed")


def biases(model, name):
    node = next(n for n in onnx_model.to_ir(model).graph if g.layer(n) == name)
    found = slot(node, 12 if name != "head" else 6, 4 if name != "head" else 2)
    return found.now


def quality(case, model):
    unseen = samples(case[0], 48, seed=9)
    return sqnr(outputs(case[0], unseen)[0], outputs(model, unseen)[0])


@pytest.mark.parametrize("name", ["first", "second"])
def test_channels_that_were_harmed_are_mended_and_a_sound_one_is_not_touched(case, name):
    scale, shift = np.ones(12), np.zeros(12)
    scale[3], shift[5] = 0.6, 1.0
    bad = harmed(case[2], name, scale, shift)
    mended, notes = gated(bad, case[3], Context(data=case[1]), "mixed")
    assert quality(case, bad) < quality(case, case[2]) - 6
    assert quality(case, mended) > quality(case, case[2]) - 3
    assert any(n.layer == name and n.done for n in notes)
    assert biases(mended, name)[5] == pytest.approx(biases(case[2], name)[5], abs=0.1)
    assert "gate by channel" in notes[-1].what


def test_a_layer_that_the_recipe_skips_stays_as_it_is(case):
    bad = harmed(case[2], "head", np.full(6, 0.7), np.ones(6))
    context = Context(data=case[1], overrides={"head": {"skip": True}})
    left, notes = gated(bad, case[3], context, "mixed")
    assert not any(n.layer == "head" for n in notes)
    assert np.array_equal(biases(left, "head"), biases(bad, "head"))


def test_a_model_that_nothing_gains_on_is_given_back(case):
    same, notes = gated(case[3], case[3], Context(data=case[1]), "mixed")
    assert same.sha256 == case[3].sha256
    assert [n.done for n in notes] == [False]


def test_mixed_takes_it_over_where_asked_and_gives_the_same_bits(case):
    def made(gate):
        options = mixed.resolve(mixed.Options(size="3bits", widths="2/3/4", rounding="nearest", gate=gate), ARM)
        return mixed.apply(case[0], options, Context(data=case[1]))

    plain, refitted = made(True), made("channel")
    assert refitted.chosen == plain.chosen
    assert quality(case, refitted.model) > quality(case, plain.model) + 1
    assert refitted.model.bytes <= plain.model.bytes + 8


def test_too_few_samples_to_hold_some_out_are_refused(case):
    with pytest.raises(UserError, match="mixed: 5 different samples are too few"):
        gated(case[2], case[3], Context(data=samples(case[0], 5)), "mixed")


@pytest.mark.parametrize(("count", "says"), [(1, "1 different sample is"), (7, "7 different samples are")])
def test_they_are_refused_before_any_width_is_chosen(case, monkeypatch, count, says):
    monkeypatch.setattr(mixed, "_choose", None)
    options = mixed.resolve(mixed.Options(size="3bits", gate="channel"), ARM)
    with pytest.raises(UserError) as caught:
        mixed.apply(case[0], options, Context(data=samples(case[0], count)))
    assert str(caught.value) == f"calib: mixed(gate=channel): {says} too few to hold some out; give at least 8"
