import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelathe.core.budget import METRICS, UNITS, Limit, excess, judge, parse, parse_all, suit
from edgelathe.core.claim import Claim
from edgelathe.core.errors import UserError
from edgelathe.core.interval import OPS


@pytest.mark.parametrize(
    ("text", "metric", "op", "value", "relative"),
    [
        ("latency<=5ms", "latency.p50", "<=", 5, False),
        ("latency.p95 < 20 ms", "latency.p95", "<", 20, False),
        ("  latency.mean\t<=  250 us ", "latency.mean", "<=", 0.25, False),
        ("latency<=250µs", "latency.p50", "<=", 0.25, False),
        ("load<=1.5s", "load", "<=", 1500, False),
        ("throughput>=30/s", "throughput", ">=", 30, False),
        ("throughput>30", "throughput", ">", 30, False),
        ("accuracy>=90%", "accuracy", ">=", 0.9, False),
        ("accuracy >= .9", "accuracy", ">=", 0.9, False),
        ("accuracy.drop<=1.5%", "accuracy.drop", "<=", 0.015, False),
        ("accuracy.drop<=0.02", "accuracy.drop", "<=", 0.02, False),
        ("accuracy.drop<=0%", "accuracy.drop", "<=", 0, False),
        ("size<=0.5x", "size", "<=", 0.5, True),
        ("size<=0.5 ×", "size", "<=", 0.5, True),
        ("size≤100kB", "size", "<=", 100_000, False),
        ("size<=2MiB", "size", "<=", 2 * 1024**2, False),
        ("size<=1e6", "size", "<=", 1_000_000, False),
        ("size<=1.5e-3GB", "size", "<=", 1_500_000, False),
        ("memory<=1GiB", "memory", "<=", 1024**3, False),
        ("energy<=300uJ", "energy", "<=", 0.3, False),
        ("energy<=0.2 J", "energy", "<=", 200, False),
        ("latency.sustained<=1.2x", "latency.sustained", "<=", 1.2, True),
    ],
)
def test_parse(text, metric, op, value, relative):
    limit = parse(text)
    assert (limit.metric, limit.op, limit.relative, limit.expr) == (metric, op, relative, text.strip())
    assert limit.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise<=0.5x", ["no metric 'sise'", "did you mean 'size'?"]),
        ("latency.p97<=5ms", ["no metric 'latency.p97'", "'latency.p9"]),
        ("speed<=1ms", ["no metric 'speed'", "latency"]),
        ("size<=5ms", ["unit 'ms' does not fit size", "kB", "MiB", "x (times"]),
        ("latency<=5MB", ["unit 'MB' does not fit latency.p50", "us, ms, s"]),
        ("accuracy>=9ms", ["unit 'ms'", "%"]),
        ("latency<=5", ["unit is missing", "ms"]),
        ("energy<=5", ["unit is missing", "mJ"]),
        ("size<=100KB", ["'KB' can mean two things", "KiB"]),
        ("latency<=5MS", ["unit 'MS'"]),
        ("latency<=-3ms", ["-3", "negative"]),
        ("size<=0", ["zero", "above 0"]),
        ("size<=0x", ["zero"]),
        ("accuracy.drop<=-1%", ["-1", "negative"]),
        ("latency<=nanms", ["nan", "finite"]),
        ("latency<=inf ms", ["inf", "finite"]),
        ("size==3", ["no operator '=='", "<= >= < >"]),
        ("size=<3", ["no operator '=<'"]),
        ("accuracy.drop<=0.5x", ["accuracy.drop", "%"]),
        ("size<=1,5kB", ["METRIC OP VALUE"]),
        ("size", ["METRIC OP VALUE"]),
        ("", ["METRIC OP VALUE"]),
        ("size<=", ["METRIC OP VALUE"]),
        ("<=5ms", ["METRIC OP VALUE"]),
        ("size<=1.2.3kB", ["METRIC OP VALUE"]),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(UserError) as caught:
        parse(text)
    line = str(caught.value)
    assert line.startswith(f"budget '{text}': "), line
    assert "\n" not in line
    for word in words:
        assert word in line, line


