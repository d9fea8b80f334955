"""Bits for each layer: what is asked for is kept, and few bits go where they cost little."""

import numpy as np
import onnx
import pytest

from edgelathe.compress.forward import partial
from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.mixed import alone, mixed, sizes, staged
from edgelathe.compress.mixed.allocate import Room
from edgelathe.compress.sensitivity import reference
from edgelathe.compress.types import Context
from edgelathe.compress.weights import problems
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers
from support.tiny_onnx import Graph, outputs, samples, sqnr

ARM = Hardware("aarch64", frozenset({"sdot"}))


def network():
    """Two branches: `loud` makes nearly all of the answer, `quiet`, with most of the weights, hardly any of it."""
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 32), name="r0")
    loud = g.op("Conv", x, g.weights(32, 32, 1, 1, scale=2.0), g.weights(32), name="loud")
    quiet = g.op("Conv", x, g.weights(32, 32, 3, 3, scale=0.02), g.weights(32), pads=[1] * 4, name="quiet")
    y = g.op("GlobalAveragePool", g.op("Relu", g.op("Add", loud, quiet)))
    y = g.op("Reshape", y, g.const(np.array([0, -1], np.int64)))
    return g.build(g.op("Softmax", g.op("Gemm", y, g.weights(32, 10, scale=3.0), g.weights(10), name="head"), axis=1))


@pytest.fixture(scope="module")
def case():
    model = fold.apply(network(), fold.Options(), Context()).model
    data = samples(model, 16)
    labels = outputs(model, data)[0].argmax(1)
    return model, Dataset(data.name, data.inputs, labels)


@pytest.fixture(scope="module")
def shared_out(case):
    """As many bytes as 3 bits for each weight take."""
    return made(case, size="3bits", widths="2/4/8")


@pytest.fixture(scope="module")
def three(case):
    return uniform(case, 3)


def made(case, overrides=None, **options):
    model, data = case
    return mixed.apply(
        model, mixed.resolve(mixed.Options(**options), ARM), Context(data=data, overrides=overrides or {})
    )


def uniform(case, bits, overrides=None):
    model, data = case
    options = int8.resolve(int8.Options(weights=bits, depthwise=2), ARM)
    return int8.apply(model, options, Context(data=data, overrides=overrides or {})).model


def bits_of(applied):
    """Bits by layer, from the notes: float is 32."""
    found = {}
    for n in applied.notes:
        if n.layer != "model":
            found[n.layer] = int(n.what[3]) if n.what.startswith("int") else 16 if n.what.startswith("float16") else 32
    return found


def quality(case, model):
    unseen = samples(case[0], 32, seed=9)
    return sqnr(outputs(case[0], unseen)[0], outputs(model, unseen)[0])


def test_few_bits_go_where_they_cost_little_and_the_size_is_that_of_uniform_bits(case, shared_out, three):
    bits = bits_of(shared_out)
    assert bits["quiet"] == 2
    assert min(bits["loud"], bits["head"]) >= 4
    assert shared_out.model.bytes <= three.bytes
    assert quality(case, shared_out.model) > quality(case, three) + 3


def test_the_result_is_that_of_int8_with_the_same_bits_and_equal_in_every_run(case, shared_out):
    overrides = {name: {"weights": b} for name, b in bits_of(shared_out).items()}
    assert shared_out.model.sha256 == uniform(case, 8, overrides).sha256
    assert shared_out.chosen == overrides
    assert made(case, size="3bits", widths="2/4/8").model.sha256 == shared_out.model.sha256


def test_bits_that_the_recipe_says_are_kept_and_the_others_share_the_rest(case):
    applied = made(case, {"quiet": {"weights": 8}, "lo*": {"skip": True}}, size="20kB", widths="3/4")
    assert bits_of(applied) == {"Conv_0": 4, "quiet": 8, "loud": 32, "head": 4}
    pinned = {n: {"weights": b} for n, b in bits_of(applied).items() if b <= 8} | {"loud": {"skip": True}}
    assert made(case, pinned, size="20kB").model.sha256 == applied.model.sha256


def test_float16_halves_a_layer_that_stays_in_float(case):
    applied = made(case, {"quiet": {"weights": 16}, "loud": {"weights": 32}}, size="1x")
    kinds = {
        onnx.helper.tensor_dtype_to_np_dtype(t.data_type) for t in onnx_model.to_proto(applied.model).graph.initializer
    }
    assert np.dtype(np.float16) in kinds
    assert bits_of(applied)["quiet"] == 16
    assert bits_of(applied)["loud"] == 32
    assert quality(case, applied.model) > 30


