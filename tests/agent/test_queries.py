from __future__ import annotations

import threading

import pytest

from edgelathe_agent import queries
from edgelathe_agent.queries import Several, Single, Stream, block


class Clock:
    """Time that passes only when told: `queries` sleeps on it and reads it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, overshoot: int = 0):
        self.now, self.slept, self._overshoot = 1_000, [], overshoot
        monkeypatch.setattr(queries, "clock", lambda: self.now)
        monkeypatch.setattr(queries.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1e9) + self._overshoot


class Engine:
    """Notes what its calls read; `work` is done in each."""

    def __init__(self, work=lambda: None):
        self.read, self.ran, self._work = -1, [], work

    def load(self, first: int) -> None:
        self._next = first

    def stage(self) -> None:
        self.read = self._next

    def run(self) -> None:
        self._work()
        self.ran.append(self.read)

    def close(self) -> None:
        self.read = -2


def stream(engine: Engine, n: int, batch: int = 1) -> Stream:
    return Stream(engine, [engine], batch, n)


def test_single_queries_go_round_the_samples_and_read_each_once():
    engine = Engine()
    done = block(Single(stream(engine, 3)), first=1, calls=5, min_ms=0)
    assert engine.ran == [1, 2, 0, 1, 2]
    assert (len(done.times), done.late) == (5, 0)


def test_a_batch_goes_on_where_the_one_before_ended():
    engine = Engine()
    block(Single(stream(engine, 10, batch=4)), first=0, calls=4, min_ms=0)
    assert engine.ran == [0, 4, 8, 2]


def test_both_the_number_and_the_time_are_reached(monkeypatch):
    clock = Clock(monkeypatch)

    def work() -> None:
        clock.now += 2_000_000

    assert len(block(Single(stream(Engine(work), 1)), 0, calls=1, min_ms=10).times) == 5
    assert list(block(Single(stream(Engine(work), 1)), 0, calls=9, min_ms=10).times) == [2_000_000] * 9


def test_a_block_holds_no_more_than_an_answer_can(monkeypatch):
    monkeypatch.setattr(queries, "MOST", 7)
    assert len(block(Single(stream(Engine(), 1)), 0, calls=100, min_ms=0).times) == 7


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_sample_of_a_query_is_run_once_by_one_of_the_streams(count):
    engines = [Engine() for _ in range(count)]
    several = Several([stream(e, 1000) for e in engines], samples=300)
    try:
        done = block(several, first=900, calls=2, min_ms=0)
    finally:
        several.close()
    assert len(done.times) == 2
    assert sorted(r for e in engines for r in e.ran) == sorted(i % 1000 for i in range(900, 1500))
    assert all(e.ran for e in engines)


def test_a_query_is_filled_up_to_whole_batches_and_the_next_one_starts_behind_its_samples():
    engine = Engine()
    several = Several([stream(engine, 100, batch=8)], samples=20)
    block(several, first=0, calls=2, min_ms=0)
    several.close()
    assert engine.ran == [0, 8, 16, 20, 28, 36]


def test_streams_run_at_once():
    together = threading.Barrier(4)
    engines = [Engine(lambda: together.wait(60)) for _ in range(4)]
    several = Several([stream(e, 8) for e in engines], samples=4)
    block(several, first=0, calls=3, min_ms=0)
    several.close()
    assert [len(e.ran) for e in engines] == [3] * 4


def test_no_more_threads_than_calls_and_none_for_one_stream():
    before = threading.active_count()
    one = Several([stream(Engine(), 8)], samples=100)
    assert threading.active_count() == before
    few = Several([stream(Engine(), 8) for _ in range(9)], samples=3)
    assert threading.active_count() == before + 2
    few.close()
    one.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("bad", [0, 2])
def test_what_a_call_raises_is_raised_when_all_are_done_and_the_streams_go_on(bad):
    fail = [True]

    def work() -> None:
        if fail[0]:
            raise ValueError("no kernel")

    engines = [Engine(work if i == bad else lambda: None) for i in range(3)]
    several = Several([stream(e, 8) for e in engines], samples=3)
    several.ready(0)
    with pytest.raises(ValueError, match="no kernel"):
        several.run()
    fail[0] = False
    several.ready(3)
    assert several.run() > 0
    several.close()
    assert sum(len(e.ran) for e in engines) == 5


def test_a_query_lasts_until_its_last_call_is_done(monkeypatch):
    clock = Clock(monkeypatch)
    gate = threading.Event()

    def slow() -> None:
        gate.wait(60)
        clock.now += 5_000

    def quick() -> None:
        clock.now += 1_000
        gate.set()

    several = Several([stream(Engine(quick), 2), stream(Engine(slow), 2)], samples=2)
    done = block(several, 0, calls=1, min_ms=0)
    several.close()
    assert list(done.times) == [6_000]


def test_paced_queries_start_at_multiples_of_the_period_whatever_a_sleep_adds(monkeypatch):
    clock, starts = Clock(monkeypatch, overshoot=70_000), []

    def work() -> None:
        starts.append(clock.now)
        clock.now += 3_000_000

    done = block(Single(stream(Engine(work), 1)), 0, calls=50, min_ms=0, period_ms=10)
    assert [s - 1_000 - i * 10_000_000 for i, s in enumerate(starts)] == [0] + [70_000] * 49
    assert (done.late, list(done.times)) == (0, [3_000_000] * 50)
    assert done.wall_ns == 49 * 10_000_000 + 3_070_000


def test_a_sleep_that_ends_early_is_slept_on(monkeypatch):
    clock = Clock(monkeypatch)
    starts = []

    def short(seconds: float) -> None:
        clock.now += max(1, round(seconds * 1e9) // 2)

    monkeypatch.setattr(queries.time, "sleep", short)
    block(Single(stream(Engine(lambda: starts.append(clock.now)), 1)), 0, calls=3, min_ms=0, period_ms=1)
    assert starts == [1_000, 1_001_000, 2_001_000]


def test_a_query_longer_than_the_period_makes_the_next_one_late_and_the_period_counts_from_there(monkeypatch):
    clock, starts = Clock(monkeypatch), []
    lasts = iter([4, 25, 4, 4])

    def work() -> None:
        starts.append((clock.now - 1_000) / 1e6)
        clock.now += next(lasts) * 1_000_000

    done = block(Single(stream(Engine(work), 1)), 0, calls=4, min_ms=0, period_ms=10)
    assert starts == [0, 10, 35, 45]
    assert done.late == 1


def test_the_samples_of_a_paced_query_are_read_before_the_pause(monkeypatch):
    clock, seen = Clock(monkeypatch), []
    engine = Engine()
    monkeypatch.setattr(queries.time, "sleep", lambda s: (seen.append(engine.read), clock.sleep(s)))
    block(Single(stream(engine, 9)), 0, calls=3, min_ms=0, period_ms=10)
    assert seen == [1, 2]
