import json

import numpy as np
import pytest

from edgelathe.stats.outliers import outliers


def quiet(seed=0):
    rng = np.random.default_rng(seed)
    return [1e6 * (1 + 0.01 * rng.random(100)) for _ in range(20)]


def test_a_quiet_run_has_none():
    o = outliers(quiet())
    assert (o.n, o.share, o.worst_ms, o.at, o.blocks, o.of_blocks) == (0, 0, None, "none", 0, 20)
    assert str(o) == "no outliers"


def test_all_in_the_first_block():
    blocks = quiet()
    blocks[0][3:15] *= 3
    o = outliers(blocks)
    assert (o.n, o.at, o.blocks) == (12, "first", 1)
    assert o.share == 12 / 2000
    assert str(o).startswith("12 outliers (0.6%), all in the first block, the worst 3.")
    assert json.loads(json.dumps(o.to_json()))["at"] == "first"


def test_spread_over_the_run():
    blocks = quiet()
    for b in blocks:
        b[3] *= 2
    assert outliers(blocks).at == "spread"


def test_in_a_few_blocks():
    blocks = quiet()
    blocks[4][:7] *= 2
    blocks[5][:9] *= 2
    o = outliers(blocks)
    assert (o.at, o.blocks) == ("clustered", 2)
    assert "in 2 of 20 blocks" in str(o)


def test_chance_is_rarely_called_a_cluster():
    rng, other = np.random.default_rng(0), 0
    for _ in range(300):
        values = np.full(2000, 1e6)
        values[rng.integers(0, 2000, 30)] *= 2
        other += outliers(np.split(values, 20)).at != "spread"
    assert other <= 0.05 * 300


def test_a_microsecond_on_a_still_series_is_no_outlier():
    assert outliers([np.array([1e6] * 50 + [1.001e6])]).n == 0
    assert outliers([np.array([1e6] * 50 + [1.2e6])]).n == 1


def test_one_block_and_none():
    assert outliers([np.array([1.0] * 30 + [9.0])]).at == "spread"
    with pytest.raises(ValueError, match="no samples"):
        outliers([np.array([])])
