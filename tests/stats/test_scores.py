import numpy as np
import pytest

from edgelathe.stats import scores


def value(prepared, n):
    return float(prepared(np.ones((1, n)))[0])


def test_top1_takes_the_first_of_equal_outputs():
    outputs = np.array([[1, 3, 3], [5, 5, 5], [0, 0, 1]], np.uint8)
    assert scores.top1(outputs, np.array([1, 0, 0])).tolist() == [True, True, False]


def test_top5_counts_ties_as_argmax_does():
    outputs = np.array([[9, 8, 7, 6, 5, 5, 0]] * 3)
    assert scores.top5(outputs, np.array([4, 5, 6])).tolist() == [True, False, False]
    rng = np.random.default_rng(0)
    outputs, labels = rng.integers(0, 6, (100, 12)), rng.integers(0, 12, 100)
    best = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
    assert scores.top5(outputs, labels).tolist() == [y in row for y, row in zip(labels, best, strict=True)]


def test_balanced_and_f1_by_hand():
    answers, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    outputs = np.eye(4)[answers]
    assert value(scores.balanced(outputs, labels), 6) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert value(scores.f1(outputs, labels), 6) == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)  # class 3 never occurs
    binary = np.eye(2)[[0, 1, 1, 1]]
    assert value(scores.f1(binary, np.array([0, 0, 1, 1])), 4) == pytest.approx(0.8)


@pytest.mark.parametrize("shape", ["one", "two"])
def test_auroc_of_two_classes_is_the_share_of_ordered_pairs(shape):
    rng = np.random.default_rng(1)
    score, labels = rng.integers(0, 5, 60).astype(np.int8), rng.integers(0, 2, 60)  # with ties
    up, down = score[labels == 1], score[labels == 0]
    expected = np.mean((up[:, None] > down) + 0.5 * (up[:, None] == down))
    outputs = score[:, None] if shape == "one" else np.stack([-score, score], 1)
    assert value(scores.auroc(outputs, labels), 60) == pytest.approx(expected)


def test_auroc_of_several_classes_is_the_mean_of_one_against_the_rest():
    outputs = np.array([[9, 0, 0], [8, 1, 0], [0, 7, 1], [0, 2, 9], [1, 3, 8]])
    assert value(scores.auroc(outputs, np.array([0, 0, 1, 2, 2])), 5) == 1
    assert value(scores.auroc(outputs, np.array([0, 0, 1, 1, 2])), 5) == pytest.approx((1 + 5 / 6 + 3 / 4) / 3)
    assert np.isnan(value(scores.auroc(outputs[:, :1], np.zeros(5)), 5))


def test_errors_by_hand():
    outputs, targets = np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), np.array([[1.0, 4.0], [3.0, 8.0]])
    assert scores.absolute_error(outputs, targets).tolist() == [1, 2]
    assert value(scores.mean_of(scores.absolute_error)(outputs, targets), 2) == 1.5
    assert value(scores.root_mean_square(outputs, targets), 2) == pytest.approx(np.sqrt(5))
    # integers are compared as numbers, without wrapping round
    assert scores.absolute_error(np.array([[-128]], np.int8), np.array([[127]], np.int8)).tolist() == [255]


def test_cosine_of_zero_vectors_is_defined():
    a, b = np.array([[3, 4], [0, 0], [0, 0], [1, 0]]), np.array([[6, 8], [0, 0], [1, 0], [-2, 0]])
    assert scores.cosine(a, b) == pytest.approx([1, 1, 0, -1])


def test_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    score, labels = rng.normal(size=200), rng.integers(0, 2, 200)
    u = stats.mannwhitneyu(score[labels == 1], score[labels == 0]).statistic
    pairs = (labels == 1).sum() * (labels == 0).sum()
    assert value(scores.auroc(score[:, None], labels), 200) == pytest.approx(u / pairs)