def test_every_layer_may_be_of_the_widest_bits_where_the_size_allows(case):
    assert set(bits_of(made(case, size="1x", widths="4/8/float")).values()) == {32}
    assert set(bits_of(made(case, size="1x", widths="4/8")).values()) == {8}


def test_a_cost_is_kept_and_bits_are_spent_where_products_are_few():
    g = Graph()
    x = g.op("Relu", g.op("Conv", "x", g.weights(16, 3, 3, 3), g.weights(16), pads=[1] * 4, name="large"))
    y = g.op("Flatten", g.op("GlobalAveragePool", x))
    model = g.build(g.op("Gemm", y, g.weights(16, 4), g.weights(4), name="small"))
    macs = {la.name: la.macs for la in layers(model) if la.macs}
    assert macs["large"] > 100 * macs["small"]
    case, whole = (model, samples(model, 16)), 8 * sum(macs.values())
    for share in (0.38, 0.51, 0.8):
        applied = made(case, cost=f"{share}x", widths="3/4/6/8")
        bits = bits_of(applied)
        assert sum(macs[n] * b for n, b in bits.items()) <= share * whole
        assert bits["large"] == {0.38: 3, 0.51: 4, 0.8: 6}[share]
        assert f"{share}x of the bit operations of 8 bits allowed" in applied.notes[0].what
    with pytest.raises(UserError, match=r"fewest bits take 0\.3"):
        made(case, cost="0.3x", widths="3/8")
    # in float a product counts 16 times one of 8 bits: too much for the large layer, and next to nothing for the small
    assert bits_of(made(case, cost="1.2x", widths="4/8/float")) == {"large": 8, "small": 32}
    assert bits_of(made(case, {"small": {"weights": 32}}, cost="0.65x", widths="3/4/8")) == {"large": 4, "small": 32}


def test_a_size_and_a_cost_are_kept_together_and_two_that_cannot_be_say_what_could():
    g = Graph()
    x = g.op("Relu", g.op("Conv", "x", g.weights(16, 3, 3, 3), g.weights(16), pads=[1] * 4, name="many_products"))
    y = g.op("Relu", g.op("Gemm", g.op("Flatten", x), g.weights(1024, 64), g.weights(64), name="many_weights"))
    model = g.build(g.op("Gemm", y, g.weights(64, 4), g.weights(4), name="small"))
    case = (model, samples(model, 16))
    alone_, both = made(case, cost="0.7x"), made(case, cost="0.7x", size="0.125x")
    assert bits_of(alone_)["many_weights"] > bits_of(both)["many_weights"]
    macs = {la.name: la.macs for la in layers(model) if la.macs}
    assert sum(macs[n] * b for n, b in bits_of(both).items()) <= 0.7 * 8 * sum(macs.values())
    assert "33,112 bytes and 0.7x of the bit operations of 8 bits allowed" in both.notes[0].what
    with pytest.raises(UserError, match=r"mixed: size: size=0\.05x and cost=0\.7x: .* the fewest bits take"):
        made(case, cost="0.7x", size="0.05x")
    with pytest.raises(UserError, match=r"mixed: cost: size=0\.2x and cost=0\.2x of the bit operations, the fewest"):
        made(case, cost="0.2x", size="0.2x")


def test_limits_that_each_can_be_kept_but_not_both_say_so():
    g = Graph()
    y = g.op("GlobalAveragePool", g.op("Conv", "x", g.weights(4, 3, 3, 3), g.weights(4), pads=[1] * 4, name="tiny"))
    model = g.build(g.op("Gemm", g.op("Flatten", y), g.weights(4, 4), g.weights(4), name="tinier"))
    with pytest.raises(UserError, match=r"size=200B and cost=0\.5x cannot both be kept: .* operations are 1\.000x"):
        made((model, samples(model, 8)), size="200B", cost="0.5x", widths="3/8")  # tables of 3 bits take more


def test_without_a_size_bits_are_as_few_as_the_loss_allows(case):
    model, data = case
    real = Dataset(data.name, data.inputs, outputs(model, data)[0].astype(np.float64), "mae")
    loose, tight = (made((model, real), drop=d, widths="2/4/8") for d in ("0.5", "0.0005"))
    assert sum(bits_of(loose).values()) < sum(bits_of(tight).values())
    assert "of mae on 16 samples" in loose.notes[0].what
    assert quality(case, tight.model) > quality(case, loose.model)


