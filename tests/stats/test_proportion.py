import pytest

from edgelathe.core.interval import Interval
from edgelathe.stats.proportion import wilson
from edgelathe.stats.special import binomial_window


def test_known_values():
    # Brown, Cai and DasGupta's formula by hand, 10 of 50: (10 + 1.9208)/(53.8415) -+ 0.1094
    ends = wilson(10, 50)
    assert (ends.low, ends.high) == (pytest.approx(0.11244, abs=1e-5), pytest.approx(0.33037, abs=1e-5))


def test_borders():
    assert wilson(0, 0) == Interval(0, 1)
    assert wilson(0, 10).low == 0
    assert wilson(0, 10).high == pytest.approx(0.27753, abs=1e-5)
    assert wilson(10, 10) == Interval(pytest.approx(1 - 0.27753, abs=1e-5), 1)
    assert 0.05 < wilson(1, 1).low < 1
    for k in range(8):
        assert k / 7 in wilson(k, 7)
    for bad in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="no share"):
            wilson(*bad)


def test_one_sided_is_closer_than_two_sided():
    two, one = wilson(40, 50), wilson(40, 50, 0.05)
    assert two.low < one.low < 0.8 < one.high < two.high


@pytest.mark.parametrize("p", [0.5, 0.8, 0.97])
def test_coverage_over_all_outcomes(p):
    n = 300
    first, pmf = binomial_window(n, p)
    covered = sum(w for k, w in enumerate(pmf, first) if p in wilson(k, n))
    assert covered == pytest.approx(0.95, abs=0.015)