@given(
    st.sampled_from(sorted(METRICS)),
    st.sampled_from(sorted(OPS)),
    st.floats(1e-6, 1e12, allow_nan=False),
    st.data(),
    st.sampled_from(["", " ", "\t "]),
)
def test_every_metric_takes_every_unit_of_its_family(metric, op, number, data, space):
    units = UNITS[METRICS[metric].family]
    unit = data.draw(st.sampled_from(sorted(units)))
    limit = parse(space.join(["", metric, op, repr(number), unit, ""]))
    assert (limit.metric, limit.op) == (metric, op)
    assert limit.value == number * units[unit]


def test_a_budget_may_say_more_than_one_thing_of_a_metric():
    assert len(parse_all(["size<=0.5x", "size<=0.01x", "size<=100kB", "accuracy>=0.8", "accuracy.drop<=1%"])) == 5
    assert len(parse_all(["latency>=1ms", "latency<=1ms"])) == 2
    assert parse_all([]) == ()


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("size<=1kB", "size<=1000B", "says the same"),
        ("latency<=5ms", "latency.p50<=5ms", "says the same"),
        ("size<=1", "size>=2", "cannot hold together"),
        ("size>=2x", "size<1x", "cannot hold together"),
        ("size<2", "size>=2", "cannot hold together"),
    ],
)
def test_duplicate_and_contradicting_limits_are_refused(first, second, what):
    with pytest.raises(UserError, match=what) as caught:
        parse_all([first, second])
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_limits_on_accuracy_suit_the_metric():
    suit(parse_all(["accuracy>=0.9", "accuracy.drop<=2%", "accuracy>=0.98x", "size<=2"]), "top1", "share", "higher")
    suit(parse_all(["accuracy<=12", "accuracy.drop<=3"]), "mae", "error", "lower")
    suit(parse_all(["accuracy>=30"]), "mine:psnr", "score", "higher")
    for text, kind, better, word in (
        ("accuracy>=90", "share", "higher", "90%"),
        ("accuracy.drop<=2", "share", "higher", "2%"),
        ("accuracy>=0.1", "error", "lower", "lower is better"),
        ("accuracy<=0.9", "share", "higher", "higher is better"),
    ):
        with pytest.raises(UserError, match=word):
            suit(parse_all([text]), "m", kind, better)


UPPER, LOWER = parse("latency<=10ms"), parse("accuracy>=0.9")


@pytest.mark.parametrize(
    ("limit", "claim", "verdict", "bound"),
    [
        (UPPER, Claim(9, 8, 10), "met", 10),
        (UPPER, Claim(9, 8, 10.1), "undecided", 10.1),
        (UPPER, Claim(11, 10, 12), "undecided", 12),
        (UPPER, Claim(11, 10.1, 12), "missed", 12),
        (UPPER, Claim(9, -math.inf, math.inf), "undecided", math.inf),
        (parse("latency<10ms"), Claim(9, 8, 10), "undecided", 10),
        (parse("latency<10ms"), Claim(10, 10, 10), "missed", 10),
        (LOWER, Claim(0.95, 0.9, 0.97), "met", 0.9),
        (LOWER, Claim(0.95, 0.89, 0.97), "undecided", 0.89),
        (LOWER, Claim(0.85, 0.8, 0.89), "missed", 0.8),
        (parse("size<=1kB"), Claim.of(1000), "met", 1000),
        (parse("size<=1kB"), Claim.of(1001), "missed", 1001),
    ],
)
def test_the_unfavourable_bound_decides(limit, claim, verdict, bound):
    line = judge(limit, claim)
    assert (line.verdict, line.bound, line.value, line.expr) == (verdict, bound, claim.value, limit.expr)


@given(
    st.sampled_from(["latency<=10ms", "latency<10ms", "latency>=10ms", "latency>10ms", "latency<=1x", "latency>1x"]),
    st.floats(0.1, 20),
    st.floats(0, 5),
    st.floats(0, 5),
    st.sampled_from([None, Claim(1, 0.9, 1.2), Claim(0.5, 0, math.inf)]),
    st.booleans(),
)
def test_met_iff_the_bound_in_the_line_keeps_the_limit(text, value, down, up, ratio, lenient):
    limit = parse(text)
    line = judge(limit, Claim(value, value - down, value + up), 10.0, ratio, lenient=lenient)
    assert OPS[limit.op](line.bound, line.limit) == (line.verdict == "met")
    assert line.bound >= line.value if limit.upper else line.bound <= line.value
    if math.isfinite(line.bound):
        assert (excess(line) == 0) == (line.verdict == "met" or line.bound == line.limit)


