"""Options of a bench that go together, and those that do not."""

import pytest

from edgelathe.core.errors import UserError
from edgelathe.measure import plan
from edgelathe.measure.plan import Job, scenario


def test_scenarios_after_loadgen():
    assert scenario().name == "single-stream"
    multi = scenario("multi-stream")
    assert (multi.streams, multi.percentile) == (8, 0.99)
    assert scenario("offline", streams=2, batch=4).to_json() == {"name": "offline", "streams": 2, "batch": 4}
    assert scenario(period_ms=33).name == "paced"
    assert scenario("single-stream", sustain_ms=600e3).to_json() == {"name": "sustained", "sustain_ms": 600e3}


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("", {"period_ms": 33, "sustain_ms": 1000}, "two scenarios"),
        ("offline", {"period_ms": 33}, "not offline"),
        ("ofline", {}, "did you mean 'offline'"),
        ("", {"streams": 4}, "--scenario multi-stream"),
        ("", {"period_ms": 33, "streams": 2}, "--streams"),
        ("multi-stream", {"streams": 4, "batch": 8}, "--batch"),
    ],
)
def test_scenarios_that_exclude_one_another(name, more, says):
    with pytest.raises(UserError, match=says):
        scenario(name, **more)


def test_enough_calls_for_the_percentile_asked_for():
    assert Job(percentile=0.5).calls == 200
    assert Job(percentile=0.99).calls >= 2 * 299


@pytest.mark.parametrize(("least", "most", "got"), [
    (None, None, (2000, 30_000)), (60_000, None, (60_000, 60_000)), (None, 1000, (1000, 1000)), (500, 700, (500, 700)),
])  # fmt: skip
def test_times_suit_one_another(least, most, got):
    assert plan.times(least, most) == got


def test_times_that_cross_are_refused():
    with pytest.raises(UserError, match="--max-time"):
        plan.times(5000, 1000)


@pytest.mark.parametrize(
    ("exprs", "job", "models", "says"),
    [
        (["accuracy>=90%"], Job(), 1, "edgelathe eval"),
        (["latency.paced<=4ms"], Job(), 1, "--period 33ms"),
        (["latency.sustained<=4ms"], Job(scenario(period_ms=33)), 1, "--sustain"),
        (["memory<=4MB"], Job(), 1, "--memory"),
        (["energy<=4mJ"], Job(), 1, "--energy"),
        (["load<=40ms"], Job(memory=True), 1, "--load"),
        (["latency<=4ms"], Job(scenario("offline")), 1, "throughput"),
        (["latency<=0.5x"], Job(), 1, "one only"),
        (["latency<=4"], Job(), 1, "unit"),
    ],
)
def test_limits_on_what_is_not_measured_say_how_it_would_be(exprs, job, models, says):
    with pytest.raises(UserError, match=says):
        plan.limits(exprs, job, models)


def test_limits_on_what_is_measured():
    job = Job(scenario(period_ms=33), memory=True)
    found = plan.limits(["latency.paced<=4ms", "memory<=4MB", "size<=0.5x"], job, 2)
    assert [limit.metric for limit in found] == ["latency.paced", "memory", "size"]


@pytest.mark.parametrize(
    "job", [Job(processes=2), Job(scenario(period_ms=33), processes=5), Job(scenario(sustain_ms=1e4), processes=3)]
)
def test_processes_that_make_no_sense(job):
    with pytest.raises(UserError, match="--processes"):
        plan.check(job)


def test_percentiles_by_name():
    assert plan.quantile_of("99") == plan.quantile_of("p99") == 0.99
    with pytest.raises(UserError, match="choose from 50, 90, 95, 99"):
        plan.quantile_of("42")
