"""Which samples are left out, and that an answer that turned against the evidence is found."""

import numpy as np
import pytest

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity import measure as s
from edgelathe.compress.sensitivity import passes, screening
from edgelathe.compress.sensitivity.scene import Scene
from edgelathe.compress.sensitivity.screening import Screen, gain, margins
from edgelathe.core.dataset import Dataset
from support.tiny_onnx import Graph, samples


def test_an_answer_turns_only_where_a_gain_reaches_its_margin():
    rng = np.random.default_rng(0)
    want = rng.normal(size=(500, 7))
    have = want + rng.normal(size=want.shape) * 0.4
    turned = want.argmax(1) != have.argmax(1)
    gains = np.array([gain(w[None], h[None]) for w, h in zip(want, have, strict=True)])
    assert turned.any()
    assert (margins(want)[turned] <= gains[turned]).all()
    assert gain(want, have) == gains.max()


def test_scores_that_are_not_finite_gain_without_bound():
    assert gain(np.ones((1, 2)), np.array([[np.nan, 1.0]])) == np.inf


def test_samples_are_left_out_once_enough_were_run():
    screen = Screen()
    margin = np.array([0.1, 5.0, 1.0, 9.0])
    assert screen.rows(margin) is None
    screen.add(screening.LEAST, 0.6)
    assert screen.rows(margin).tolist() == [0, 2]
    assert screen.rows(margin[[0, 2]]) is None  # all of them
    assert screen.holds
    screen.add(2, 5.5)  # one of those left out may have turned
    assert not screen.holds


def classifier():
    g = Graph()
    y = g.op("Relu", g.op("Gemm", g.op("Flatten", g.op("Relu", g.conv("x", 3, 4))), g.weights(256, 24), g.weights(24)))
    return g.build(g.op("Softmax", g.op("Gemm", y, g.weights(24, 5), g.weights(5))))


@pytest.fixture(scope="module")
def case():
    model = classifier()
    data = samples(model, 300)
    return model, Dataset(data.name, data.inputs, np.arange(300) % 5)


def measured(case, threads=1, **more):
    with partial.workers(threads) as run_all:
        return s.measure(Scene.of(*case, run_all), (8, 3), **more)


@pytest.mark.parametrize("activations", [None, 8])
def test_answers_are_those_of_all_samples(case, monkeypatch, activations):
    quick = measured(case, 2, activations=activations)
    monkeypatch.setattr(Screen, "rows", lambda *_: None)
    whole = measured(case, activations=activations)
    for layer in whole.layers:
        other = next(la for la in quick.layers if la.layer == layer.layer)
        for a, b in zip(layer.widths, other.widths, strict=True):
            assert (a.accuracy, a.changed, a.n) == (b.accuracy, b.changed, b.n)
            assert b.sqnr_db == pytest.approx(a.sqnr_db, abs=2)
            assert a.sampled == 300
    assert min(w.sampled for la in quick.layers for w in la.widths) == 128
    assert max(w.changed for la in whole.layers for w in la.widths) > 5


def test_what_was_left_out_against_the_evidence_is_run_after_all(case, monkeypatch):
    whole = {(la.layer, w.bits): w.changed for la in measured(case).layers for w in la.widths}
    runs = []
    settle = passes.Block.settle
    monkeypatch.setattr(passes.Block, "settle", lambda self, jobs: runs.append(jobs) or settle(self, jobs))
    monkeypatch.setattr(screening, "_FACTOR", 0.0)  # nothing seems to need running
    found = measured(case)
    assert {(la.layer, w.bits): w.changed for la in found.layers for w in la.widths} == whole
    again = [job for jobs in runs for job in jobs if job.rows is None]
    assert len(again) > len(whole)


def test_where_inner_values_have_no_row_a_sample_all_samples_are_run():
    g = Graph()
    flat = g.op("Flatten", "x")
    first, second = (g.op("Transpose", g.op("MatMul", flat, g.weights(192, 5)), perm=[1, 0]) for _ in range(2))
    model = g.build(g.op("Softmax", g.op("Transpose", g.op("Add", first, second), perm=[1, 0])))
    data = samples(model, 300)
    found = measured((model, Dataset(data.name, data.inputs, np.arange(300) % 5)))
    assert all(w.sampled == 300 for la in found.layers for w in la.widths)
