"""What is done with each block and at the end, with answers that are made up."""

from dataclasses import dataclass

import numpy as np
import pytest

from edgelathe.compress.sensitivity import rounds
from edgelathe.compress.sensitivity.errors import Answer, Error
from edgelathe.compress.sensitivity.known import Found
from edgelathe.compress.sensitivity.strata import Known


@dataclass(frozen=True, eq=False)
class Job:
    name: str
    rows: np.ndarray | None = None

    @property
    def key(self):
        return self.name, 0


class Judge:
    outputs, hidden = ("y",), ()

    def accuracy(self, outputs):
        return None

    def changed(self, outputs):
        return int((outputs.argmax(1) != 0).sum())


STAY, TURN = [1.0, 0.0], [0.0, 1.0]
TOLD = Known(np.zeros(3, np.intp), np.zeros((3, 2), np.float32), {}, {}, np.zeros(0, np.intp))


def found_of(*names):
    return {(name, 0): Found(Judge(), np.zeros((3, 2)), early=False) for name in names}


def test_a_sample_that_one_layer_turns_is_run_for_another_that_left_it_out(monkeypatch):
    asked, told = [], []

    def settle(jobs):
        for job in jobs:
            asked.append((job.name, None if job.rows is None else job.rows.tolist()))
            first = np.array([STAY, TURN if job.name == "a" or job.rows is not None else STAY, STAY])
            yield Answer(first, {"y": (Error(3.0, 1.0),)})

    found = found_of("a", "b")
    monkeypatch.setattr(Found, "left", lambda one: np.array([False, one is found["b", 0], False]))
    rounds.take_in(settle, [Job("a"), Job("b")], found, (4,), TOLD, lambda job, part: told.append((job.name, part)))
    assert asked == [("a", None), ("b", None), ("b", [1])]
    assert told == [("a", 0.5), ("b", 1.0)]
    assert found["b", 0].width(4, None, 0.0, 0).changed == 1


def test_a_row_of_the_table_says_what_the_layer_is_and_what_it_took():
    found = found_of("a")
    found["a", 0].add(Answer(np.array([TURN, STAY, STAY]), {"y": (Error(100.0, 1.0),)}), None, None)
    weights = np.array([[1.0, 2.0]])
    size = {None: 8, 4: 1}.__getitem__
    row = rounds.entry("a", "Conv", weights, [weights + 0.1], size, {"a": 30, "b": 10}, found, ((4,), 8))
    assert (row.parameters, row.macs, row.macs_share, row.float_bytes) == (2, 30, 0.75, 8)
    (width,) = row.widths
    assert (width.bits, width.activations, width.bytes, width.changed, width.n) == (4, 8, 1, 1, 3)
    assert width.sqnr_db == pytest.approx(20)
    assert width.weights_db == pytest.approx(10 * np.log10(5 / 0.02))


def test_what_is_not_doubted_is_done():
    found = found_of("a")
    found["a", 0].add(Answer(np.array([STAY] * 3), {"y": (Error(),)}), None, None)
    assert rounds.doubted(found, set(found), None) == set()
    assert found["a", 0].width(4, None, 0.0, 0).n == 3
