import math

import pytest

from edgelathe.stats.special import beta_below, binomial_above, binomial_below, binomial_window, student, z


def exact_below(k, n, p):
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.5), (71, 0.95), (200, 0.99), (300, 0.01)])
def test_binomial_tails_are_the_exact_sums(n, p):
    for k in range(0, n, max(1, n // 9)):
        assert binomial_below(k, n, p) == pytest.approx(exact_below(k, n, p), rel=1e-9, abs=1e-14)
        assert binomial_above(k + 1, n, p) == pytest.approx(1 - exact_below(k, n, p), rel=1e-6, abs=1e-12)


def test_binomial_borders():
    assert binomial_below(-1, 5, 0.5) == 0
    assert binomial_below(5, 5, 0.5) == 1
    assert binomial_below(0, 0, 0.5) == 1
    assert (binomial_below(2, 5, 0.0), binomial_below(2, 5, 1.0)) == (1, 0)


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (1000, 0.5), (1_000_000, 0.999), (1_000_000, 1e-6)])
def test_the_window_holds_all_probability(n, p):
    first, pmf = binomial_window(n, p)
    assert pmf.sum() == pytest.approx(1, abs=1e-8)
    assert 0 <= first <= first + len(pmf) - 1 <= n


@pytest.mark.parametrize(
    ("alpha", "df", "table"),  # Student's t, from the usual table
    [(0.025, 1, 12.706), (0.05, 1, 6.314), (0.025, 5, 2.571), (0.05, 10, 1.812), (0.025, 30, 2.042), (0.005, 4, 4.604)],
)
def test_student(alpha, df, table):
    assert student(alpha, df) == pytest.approx(table, abs=6e-4)


def test_student_tends_to_the_normal():
    assert z(0.05) == pytest.approx(1.644854, abs=1e-6)
    assert student(0.05, 1e9) == z(0.05)
    assert student(0.025, 1e5) == pytest.approx(z(0.025), abs=1e-4)


def test_beta_against_closed_forms():
    assert [beta_below(x, 2, 3) for x in (-1, 0, 1, 2)] == [0, 0, 1, 1]
    for x in (0.01, 0.3, 0.77, 0.999):
        assert beta_below(x, 1, 1) == pytest.approx(x)
        assert beta_below(x, 3, 1) == pytest.approx(x**3)
        assert beta_below(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)))


def test_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for df in (1.5, 3, 17.3, 250):
        assert student(0.01, df) == pytest.approx(stats.t.isf(0.01, df), rel=1e-8)
    for a, b, x in ((0.5, 40, 0.02), (30, 2.5, 0.9), (500, 700, 0.4)):
        assert beta_below(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-9)
