import math

import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.stats.metrics import (
    METRICS,
    OutputError,
    against,
    chance,
    compare_accuracy,
    evaluate,
    fell_to_chance,
    load_metric,
    targets,
)
from edgelathe.stats.paired import resampled

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(200, 4)).astype(np.float32)
CLASSES = np.where(RNG.random(200) < 0.7, SCORES.argmax(1), RNG.integers(0, 4, 200))
NOISY = SCORES + 0.5 * RNG.normal(size=SCORES.shape).astype(np.float32)


def labels_for(metric):
    return CLASSES if metric.classes else SCORES + 0.1 * NOISY


def outputs_for(metric):
    return np.hstack([SCORES, SCORES - 1]) if metric.name == "top5" else SCORES


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_evaluates_and_compares(name):
    metric = load_metric(name)
    outputs, labels = outputs_for(metric), labels_for(metric)
    worse = outputs + RNG.normal(size=outputs.shape).astype(np.float32)
    base = evaluate(metric, outputs, labels)
    assert (base.metric, base.n, base.drop) == (name, 200, None)
    assert base.low < base.value < base.high
    accuracy, value, drop = compare_accuracy(metric, outputs, worse, labels)
    assert accuracy.value == value.value == evaluate(metric, worse, labels).value
    assert accuracy.low <= value.lower <= value.value <= value.upper <= accuracy.high
    assert accuracy.drop == drop.value == pytest.approx(metric.worse(base.value, accuracy.value))
    assert drop.value > 0
    assert accuracy.drop_low <= drop.lower <= drop.upper <= accuracy.drop_high
    same, _, none = compare_accuracy(metric, outputs, outputs, labels)
    assert same.drop == none.value == 0
    assert none.upper <= 1 / 200


@pytest.mark.parametrize("name", METRICS)
def test_the_weighted_form_is_the_metric_of_the_resample(name):
    metric = METRICS[name]
    outputs, labels = outputs_for(metric), labels_for(metric)
    counts = resampled(200, type("How", (), {"resamples": 5, "seed": 1}))[0]
    drawn = [np.repeat(np.arange(200), row.astype(int)) for row in counts]
    assert metric.prepare(outputs, labels)(counts) == pytest.approx(
        [metric.value(outputs[i], labels[i]) for i in drawn]
    )


@pytest.mark.parametrize(
    "name", sorted(METRICS.keys() - {"auroc"})
)  # ranking is no agreement: auroc of itself is below 1
def test_without_labels_agreement_with_the_baseline_counts(name):
    metric = METRICS[name]
    outputs = outputs_for(metric)
    best = 0 if metric.unit == "error" else 1
    assert evaluate(metric, outputs, None).value == pytest.approx(best)
    accuracy, _, drop = compare_accuracy(metric, outputs, outputs + RNG.normal(size=outputs.shape), None)
    assert drop.value == pytest.approx(metric.worse(best, accuracy.value))
    assert drop.value > 0


def test_top1_without_labels_is_the_share_of_equal_answers():
    accuracy, _, _ = compare_accuracy(METRICS["top1"], SCORES, NOISY, None)
    assert accuracy.value == np.mean(SCORES.argmax(1) == NOISY.argmax(1))
    assert (targets(METRICS["top1"], None, SCORES) == SCORES.argmax(1)).all()
    assert targets(METRICS["mae"], None, SCORES) is SCORES


def test_top1_counts_are_exact_for_any_output_shape_and_integers():
    raw = (SCORES * 20).astype(np.int8).reshape(200, 1, 2, 2)
    right = int((raw.reshape(200, -1).argmax(1) == CLASSES).sum())
    value = evaluate(METRICS["top1"], raw, CLASSES.reshape(-1, 1)).value
    assert value == right / 200