@pytest.fixture(scope="module")
def regression():
    g = Graph()
    y = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", g.conv("x", 3, 64))))
    model = g.build(g.op("Gemm", y, g.weights(64, 1), g.weights(1), name="head"))
    return model, samples(model, 16)


def test_one_output_without_labels_is_judged_by_squared_error(regression):
    loose, tight = (made(regression, drop=d, widths="2/4/8") for d in ("20%", "0.01%"))
    assert sum(bits_of(loose).values()) < sum(bits_of(tight).values())
    assert "in squared error of one output, as there are no labels, on 16 samples" in loose.notes[0].what
    assert not any("answers changed" in n.what for n in loose.notes)


def test_a_metric_that_needs_labels_says_so_and_other_labels_name_the_data(regression):
    model, data = regression
    with pytest.raises(UserError, match=r"metric: auroc needs labels, there are none; give labels"):
        made((model, Dataset("d.npz", data.inputs, None, "auroc")), drop="1%")
    with pytest.raises(UserError, match=r"d\.npz: labels: the model gives one output"):
        made((model, Dataset("d.npz", data.inputs, np.arange(16) % 2)), drop="1%")


def test_notes_tell_the_width_and_why_and_what_all_of_it_is_worth(shared_out):
    notes = shared_out.notes
    said = {n.layer: n.what for n in notes if n.layer != "model"}
    assert "second-order; " in said["quiet"]
    assert said["loud"].count(" dB") == 2  # at its width, and at the next narrower
    whole = [n.what for n in notes if n.layer == "model"]
    assert "bytes allowed; weights take" in whole[0]
    assert [w.split(":")[0] for w in whole[1:4]] == ["convolutions", "output", "in integers"]
    assert "answers changed" in whole[3]


def test_a_size_that_even_the_fewest_bits_exceed_is_refused(case):
    with pytest.raises(UserError, match="the fewest bits take"):
        made(case, size="0.05x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": "0.2x", "drop": "1%"}, "give drop alone"),
        ({"size": "big"}, "no size"),
        ({"size": "0.2"}, "'0.2' is no size; write it as 0.2x"),
        ({"levels": "normal", "widths": "6/8"}, "mixed: levels: normal levels are for 2 to 5 bits"),
        ({"levels": "normal", "rounding": "nearest"}, "mixed: levels: normal levels"),
        ({"drop": "little"}, "no drop"),
        ({"cost": "0.5x", "drop": "1%"}, "drop=1% and cost=0.5x; give drop alone"),
        ({"cost": "half"}, "no share of bit operations"),
        ({"widths": "4/12"}, "'12' is no width"),
    ],
)
def test_mistakes_are_named_when_the_recipe_is_read(options, says):
    with pytest.raises(UserError, match=says):
        mixed.resolve(mixed.Options(**options), ARM)


def test_levels_that_are_asked_for_are_those_of_the_layers_of_few_bits(case):
    applied = made(case, {"quiet": {"weights": 4}, "loud": {"weights": 8}}, levels="normal", size="6bits", widths="4/8")
    said = {n.layer: n.what for n in applied.notes if n.layer != "model"}
    assert "levels of a normal distribution" in said["quiet"]
    assert "levels" not in said["loud"]


def test_a_drop_of_less_than_one_sample_is_one_sample(case):
    few, none = (made(case, drop=d, widths="2/8") for d in ("1%", "0%"))
    assert sum(bits_of(few).values()) <= sum(bits_of(none).values())
    assert "1%, and so one of 16 samples, allowed" in few.notes[0].what
    assert none.notes[0].what.startswith("0% allowed")


def test_the_result_is_judged_on_samples_that_no_fit_saw_where_there_are_some(case, shared_out, monkeypatch):
    assert "dB at the output of 4 samples of the fit itself" in shared_out.notes[3].what
    monkeypatch.setattr(problems, "_SAMPLES", 16)
    seen = made((case[0], samples(case[0], 40)), {"*": {"weights": 2}}).notes
    assert any("dB at the output of 24 samples outside of the fit" in n.what for n in seen)


def test_calibration_data_are_needed(case):
    with pytest.raises(UserError, match="needs calibration data"):
        mixed.apply(case[0], mixed.Options(), Context())