def test_a_relative_limit_is_resolved_by_the_baseline_and_judged_by_the_interleaved_ratio():
    limit, alone = parse("latency<=0.5x"), Claim(4.9, 4.0, 6.0)
    assert judge(limit, alone, 10.0).verdict == "undecided"
    line = judge(limit, alone, 10.0, Claim(0.48, 0.46, 0.495))
    assert (line.limit, line.value, line.bound, line.baseline, line.verdict) == (5, 4.9, 4.95, 10, "met")
    assert judge(limit, Claim(6, 5.9, 6.1), 10.0, Claim(0.6, 0.55, 0.65)).verdict == "missed"
    # a ratio of another moment never puts the bound on the wrong side of the value
    assert judge(limit, Claim(4.9, 4.8, 4.99), 10.0, Claim(0.4, 0.39, 0.41)).bound == 4.9


def test_a_size_is_never_touched_by_a_ratio():
    line = judge(parse("size<=0.5x"), Claim.of(499), 1000, Claim(0.5, 0.4, 0.6))
    assert (line.value, line.bound, line.limit, line.verdict) == (499, 499, 500, "met")


def test_what_cannot_be_judged_is_undecided_and_says_why():
    assert judge(UPPER, None).note == "not measured"
    assert judge(parse("latency<=0.5x"), Claim(1, 1, 1)).note == "no baseline to compare with"
    held = judge(UPPER, Claim(1, 0.9, 1.1), hold="the device is emulated")
    assert (held.verdict, held.value, held.bound, held.note) == ("undecided", 1, None, "the device is emulated")
    assert excess(held) == 0
    assert excess(judge(UPPER, Claim(12, 0.9, 13), hold="the device is emulated")) == pytest.approx(0.2)
    assert excess(judge(UPPER, None)) == 0


def test_lenient_judges_the_point_and_says_so():
    line = judge(UPPER, Claim(9.9, 5, 15), lenient=True)
    assert (line.verdict, line.bound, line.note) == ("met", 9.9, "judged by the point estimate")
    assert judge(UPPER, Claim(10.1, 5, 15), lenient=True).verdict == "missed"
    assert judge(parse("size<=1kB"), Claim.of(1), lenient=True).note == ""


def test_undecided_says_what_would_settle_it():
    assert "4.0 times the samples (300 more)" in judge(UPPER, Claim(9, 7, 11, n=100)).note
    assert "2.2 times" in judge(UPPER, Claim(12, 9, 13)).note  # the lower bound is 3 away and must come within 2
    assert "too close" in judge(UPPER, Claim(10, 9, 11)).note
    assert "too few" in judge(UPPER, Claim(9, 8, math.inf)).note
    assert judge(UPPER, Claim(9, 8, 10)).note == ""


def test_excess_ranks_by_the_bound_relative_to_the_limit():
    assert excess(judge(UPPER, Claim(12, 11, 13))) == pytest.approx(0.3)
    assert excess(judge(LOWER, Claim(0.8, 0.72, 0.85))) == pytest.approx(0.2)
    assert excess(judge(UPPER, Claim(9, 8, 10))) == 0
    assert excess(judge(UPPER, Claim(9, 8, math.inf))) == 0  # the value stands in for the bound
    assert excess(judge(UPPER, Claim(11, 8, math.inf))) == pytest.approx(0.1)
    assert excess(judge(parse("accuracy.drop<=0%"), Claim(0.01, 0, 0.02))) == pytest.approx(2)


def test_a_relative_limit_without_a_baseline_cannot_be_resolved():
    with pytest.raises(ValueError, match="baseline"):
        Limit("size<=0.5x", "size", "<=", 0.5, relative=True).resolve(None)
