"""Numbers as people read them."""

import math

import pytest

from edgelathe.report import units


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (61.23, 60.4, 62.0, "61.2 ± 0.8"),
        (3.0512, 3.0412, 3.0612, "3.05 ± 0.01"),
        (1.6, 1.45, 1.75, "1.60 ± 0.15"),
        (6812.0, 6760.0, 6862.0, "6,812 ± 52"),
        (0.0, 0.0, 0.0, "0 ± 0"),
        (5.0, 5.0, 5.0, "5.00 ± 0.00"),
        (-0.0004, -0.3, 0.3, "0.0 ± 0.3"),
        (61.2, 60.4, None, "61.2 [60.4, ?]"),
        (61.2, 60.4, math.inf, "61.2 [60.4, ?]"),
        (61.2, None, None, "61.2"),
    ],
)
def test_a_value_has_no_digit_that_its_interval_does_not_support(value, low, high, expected):
    assert units.plus_minus(value, low, high) == expected


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (None, "-"),
        (0.0612, "61.2 us"),
        (3.123, "3.12 ms"),
        (184.2, "184 ms"),
        (9999, "9,999 ms"),
        (41_000, "41.0 s"),
        (720_000, "12 min"),
        (0, "0 ms"),
    ],
)
def test_durations(ms, expected):
    assert units.duration(ms) == expected


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (None, "-"),
        (0, "0 B"),
        (940, "940 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (139_960, "140 kB"),
        (999_700, "1.00 MB"),
        (4_128_019, "4.13 MB"),
        (11e9, "11.0 GB"),
    ],
)
def test_sizes_are_in_powers_of_1000(n, expected):
    assert units.size(n) == expected


@pytest.mark.parametrize(
    ("n", "expected"),
    [(980, "980"), (34_222, "34 k"), (900_000, "0.9 M"), (12_500_000, "12 M"), (1.25e9, "1.2 G"), (None, "-")],
)
def test_counts(n, expected):
    assert units.count(n) == expected


def test_drops_are_points_for_shares_and_the_own_unit_for_errors():
    assert units.drop("top1", 0.0012, -0.0018, 0.0042) == "0.1 ± 0.3 pt"
    assert units.drop("top1", -0.0001, None, None) == "0.0 pt"
    assert units.drop("rmse", 0.21, 0.11, 0.31) == "0.2 ± 0.1"
    assert units.drop("top1", None) == "-"
    assert units.score("rmse", 12.3456) == "12.35"
    assert units.score("top1", 0.8764) == "87.6 %"
    assert units.metric("mine.py:loss") == "loss"


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("latency.p95", 3.123, "3.12 ms"),
        ("size", 43_400, "43.4 kB"),
        ("accuracy.drop", 0.0046, "0.46 pt"),
        ("accuracy", 0.9, "90.0 %"),
        ("throughput", 1234.0, "1,234 /s"),
        ("memory", 5e6, "5.00 MB"),
        ("energy", 1.5, "1.50 mJ"),
        ("load", 12.0, "12.0 ms"),
        ("size", None, "unknown"),
    ],
)
def test_every_budget_metric_has_its_unit(metric, value, expected):
    assert units.quantity(metric, "top1", value) == expected
