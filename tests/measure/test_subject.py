import numpy as np
import pytest

from edgelathe.core import dataset
from edgelathe.measure import subject
from edgelathe.measure.plan import scenario
from support.benching import BUNDLED, OPTIONS, FakeDevice, FakeSession, models


def test_data_too_large_for_a_device_are_thinned_evenly_and_told(monkeypatch):
    data = dataset.load(BUNDLED / "eval.npz")
    (whole,) = subject.subjects(models(1), [OPTIONS], data, 0, 0)
    (array,) = whole.inputs.values()
    assert whole.remarks == ()
    monkeypatch.setattr(subject, "FED", array.nbytes // 3)
    (few,) = subject.subjects(models(1), [OPTIONS], data, 0, 0)
    (kept,) = few.inputs.values()
    assert len(kept) == len(array) // 3
    np.testing.assert_array_equal(kept[[0, -1]], array[[0, (len(kept) - 1) * len(array) // len(kept)]])
    assert few.remarks == (f"timed on {len(kept):,} of {len(array):,} samples, evenly spread",)


def test_random_inputs_fill_a_batch():
    (s,) = subject.subjects(models(1), [OPTIONS], None, 16, 0)
    assert {len(a) for a in s.inputs.values()} == {16}


@pytest.mark.parametrize(("value", "said"), [(1.0, 0), (np.nan, 1), (-np.inf, 1)])
def test_outputs_that_are_no_numbers_are_told_where_only_times_are_asked_for(monkeypatch, value, said):
    monkeypatch.setattr(FakeSession, "answer", np.array([[1, value, 2]], np.float32))
    found = subject.subjects(models(1), [OPTIONS], None, 0, 0)
    with subject.opened(FakeDevice(lambda i: 1000), found, scenario(""), None) as (got,):
        assert sum("NaN or infinity in the outputs (y)" in w for w in got.facts.warnings) == said
