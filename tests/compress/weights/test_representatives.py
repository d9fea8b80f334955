from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelathe.compress.weights import representatives

RNG = np.random.default_rng(5)


def error(counts, centres):
    places = np.arange(len(counts))
    return float((counts * np.square(places[:, None] - centres).min(axis=1)).sum())


def least(counts, k):
    """By trying every way to cut the places into k runs."""
    places, best = np.arange(len(counts)), np.inf
    for cuts in itertools.combinations(range(1, len(counts)), k - 1):
        total = 0.0
        for part in np.split(places, cuts):
            weight = counts[part].sum()
            if weight:
                total += float((counts[part] * np.square(part - (counts[part] * part).sum() / weight)).sum())
        best = min(best, total)
    return best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=9, max_size=9), st.integers(1, 5))
def test_kmeans_is_exact(row, k):
    counts = np.array(row, np.float64)
    found = representatives.by_kmeans(counts, k)
    assert found.shape == (k,)
    assert (np.diff(found) >= 0).all()
    assert error(counts, found) == pytest.approx(least(counts, k), abs=1e-9)


def test_many_places_are_nearly_exact():
    counts = RNG.integers(1, 9, 5000).astype(np.float64)
    even = np.abs(np.arange(5000)[:, None] - np.arange(156.25, 5000, 312.5)).min(axis=1)
    assert error(counts, representatives.by_kmeans(counts, 16)) < (counts * even**2).sum()


def test_the_most_frequent_stay_and_of_equals_those_near_zero():
    counts = np.array([[5.0, 1.0, 1.0, 1.0, 7.0]])
    assert representatives.by_frequency(counts, 3).tolist() == [[0, 2, 4]]


def test_values_become_levels_of_the_step_within_the_range():
    rows = np.array([[0.0, 0.26, 0.49, 3.0, -3.0]])
    levels, steps = representatives.choose(rows, 8, "frequency", 0.25, 1.0)
    assert steps.tolist() == [0.25]
    assert {0, 1, 2, 4, -4} <= set(levels[0].tolist())
    assert np.abs(levels * steps[:, None]).max() <= 1.0


@pytest.mark.parametrize("by", ["kmeans", "frequency"])
def test_each_row_has_its_own_range(by):
    rows = RNG.normal(size=(3, 400)) * np.array([[1.0], [100.0], [0.0]])
    levels, steps = representatives.choose(rows, 16, by, None, None)
    real = levels * steps[:, None]
    noise = [np.square(r - t[representatives.nearest(r, t)]).mean() for r, t in zip(rows, real, strict=True)]
    assert noise[0] < 0.05
    assert noise[1] < 0.05 * 1e4
    assert noise[2] == 0


def test_kmeans_loses_less_than_frequency():
    rows = RNG.standard_t(4, size=(4, 500))
    kept = {by: representatives.choose(rows, 16, by, None, None) for by in ("kmeans", "frequency")}
    assert representatives.squared_error(rows, *kept["kmeans"]) < representatives.squared_error(
        rows, *kept["frequency"]
    )


def test_few_values_are_found_exactly():
    values = RNG.choice(np.float32([-1.5, 0.1, 7]), 5000)
    assert representatives.distinct(values, 3).tolist() == np.float32([-1.5, 0.1, 7]).tolist()
    assert representatives.distinct(values, 2) is None
