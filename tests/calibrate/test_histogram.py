import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelathe.calibrate import histogram

CHUNKS = st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=1, max_size=8)


@given(CHUNKS)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_one_pass_with_the_final_width(chunks):
    h = histogram.EMPTY
    for chunk in chunks:
        h = histogram.extend(h, np.array(chunk, np.float32))
    values = np.concatenate([np.array(c, np.float32) for c in chunks])
    assert h.counts.sum() == len(values)
    assert len(h.counts) <= histogram.BINS
    once = np.bincount((np.floor(values / np.float32(h.width)) - h.first).astype(int), minlength=len(h.counts))
    assert np.abs(np.cumsum(once - h.counts)).max() <= 1  # float32 may put a value on an edge to either side


@given(CHUNKS)
@settings(max_examples=30, deadline=None)
def test_every_value_lies_between_the_edges_and_zero_is_an_edge(chunks):
    h = histogram.EMPTY
    for chunk in chunks:
        h = histogram.extend(h, np.array(chunk, np.float32))
    low, high = min(map(min, chunks)), max(map(max, chunks))
    assert h.edges[0] <= low
    assert high <= h.edges[-1]
    assert np.all(h.edges / h.width == np.round(h.edges / h.width))


@pytest.mark.parametrize("values", [[0.0], [3.0], [-2.5, -2.5], [1e-30, 2e-30], [-1e30, 1e30]])
def test_degenerate_ranges(values):
    h = histogram.extend(histogram.EMPTY, np.array(values, np.float32))
    assert h.counts.sum() == len(values)
    assert np.isfinite(h.edges).all()


def test_a_wide_stream_keeps_at_least_half_of_its_bins():
    h = histogram.EMPTY
    for scale in (0.01, 1, 100):
        h = histogram.extend(h, np.linspace(-scale, scale, 1000, dtype=np.float32))
    assert histogram.BINS / 4 <= len(h.counts) <= histogram.BINS
