import numpy as np
import pytest

from edgelathe.stats.stopping import LOOKS, decide, looks


def test_looks_end_with_all_samples_and_are_few():
    for total in (1, 49, 50, 51, 60, 600, 2600, 100_000):
        at = looks(total)
        assert at[-1] == total
        assert len(at) <= LOOKS
        assert list(at) == sorted(set(at))
        assert all(n >= min(50, total) for n in at)
    assert looks(0) == ()


def test_a_hopeless_candidate_goes_out_early_and_a_good_one_never():
    assert decide(30, 2, 50, 600, 0.015) == "out"
    assert decide(0, 0, 50, 600, 0.015) == "continue"
    assert decide(0, 0, 0, 600, 0.015) == "continue"
    assert decide(1, 0, 1, 600, 0.015) == "continue"  # one lost sample of one shows nothing


def test_what_cannot_be_mended_any_more_is_out_for_certain():
    assert decide(60, 0, 595, 600, 0.05) == "out"
    assert decide(30, 0, 600, 600, 0.05) == "continue"  # exactly the limit
    assert decide(31, 0, 600, 600, 0.05) == "out"


@pytest.mark.parametrize(("total", "drop", "changed"), [(600, 0.015, 0.05), (2600, 0.02, 0.1)])
def test_a_candidate_at_the_limit_is_rarely_lost(total, drop, changed):
    rng, runs, kept, lost_by_mistake = np.random.default_rng(0), 600, 0, 0
    for _ in range(runs):
        u = rng.random(total)
        lost, won = np.cumsum(u < (changed + drop) / 2), np.cumsum(u > 1 - (changed - drop) / 2)
        keeps = lost[-1] - won[-1] <= drop * total
        out = any(decide(int(lost[n - 1]), int(won[n - 1]), n, total, drop) == "out" for n in looks(total))
        kept += keeps
        lost_by_mistake += keeps and out
    assert lost_by_mistake <= 0.05 * kept


def test_impossible_counts_are_refused():
    for bad in ((3, 3, 5, 10), (1, 0, 11, 10), (-1, 0, 5, 10)):
        with pytest.raises(ValueError, match="lost"):
            decide(*bad, 0.01)
