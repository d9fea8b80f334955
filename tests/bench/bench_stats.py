"""How often intervals hold, verdicts err and evaluations stop, by simulation: what docs/statistics.md says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from edgelathe.stats import latency, ratio, sequential, stopping
from edgelathe.stats.drift import drift
from edgelathe.stats.latency import QUANTILES, bounded
from support.simulated import KINDS, answers, autoregressive, ended, latencies, true_quantile, turns

pytestmark = pytest.mark.bench

SERIES = 2000
SHAPES = ((10, 20), (10, 100), (20, 10), (20, 50), (40, 25), (100, 10))
"""Blocks and samples a block, in turns."""

RUNS = 1000


def test_coverage_of_percentiles(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 2,000 series of each kind; the width is that of the middle interval over that of an oracle.

    The oracle knows how the estimate is spread: from its 2.5% to its 97.5% quantile over the series of one shape.
    """
    covered = {}
    with capsys.disabled():
        head = f"p50 and p95, {SERIES:,} series"
        print(f"\n{head:24} {'covers':>14} {'no bound':>14} {'width':>14}")
        for kind in KINDS:
            rows = [_coverage(kind, name) for name in ("p50", "p95")]
            covered[kind] = [row[0] for row in rows]
            cells = [f"{a:.3f} {b:.3f}".rjust(14) for a, b in zip(*rows, strict=True)]
            print(f"{kind:24} {' '.join(cells)}")
    assert all(min(values) >= 0.94 for kind, values in covered.items() if kind != "two modes, sticky")


def _coverage(kind: str, name: str) -> tuple[float, float, float]:
    rng, truth = np.random.default_rng(7), true_quantile(kind, QUANTILES[name])
    hits = unbounded = 0
    found: dict[tuple[int, int], list[tuple[float, float]]] = {shape: [] for shape in SHAPES}
    for i in range(SERIES):
        shape = SHAPES[i % len(SHAPES)]
        series = latencies(rng, kind, *shape)
        value, ends = bounded(list(series), np.sort(series.reshape(-1)), name, 0.025)
        hits += truth in ends
        unbounded += math.isinf(ends.high - ends.low)
        found[shape].append((value, ends.high - ends.low))
    widths = []
    for pairs in found.values():
        low, high = np.quantile([value for value, _ in pairs], [0.025, 0.975])
        widths.append(float(np.median([width for _, width in pairs])) / float(high - low))
    return hits / SERIES, unbounded / SERIES, float(np.median(widths))


@pytest.mark.parametrize("noise", ["quiet", "busy", "placed"])
def test_verdicts_after_an_adaptive_stop(noise: str, capsys: pytest.CaptureFixture[str]) -> None:
    for true, most in ((1.0, 150), (1.05, 150), (1.02, 300)):
        rng, found, inside, pairs = np.random.default_rng(1), Counter[str](), 0, []
        for _ in range(RUNS):
            c, n = _stopped(*turns(rng, most, true, noise))
            found[c.verdict] += 1
            inside += c.low <= true <= c.high
            pairs.append(n)
        shares = ", ".join(f"{verdict} {count / RUNS:.3f}" for verdict, count in sorted(found.items()))
        with capsys.disabled():
            print(f"\n{noise:7} ratio {true:.2f}, at most {most} pairs: {shares}; interval holds {inside / RUNS:.3f}; "
                  f"{np.mean(pairs):.0f} pairs on average", end="")  # fmt: skip
        if true == 1:
            assert found["faster"] + found["slower"] <= 0.075 * RUNS
        else:
            assert found["slower"] >= 0.9 * RUNS


def _stopped(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[ratio.Comparison, int]:
    at = sequential.looks(len(a))
    for k, n in enumerate(at, 1):
        if sequential.settled(a[:n], b[:n], k, len(at)):
            return ratio.compare(a[:n], b[:n], looks=len(at)), n
    raise AssertionError("it never ended")


def test_limits_after_an_adaptive_stop(capsys: pytest.CaptureFixture[str]) -> None:
    """The hardest limit is the truth itself: each bound may fail in 5% of the runs."""
    at, runs = sequential.looks(100), RUNS // 2
    for kind in ("independent", "correlated 0.5", "shared by block"):
        rng, wrong, limit = np.random.default_rng(2), Counter[str](), true_quantile(kind, 0.5)
        for _ in range(runs):
            blocks = list(1e6 * latencies(rng, kind, 100, 20))
            for k, n in enumerate(at, 1):
                if sequential.limit_settled(blocks[:n], "p50", limit, k, len(at)):
                    c = latency.claim(blocks[:n], "p50", looks=len(at))
                    wrong.update(met=c.upper < limit, missed=c.lower > limit)
                    break
        with capsys.disabled():
            print(
                f"\nlimit at the truth, {kind}: met {wrong['met'] / runs:.3f}, missed {wrong['missed'] / runs:.3f}",
                end="",
            )
        assert max(wrong.values()) <= (0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)) * runs


def candidates() -> Iterator[tuple[int, float, float]]:
    """(samples, limit, drop) of what fits meet: from no change to a broken model."""
    for total in (500, 2000, 10_000):
        for limit in (0.005, 0.01, 0.02):
            for drop in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.4):
                yield total, limit, drop


@pytest.mark.parametrize("prove", [True, False], ids=["met or not", "within, broken or between"])
def test_samples_that_accuracy_decisions_take(prove: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A part of the answers changes sides without net loss: 1% and half of the drop, split evenly."""
    rng, runs, used, wrong = np.random.default_rng(3), 60, {}, {}
    for total, limit, drop in candidates():
        won = round(total * (0.01 + 0.5 * drop) / 2)
        lost = won + round(drop * total)
        whole = stopping.decide(lost, won, total, total, limit, prove=prove)
        ends = [ended(answers(rng, lost, won, total), total, limit, prove) for _ in range(runs)]
        used[total, limit, drop] = float(np.mean([n / total for _, n in ends]))
        wrong[total, limit, drop] = sum(said not in ("continue", whole) for said, _ in ends) / runs
    with capsys.disabled():
        print("\nsamples used" + ", met or not" * prove)
        for total in (500, 2000, 10_000):
            shares = [share for key, share in used.items() if key[0] == total]
            print(f"  of {total:6,}: {np.mean(shares):.2f} on average")
        print(f"  over all: {np.mean(list(used.values())):.3f}; against the whole evaluation "
              f"{np.mean(list(wrong.values())):.4f} wrong, at worst {max(wrong.values()):.3f}")  # fmt: skip
    assert max(wrong.values()) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert not prove or np.mean(list(used.values())) <= 0.5


def test_drift_of_what_only_wanders(capsys: pytest.CaptureFixture[str]) -> None:
    for rho in (0.0, 0.5, 0.8, 0.9):
        for n in (20, 50, 150):
            rng = np.random.default_rng(4)
            said = np.mean([_drifts(0.03 * autoregressive(rng, n, rho)) for _ in range(RUNS)])
            rise = 0.06 * np.arange(n) / n
            grew = np.mean([_drifts(0.01 * autoregressive(rng, n, rho) + rise) for _ in range(RUNS // 5)])
            with capsys.disabled():
                print(f"\nrho {rho}, {n} blocks: a drift seen in {said:.3f} without one, {grew:.2f} of 6%", end="")
            assert said <= 0.1


def _drifts(logs: np.ndarray) -> bool:
    return drift([np.array([v]) for v in 1e6 * np.exp(logs)]).significant