def test_shared_weights_several_outputs_and_one_sample():
    g = Graph()
    w = g.weights(8, 8, 1, 1)
    x = g.op("Relu", g.conv("x", 3, 8, 1))
    y = g.op("Conv", g.op("Conv", x, w, name="once"), w, name="twice")
    model = g.build([g.op("Flatten", g.op("GlobalAveragePool", v)) for v in (x, y)])
    applied = made((model, samples(model, 1)), size="0.6x")
    bits = bits_of(applied)
    assert bits["once"] == bits["twice"]
    assert all(np.isfinite(o).all() for o in outputs(applied.model, samples(model, 4)))


def test_depthwise_layers_have_a_least_width_of_their_own():
    g = Graph()
    x = g.op("Relu", g.conv("x", 3, 96, 1))
    x = g.op("Relu", g.op("Conv", x, g.weights(96, 1, 3, 3), g.weights(96), pads=[1] * 4, group=96, name="dw"))
    model = g.build(g.op("Flatten", g.op("GlobalAveragePool", g.op("Conv", x, g.weights(16, 96, 1, 1), g.weights(16)))))
    few, least = (
        bits_of(made((model, samples(model, 8)), drop="100%", widths="2/8", depthwise=d, gate=False)) for d in (2, 8)
    )
    assert few["dw"] == 2
    assert least == few | {"dw": 8}


def test_a_model_without_layers_is_left_as_it_is():
    g = Graph()
    model = g.build(g.op("Relu", "x"))
    assert made((model, samples(model, 8)), size="0.2x").notes[-1].what == "no layer that can be integer"


@pytest.fixture(scope="module")
def judged(case):
    """All that widths are settled by."""
    model, data = case
    of = alone.subject(model, mixed.resolve(mixed.Options(size="1x"), ARM), Context(data=data))
    widths = {la.name: (3, 8) for la in of.layers}
    with partial.workers(1) as run_all:
        judge = of.run(data, run_all)
        constants = alone.forms(of, widths, data, reference.input_means(judge, of.layers), 0)
        lost = alone.losses(judge, of.layers, constants)
        yield judge, of.layers, constants, {la.name: alone.choices(la, lost[la.name]) for la in of.layers}


def test_convolutions_come_first_the_output_last_from_the_output_inwards(judged):
    found = [(name, [la.name for la in group]) for name, group in staged.stages(judged[0], judged[1])]
    assert found == [("convolutions", ["quiet", "loud", "Conv_0"]), ("output", ["head"])]


def test_errors_that_add_up_are_taken_over(judged):
    narrow = dict.fromkeys(judged[3], 3)
    settled = staged.settle(*judged, narrow, Room())
    assert settled.bits == narrow
    assert not settled.back
    assert [s.layers for s in settled.stages] == [3, 1]
    assert settled.stages[1].measured == pytest.approx(settled.stages[1].expected, rel=1.0)


def test_errors_that_more_than_add_up_go_back_to_wider_bits_while_there_are_bytes(judged, monkeypatch):
    monkeypatch.setattr(staged, "_SLACK", 1e-9)  # nothing is borne
    narrow = dict.fromkeys(judged[3], 3)
    assert staged.settle(*judged, narrow, Room()).bits == dict.fromkeys(judged[3], 8)
    taken = {name: {c.bits: c.bytes for c in row} for name, row in judged[3].items()}
    budget = sum(s[3] for s in taken.values()) + taken["loud"][8] - taken["loud"][3]
    settled = staged.settle(*judged, narrow, Room(budget))
    assert sum(taken[n][b] for n, b in settled.bits.items()) <= budget
    assert 0 < len(settled.back) < 4


def test_bytes_are_counted_as_they_are_in_the_file(case, three):
    of = alone.subject(case[0], mixed.resolve(mixed.Options(size="1x"), ARM), Context(data=case[1]))
    counted = [sum(sizes.stored_bytes(la.elements, la.channels, bits) for la in of.layers) for bits in (8, 4, 3)]
    real = [uniform(case, 8).bytes, uniform(case, 4).bytes, three.bytes]
    for i, bits in ((1, 4), (2, 3)):
        more = counted[i] + sizes.shared_bytes(bits) - counted[0]
        assert 0 <= more - (real[i] - real[0]) < 40 * len(of.layers)
    below, above = (sizes.stored_bytes(900, 10, b) for b in (3, 4))
    assert sizes.stored_bytes(900, 10, 3.5) == round((below + above) / 2)
