import numpy as np
import pytest

from edgelathe.calibrate import histogram, statistics

RNG = np.random.default_rng(0)
RUNS = [
    (RNG.normal(size=(1, 5, 6, 7)) * scale + np.arange(5).reshape(1, 5, 1, 1)).astype(np.float32)
    for scale in (1, 0.01, 300, 1, 7)
]


def each(runs):
    return [statistics.of("t", r, 1) for r in runs]


def fold(parts):
    out = statistics.nothing("t")
    for part in parts:
        out = statistics.merge(out, part)
    return out


def same(a, b, rel=1e-6):
    assert (a.low, a.high, a.samples, a.shape) == (b.low, b.high, b.samples, b.shape)
    assert (a.histogram.width, a.histogram.first) == (b.histogram.width, b.histogram.first)
    assert np.array_equal(a.histogram.counts, b.histogram.counts)
    for name in ("count", "mean", "m2", "low", "high"):
        assert getattr(a.channels, name) == pytest.approx(getattr(b.channels, name), rel=rel, abs=1e-6)


def test_merging_is_associative():
    a, b, c, d, e = each(RUNS)
    m = statistics.merge
    left = m(m(m(m(a, b), c), d), e)
    same(left, m(a, m(b, m(c, m(d, e)))))
    same(left, m(m(a, b), m(c, m(d, e))))


def test_merged_parts_are_what_all_samples_give_at_once():
    found, x = fold(each(RUNS)), np.concatenate(RUNS)
    flat = np.moveaxis(x, 1, 0).reshape(5, -1).astype(np.float64)
    assert (found.low, found.high) == (x.min(), x.max())
    assert found.channels.count == flat.shape[1]
    assert found.mean == pytest.approx(flat.mean(1), rel=1e-5, abs=1e-4)
    assert found.channels.variance == pytest.approx(flat.var(1), rel=1e-4)
    assert np.array_equal(found.channels.low, flat.min(1))
    assert np.array_equal(found.channels.high, flat.max(1))
    assert found.histogram.counts.sum() == x.size
    once = histogram.extend(histogram.EMPTY, x.reshape(-1))
    assert np.array_equal(histogram.rescale(once, found.histogram.width).counts, found.histogram.counts)


def test_nothing_is_neutral():
    (one,) = each(RUNS[:1])
    assert statistics.merge(statistics.nothing("t"), one) is one
    assert statistics.merge(one, statistics.nothing("t")) is one
    assert statistics.of("t", np.zeros((1, 0), np.float32), 1).samples == 0


def test_dead_and_constant_channels_have_no_variance():
    x = np.zeros((1, 3, 4, 4), np.float32)
    x[:, 1] = 2.5
    found = fold([statistics.of("t", x, 1)] * 3)
    assert found.mean.tolist() == [0, 2.5, 0]
    assert found.channels.variance == pytest.approx([0, 0, 0], abs=1e-6)
    assert not found.constant
    assert statistics.of("t", x[:, :1], None).constant


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [None, 1])
def test_values_that_are_not_finite_are_refused(bad, axis):
    x = np.zeros((1, 3, 4), np.float32)
    x[0, 1, 2] = bad
    with pytest.raises(ValueError, match="'t' is not finite"):
        statistics.of("t", x, axis)


def test_statistics_of_many_samples_are_no_larger_than_of_few():
    size = [len(fold(each(RUNS * n)).histogram.counts) for n in (1, 20)]
    assert size[0] == size[1] <= histogram.BINS


def test_a_thinned_tensor_still_shows_every_channel():
    x = np.repeat(np.arange(64, dtype=np.float32), 1024).reshape(1, 64, 32, 32)
    thin = statistics.thin(x, 4096)
    assert len(thin) <= 4096
    assert set(np.unique(thin)) == set(range(64))


def test_thinning_an_array_in_pieces_gives_the_same_values():
    x = np.arange(6 * 500, dtype=np.float32).reshape(6, 500)
    pieces = np.lib.stride_tricks.as_strided(x, (6, 250), (x.strides[0], 2 * x.strides[1]))
    assert np.array_equal(statistics.thin(pieces, 100), statistics.thin(np.ascontiguousarray(pieces), 100))
