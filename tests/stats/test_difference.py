import json

import numpy as np
import pytest

from edgelathe.stats.difference import compare
from edgelathe.stats.metrics import METRICS, compare_accuracy
from edgelathe.stats.paired import mcnemar

RNG = np.random.default_rng(0)
A = RNG.normal(size=(300, 4))
B = A + 0.5 * RNG.normal(size=A.shape)
LABELS = np.where(RNG.random(300) < 0.8, A.argmax(1), 0)


def test_a_share_is_compared_exactly():
    d = compare(METRICS["top1"], A, B, LABELS)
    right = [o.argmax(1) == LABELS for o in (A, B)]
    lost, won = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    assert (d.lost, d.won, d.n) == (lost, won, 300)
    assert d.value == (lost - won) / 300
    assert d.low < d.value < d.high
    assert d.p == mcnemar(lost, won)
    assert d.changed == int((A.argmax(1) != B.argmax(1)).sum())
    assert json.loads(json.dumps(d.to_json()))["drop"] == d.value


@pytest.mark.parametrize("name", ["balanced", "rmse"])
def test_other_metrics_have_an_interval_but_no_counts(name):
    metric = METRICS[name]
    labels = LABELS if metric.classes else A
    d = compare(metric, A, B, labels)
    assert (d.p, d.lost, d.won) == (None, None, None)
    assert (d.changed is None) == (not metric.classes)
    accuracy, _, claim = compare_accuracy(metric, A, B, labels)
    assert (d.value, d.low, d.high) == (claim.value, accuracy.drop_low, accuracy.drop_high)


def test_a_model_against_itself_without_labels():
    d = compare(METRICS["top1"], A, A, None)
    assert (d.value, d.lost, d.won, d.changed, d.p) == (0, 0, 0, 0, 1)
