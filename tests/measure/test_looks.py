"""When a bench may end."""

import numpy as np

from edgelathe.core.budget import parse_all
from edgelathe.device.errors import ModelFailure
from edgelathe.measure.interleave import Series
from edgelathe.measure.looks import Looks
from edgelathe.measure.plan import Job


def series(rng, ms, blocks, spread=0.02):
    made = [np.rint(ms * 1e6 * (1 + spread * rng.normal(size=40))).astype(np.int64) for _ in range(blocks)]
    return Series(blocks=made, wall_ms=100.0 * blocks)


def test_it_looks_at_planned_rounds_only_and_ends_with_a_verdict():
    rng = np.random.default_rng(1)
    looks = Looks(Job(max_ms=10_000.0), [1, 1])
    noise = [series(rng, ms, 100, 2.0) for ms in (1.0, 1.0)]
    for s in noise:
        s.blocks = [np.abs(b) + 1 for b in s.blocks]

    def upto(n):
        return [Series(blocks=s.blocks[:n], wall_ms=100.0 * n) for s in noise]

    answers = {n: looks(upto(n)) for n in range(20, 101)}
    assert answers[100]
    assert looks.count > 3
    clear = Looks(Job(max_ms=10_000.0), [1, 1])
    assert clear([series(rng, 1.0, 20), series(rng, 2.0, 20)])
    assert clear.count > 1


def test_a_limit_keeps_it_going_while_it_is_open():
    rng = np.random.default_rng(2)
    far, near = (Looks(Job(max_ms=10_000.0, limits=parse_all([f"latency<={ms}ms"])), [1]) for ms in (2, 1.0))
    one = series(rng, 1.0, 20)
    assert far([one])
    assert not near([one])


def test_throughput_counts_the_samples_of_a_query():
    rng = np.random.default_rng(3)
    met = Looks(Job(max_ms=10_000.0, limits=parse_all(["throughput>=7000/s"])), [8])
    assert met([series(rng, 1.0, 20)])
    open_ = Looks(Job(max_ms=10_000.0, limits=parse_all(["throughput>=8000/s"])), [8])
    assert not open_([series(rng, 1.0, 20)])


def test_relative_limits_are_about_the_first_model():
    rng = np.random.default_rng(4)
    job = Job(max_ms=10_000.0, limits=parse_all(["latency<=0.5x"]))
    assert Looks(job, [1, 1])([series(rng, 1.0, 20), series(rng, 0.3, 20)])
    assert not Looks(job, [1, 1])([series(rng, 1.0, 20), series(rng, 0.5, 20)])


def test_what_failed_is_not_waited_for():
    rng = np.random.default_rng(5)
    dead = Series(error=ModelFailure("d", "died", "", "crash"))
    assert Looks(Job(max_ms=10_000.0), [1, 1])([series(rng, 1.0, 20), dead])
