"""The arithmetic of accuracy metrics, each as a function of how often every sample counts.

`prepare(outputs, labels)` does the work per sample once and returns a `Weighted`: weights [r, n] -> values [r]. All
ones give the metric, drawn counts its bootstrap. Outputs are [n, ...], labels [n] classes or [n, ...] targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgelathe.stats.paired import Weighted

Array = NDArray[np.generic]
Floats = NDArray[np.float64]


def flat(outputs: Array) -> Array:
    """[n, ...] -> [n, k]."""
    return outputs.reshape(len(outputs), -1)


def top1(outputs: Array, labels: Array) -> NDArray[np.bool_]:
    """Whether the largest output is the label's; the first of several that are equally large counts."""
    return np.asarray(flat(outputs).argmax(1) == labels.reshape(-1))


def top5(outputs: Array, labels: Array) -> NDArray[np.bool_]:
    """Whether the label's output is among the five largest; of equal ones the first count."""
    scores, classes = flat(outputs).astype(np.float64), labels.reshape(-1, 1).astype(np.int64)
    own = np.take_along_axis(scores, classes, 1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < classes))
    return np.asarray(before.sum(1) < 5)


def absolute_error(outputs: Array, labels: Array) -> Floats:
    """Mean absolute error of each sample."""
    return np.asarray(np.abs(_residual(outputs, labels)).mean(1))


def squared_error(outputs: Array, labels: Array) -> Floats:
    """Mean squared error of each sample."""
    return np.asarray((_residual(outputs, labels) ** 2).mean(1))


def cosine(outputs: Array, labels: Array) -> Floats:
    """Cosine of the angle between output and target of each sample; 1 where both are zero, 0 where one is."""
    a, b = flat(outputs).astype(np.float64), flat(labels).astype(np.float64)
    size_a, size_b = (np.sqrt((v * v).sum(1)) for v in (a, b))
    product = size_a * size_b
    values = np.divide((a * b).sum(1), product, out=np.zeros(len(a)), where=product > 0)
    return np.where((size_a == 0) & (size_b == 0), 1.0, np.clip(values, -1, 1))


def mean_of(per_sample: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Weighted]:
    """The weighted mean of per-sample values."""

    def prepare(outputs: Array, labels: Array) -> Weighted:
        values = per_sample(outputs, labels).astype(np.float64)
        return lambda weights: np.asarray(weights @ values / weights.sum(1))

    return prepare


def root_mean_square(outputs: Array, labels: Array) -> Weighted:
    """The root of the mean squared error over all samples."""
    mean = mean_of(squared_error)(outputs, labels)
    return lambda weights: np.sqrt(mean(weights))


def balanced(outputs: Array, labels: Array) -> Weighted:
    """The mean over the classes that occur of the share of their samples that is right (Brodersen et al., 2010)."""
    right = top1(outputs, labels).astype(np.float64)
    member = _one_hot(labels)

    def weighted(weights: Floats) -> Floats:
        return _mean_where((weights * right) @ member, weights @ member)

    return weighted


def f1(outputs: Array, labels: Array) -> Weighted:
    """F1 = 2 tp / (2 tp + fp + fn): of class 1 where the model has two classes, else the mean over those that occur.

    A class occurs where it is a label or an answer (van Rijsbergen, Information Retrieval, 7; macro average).
    """
    scores = flat(outputs)
    classes, answers = labels.reshape(-1).astype(np.int64), scores.argmax(1)
    kinds = np.array([1]) if scores.shape[1] == 2 else np.union1d(classes, answers)
    actual, given = ((v[:, None] == kinds).astype(np.float64) for v in (classes, answers))

    def weighted(weights: Floats) -> Floats:
        return _mean_where(2 * (weights @ (actual * given)), weights @ actual + weights @ given)

    return weighted


def auroc(outputs: Array, labels: Array) -> Weighted:
    """Area under the ROC curve: the share of (positive, negative) pairs ranked rightly, ties half.

    Hanley and McNeil (1982). One output: it is the score of class 1. Two: their difference. More: one against the
    rest for each class that occurs, averaged. A class without a positive or a negative sample in a resample is left out
    there.
    """
    scores, classes = flat(outputs).astype(np.float64), labels.reshape(-1).astype(np.int64)
    if scores.shape[1] <= 2:
        columns = [(scores[:, -1] - (scores[:, 0] if scores.shape[1] == 2 else 0), classes == 1)]
    else:
        columns = [(scores[:, c], classes == c) for c in np.unique(classes)]
    areas = [_area(score, positive) for score, positive in columns]

    def weighted(weights: Floats) -> Floats:
        values = np.stack([area(weights) for area in areas], 1)
        known = np.isfinite(values)
        return _divide(np.where(known, values, 0).sum(1), known.sum(1))

    return weighted


def _area(score: Floats, positive: NDArray[np.bool_]) -> Weighted:
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))  # of the groups of equal scores
    is_positive = positive[order]

    def weighted(weights: Floats) -> Floats:
        ordered = weights[:, order]
        up = np.add.reduceat(ordered * is_positive, starts, axis=1)
        down = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
        below = np.cumsum(down, 1) - down / 2
        return _divide((up * below).sum(1), up.sum(1) * down.sum(1))

    return weighted


def _residual(outputs: Array, labels: Array) -> Floats:
    return np.asarray(flat(outputs).astype(np.float64) - flat(labels).astype(np.float64))


def _one_hot(labels: Array) -> Floats:
    classes = labels.reshape(-1)
    return np.asarray((classes[:, None] == np.unique(classes)).astype(np.float64))


def _divide(a: Floats, b: Array) -> Floats:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def _mean_where(above: Floats, below: Floats) -> Floats:
    """The mean of above / below over the columns where `below` is not 0; nan where it is 0 in all."""
    there = below != 0
    values = np.divide(above, below, out=np.zeros(above.shape), where=there)
    return _divide(values.sum(1), there.sum(1))


def common_classes(labels: Array, k: int) -> Floats:
    """Outputs [m, k] of answers that never look at the input: how common each class is, and for two the reverse too."""
    counts = np.bincount(labels.reshape(-1).astype(np.int64), minlength=k).astype(np.float64)
    return np.stack([counts, counts[::-1]]) if k == 2 else counts[None, -k:]


def middle_targets(labels: Array, _: int) -> Floats:
    """Outputs [2, k] that never look at the input: the median and the mean of the targets."""
    values = flat(labels).astype(np.float64)
    return np.stack([np.median(values, 0), values.mean(0)])