@pytest.mark.parametrize(
    ("name", "labels", "outputs", "words"),
    [
        ("top1", CLASSES + 100_000, SCORES, ["outside 0..3", "100"]),
        ("top1", CLASSES - 1, SCORES, ["label -1"]),
        ("top1", CLASSES + 0.5, SCORES, ["no whole numbers"]),
        ("top1", CLASSES[:11], SCORES, ["(11,)", "200 samples"]),
        ("top1", np.eye(4)[CLASSES], SCORES, ["one class per sample"]),
        ("top1", CLASSES, SCORES[:, :1], ["one output", "auroc"]),
        ("top1", np.array(["cat"] * 200), SCORES, ["no numbers"]),
        ("top5", CLASSES, SCORES, ["always 1", "top1"]),
        ("auroc", np.zeros(200), SCORES, ["one class only"]),
        ("mae", CLASSES, SCORES, ["(200,)", "(200, 4)"]),
        ("rmse", np.full((200, 4), np.nan), SCORES, ["NaN"]),
        ("top1", CLASSES[:0], SCORES[:0], ["no samples"]),
    ],
)
def test_labels_that_do_not_fit_are_named(name, labels, outputs, words):
    with pytest.raises(UserError) as caught:
        evaluate(METRICS[name], outputs, labels, "eval.npz: y")
    for word in ["eval.npz: y: ", *words]:
        assert word in str(caught.value)


def test_nan_outputs_have_no_accuracy():
    broken = SCORES.copy()
    broken[:3, 1] = np.nan
    with pytest.raises(OutputError, match=r"3 of 200 samples \(1.5%\)"):
        evaluate(METRICS["top1"], broken, CLASSES)
    with pytest.raises(OutputError):
        compare_accuracy(METRICS["mae"], SCORES, broken, None)


def test_unequal_numbers_of_samples_are_no_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        compare_accuracy(METRICS["top1"], SCORES, SCORES[:5], CLASSES)


def test_few_samples_give_wide_bounds_and_no_verdict():
    one = evaluate(METRICS["top1"], SCORES[:1], SCORES[:1].argmax(1))
    assert (one.value, one.high) == (1, 1)
    assert one.low < 0.3
    few = evaluate(METRICS["mae"], SCORES[:3], SCORES[:3] + 1)
    assert (few.value, few.low, few.high) == (pytest.approx(1, rel=1e-5), -math.inf, math.inf)


def test_the_claim_from_the_drop_is_paired():
    metric = METRICS["top1"]
    base = evaluate(metric, SCORES, CLASSES).value
    _, value, drop = compare_accuracy(metric, SCORES, SCORES + 0.1 * NOISY, CLASSES)
    paired = against(metric, base, drop)
    assert paired.value == pytest.approx(value.value)
    assert value.lower < paired.lower <= paired.value <= paired.upper < value.upper
    rise = against(METRICS["mae"], 2.0, drop)
    assert (rise.lower, rise.upper) == (2 + drop.lower, 2 + drop.upper)


def test_chance_is_the_best_blind_answer():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    levels = {name: chance(m, labels, 10) for name, m in METRICS.items() if m.classes}
    assert levels == {
        "top1": 0.5,
        "top5": 1.0,
        "balanced": pytest.approx(1 / 3),
        "f1": pytest.approx(2 / 9),
        "auroc": 0.5,
    }
    assert chance(METRICS["f1"], np.array([0] * 80 + [1] * 20), 2) == pytest.approx(2 * 20 / 120)  # always 1
    values = np.array([[0.0], [0.0], [10.0]])
    assert chance(METRICS["mae"], values, 1) == pytest.approx(10 / 3)
    assert chance(METRICS["rmse"], values, 1) == pytest.approx(values.std())


def test_a_candidate_at_chance_is_found_and_others_are_spared():
    metric, rng = METRICS["top1"], np.random.default_rng(1)
    level = chance(metric, CLASSES, 4)

    def fell(base, outputs, n):
        return fell_to_chance(metric, *compare_accuracy(metric, base[:n], outputs[:n], CLASSES[:n])[1:], level)

    noise = rng.normal(size=SCORES.shape)
    assert fell(SCORES, noise, 200)
    assert fell(SCORES, np.zeros_like(SCORES), 200)
    assert not fell(SCORES, SCORES + 0.3 * noise, 200)
    assert not fell(SCORES, SCORES, 200)
    assert not fell(noise, -noise, 200)  # the baseline is at chance itself
    assert not fell(SCORES, SCORES + 0.3 * noise, 5)  # few samples condemn nothing
    off = SCORES.mean(0) + np.zeros_like(SCORES)
    mae, mean_level = METRICS["mae"], chance(METRICS["mae"], SCORES, 4)
    assert fell_to_chance(mae, *compare_accuracy(mae, SCORES, off, None)[1:], mean_level)
    assert not fell_to_chance(metric, *compare_accuracy(metric, SCORES, noise, CLASSES)[1:], None)
