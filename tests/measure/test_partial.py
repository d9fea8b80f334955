"""What an evaluation that was cut off leaves behind."""

import os

import numpy as np
import pytest

from edgelathe.measure.partial import STALE, Partial

KEY = {"model": "a", "session": {"threads": 1}}


@pytest.fixture
def partial():
    found = Partial(KEY)
    for start in (0, 4):
        found.append(np.arange(start, start + 4, dtype=np.float32).reshape(2, 2))
    return found


def test_the_next_one_finds_what_was_measured(partial):
    np.testing.assert_array_equal(np.concatenate(Partial(KEY).load()), np.arange(8).reshape(4, 2))


def test_another_question_finds_nothing(partial):
    assert Partial({**KEY, "model": "b"}).load() == []


def test_a_record_that_was_not_written_whole_is_left_out_and_written_over(partial):
    with partial.path.open("r+b") as f:
        f.truncate(partial.path.stat().st_size - 3)
    again = Partial(KEY)
    assert len(again.load()) == 1
    again.append(np.full((2, 2), 7, np.float32))
    assert [block[0, 0] for block in Partial(KEY).load()] == [0, 7]


def test_what_is_old_is_not_taken_up(partial):
    past = partial.path.stat().st_mtime - STALE - 10
    os.utime(partial.path, (past, past))
    assert Partial(KEY).load() == []
    assert not partial.path.exists()


def test_one_that_came_to_its_end_says_so_and_is_found(partial):
    assert not partial.ended
    partial.end()
    again = Partial(KEY)
    assert again.ended
    assert sum(map(len, again.load())) == 4
    again.remove()
    assert Partial(KEY).load() == []
    Partial(KEY).end()  # nothing was written, as on a full disk


def test_nothing_is_left_after_the_end(partial):
    partial.remove()
    partial.remove()
    assert Partial(KEY).load() == []


def test_of_two_at_once_one_keeps_the_file():
    first, second = Partial(KEY), Partial(KEY)
    assert first.load() == second.load() == []
    for value, one in enumerate((first, second, first, second)):
        one.append(np.full((1, 2), value, np.float32))
    second.end()
    second.remove()
    assert [block[0, 0] for block in Partial(KEY).load()] == [0, 2]
