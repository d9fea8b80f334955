"""Evaluations end once their limits are settled, and not before."""

import numpy as np

from edgelathe.core.budget import parse_all
from edgelathe.core.claim import Claim
from edgelathe.measure.early import kept, settled
from edgelathe.stats.metrics import METRICS

N = 2000
LABELS = np.arange(N) % 10
RIGHT = np.eye(10, dtype=np.float32)[LABELS]
WRONG = np.roll(RIGHT, 1, axis=1)


def mixed(share):
    """Outputs of which this share, evenly spread, is wrong."""
    bad = (np.arange(N) * share % 1) < share
    return np.where(bad[:, None], WRONG, RIGHT)


def ask(expr, outputs, n, base=RIGHT):
    return settled(METRICS["top1"], parse_all([expr]), LABELS, N, base)(outputs[:n])


def test_a_hopeless_model_is_out_early_and_a_near_miss_is_not():
    assert ask("accuracy.drop<=1%", mixed(0.4), 200) == "out"
    assert ask("accuracy.drop<=1%", mixed(0.02), 200) == "continue"


def test_a_limit_on_the_accuracy_itself_counts_all_wrong_answers():
    assert ask("accuracy>=90%", mixed(0.5), 200, None) == "out"
    assert ask("accuracy>=90%", mixed(0.1), 200, None) == "continue"


def test_without_a_model_to_compare_with_drops_stay_open():
    assert ask("accuracy.drop<=1%", mixed(0.5), 1000, None) == "continue"


def test_scores_that_are_no_shares_are_measured_to_the_end():
    metric = METRICS["f1"]
    assert settled(metric, parse_all(["accuracy>=90%"]), LABELS, N, RIGHT)(mixed(0.5)[:1000]) == "continue"


def test_other_limits_ask_nothing():
    assert ask("size<=0.5x", mixed(0.5), 1000) == "continue"


def test_bounds_end_at_limits_that_are_shown_to_be_kept():
    limits = parse_all(["accuracy.drop<=1%", "accuracy>=80%", "size<=0.5x"])
    claims = {"accuracy.drop": Claim(0.002, -0.01, 0.02), "accuracy": Claim(0.85, 0.7, 0.9), "size": Claim.of(9)}
    got = kept(claims, limits)
    assert (got["accuracy.drop"].upper, got["accuracy.drop"].lower) == (0.01, -0.01)
    assert (got["accuracy"].lower, got["accuracy"].upper) == (0.8, 0.9)
    assert got["size"] == claims["size"]
