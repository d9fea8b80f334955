"""The measuring loop against sessions with a made-up clock."""

import numpy as np

from edgelathe.device.session import Timed
from edgelathe.measure.interleave import COLD, BenchPlan, bench
from edgelathe.stats import latency


class Fake:
    """A session whose call i takes `ns(i)`; it writes down what it was asked, in a log shared by all."""

    def __init__(self, ns=lambda i: 1_000_000, log=None, name="a", throttled=False):
        self.ns, self.log, self.name, self.calls, self.throttled = (
            ns,
            log if log is not None else [],
            name,
            0,
            throttled,
        )

    def time(self, calls=1, min_ms=0.0, first=0):
        out = []
        while len(out) < calls or sum(out) < min_ms * 1e6:
            out.append(self.ns(self.calls))
            self.calls += 1
        self.log.append((self.name, first, len(out)))
        return Timed(np.array(out, np.int64), {"throttled": self.throttled})


PLAN = BenchPlan(min_ms=500, min_calls=50, block_ms=50, warm_ms=1000, warm_block_ms=10)


def test_enough_calls_and_enough_time():
    (quick,) = bench([Fake(lambda i: 10_000)], PLAN)
    assert quick.wall_ms >= 500
    (slow,) = bench([Fake(lambda i: 40_000_000)], PLAN)
    assert slow.calls >= 50
    assert slow.warnings == []


def test_a_slow_model_is_bounded_and_says_so():
    session = Fake(lambda i: 3_000_000_000)
    (series,) = bench([session], BenchPlan(max_ms=10_000))
    assert series.calls == 4
    assert series.warm_calls == 1
    assert series.warnings == ["4 calls in 10 s, 200 were wanted"]


def test_it_goes_on_until_the_median_has_an_interval():
    """Two modes that each last: 500 ms of them say little of the median, however many calls there were."""
    (series,) = bench([Fake(lambda i: 1_000_000 + 500_000 * (i // 190 % 2))], PLAN)
    assert 700 < series.wall_ms < PLAN.max_ms
    ends = latency.summarize(series.blocks).ci["p50"]
    assert ends.low == 1.0
    assert ends.high == 1.5


def test_warm_up_goes_on_until_steady_and_is_not_counted():
    (series,) = bench([Fake(lambda i: int(1e6 * (1 + 4 * 0.97**i)))], PLAN)
    assert series.warm_calls >= 100
    assert series.blocks[0].max() < 1_100_000
    assert series.warnings == []


def test_what_never_settles_is_told():
    (series,) = bench([Fake(lambda i: 1_000_000 + 10_000 * i)], PLAN)
    assert series.warnings == ["did not settle within 1 s of warm-up"]


def test_rounds_are_complete_and_their_order_random_by_the_seed():
    def order(seed):
        log = []
        series = bench([Fake(log=log, name=n) for n in "abc"], PLAN, seed=seed)
        assert len({len(s.blocks) for s in series}) == 1
        timed = [name for name, _, _ in log if name][-3 * len(series[0].blocks) :]
        rounds = ["".join(timed[i : i + 3]) for i in range(0, len(timed), 3)]
        assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
        return rounds

    assert len(set(order(1))) > 1
    assert order(1) == order(1) != order(2)


def test_samples_go_on_where_the_last_block_ended():
    log = []
    bench([Fake(log=log)], PLAN)
    firsts = [first for _, first, _ in log]
    assert firsts == sorted(firsts)


def test_the_first_call_of_a_block_runs_cold_and_is_left_out_of_long_blocks():
    log = []

    class Cold(Fake):
        def time(self, calls=1, min_ms=0.0, first=0):
            timed = super().time(calls, min_ms, first)
            timed.ns[0] *= 5
            return timed

    (series,) = bench([Cold(log=log)], PLAN)
    assert max(b.max() for b in series.blocks) == 1_000_000
    (slow,) = bench([Cold(lambda i: 50_000_000 // (COLD - 2))], PLAN)
    assert slow.blocks[0].max() > 50_000_000 // (COLD - 2)


def test_throttling_is_told():
    (series,) = bench([Fake(throttled=True)], PLAN)
    assert series.warnings == [f"the device throttled in {len(series.blocks)} of {len(series.blocks)} blocks"]
