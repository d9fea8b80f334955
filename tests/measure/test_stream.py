"""Samples sent piece by piece."""

import numpy as np
import pytest

from edgelathe.measure import stream as module
from edgelathe.measure.stream import evaluate, pieces, stream


class Fake:
    """A session whose outputs are its inputs; it writes down what it was fed."""

    def __init__(self):
        self.fed, self.asked = [], []

    def feed(self, arrays):
        self.fed.append(arrays)
        return len(arrays["x"])

    def infer(self, first, count):
        self.asked.append((first, count))
        return [self.fed[-1]["x"][first : first + count]]


X = np.arange(100, dtype=np.float32).reshape(50, 2)


def test_small_data_go_whole_and_as_they_are():
    ((first, arrays),) = pieces({"x": X})
    assert first == 0
    assert arrays["x"] is X


@pytest.mark.parametrize(("batch", "size", "count"), [(1, 80, 10), (4, 80, 8), (4, 1, 4), (1, 1, 1)])
def test_pieces_cover_all_samples_in_multiples_of_the_batch(batch, size, count):
    got = list(pieces({"x": X}, batch, size))
    assert [len(arrays["x"]) for _, arrays in got[:-1]] == [count] * (len(got) - 1)
    np.testing.assert_array_equal(np.concatenate([arrays["x"] for _, arrays in got]), X)
    assert [first for first, _ in got] == list(range(0, 50, count))


@pytest.mark.parametrize("first", [0, 1, 10, 23, 49])
def test_outputs_are_those_of_all_samples_from_the_first_on(first):
    session = Fake()
    outputs = [o for (o,) in stream(session, {"x": X}, first=first, size=80)]
    np.testing.assert_array_equal(np.concatenate(outputs), X[first:])
    assert len(session.fed) == 5 - first // 10  # pieces that are done are not sent again


def test_a_device_is_told_to_forget_the_pieces_of_large_data_only(monkeypatch):
    forgotten = []
    list(stream(Fake(), {"x": X}, size=80, forget=forgotten.append))
    assert forgotten == []
    monkeypatch.setattr(module, "STAYS", 100)
    list(stream(Fake(), {"x": X}, size=80, forget=forgotten.append))
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in forgotten]), X)


def test_blocks_grow_to_about_half_a_second_in_multiples_of_the_batch():
    session, now = Fake(), [0.0]
    session.feed({"x": np.zeros((1000, 1))})

    def clock():
        now[0] += 0.05  # each block seems to take that long
        return now[0]

    list(evaluate(session, 1000, batch=8, clock=clock))
    counts = [count for _, count in session.asked]
    assert counts[:3] == [8, 32, 128]
    assert all(count % 8 == 0 for count in counts[:-1])
    assert sum(counts) == 1000
