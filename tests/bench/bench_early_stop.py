"""How many samples the decisions on accuracy take over the candidates of a `fit`, against evaluating all of them.

The candidates are the recipes of the profile and some that lose more. Each is asked about in many random orders of the
samples; an early answer counts as wrong where all samples say the opposite.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bench.peers.judge import EXACT, answers
from edgelathe.core import profile
from edgelathe.stats import stopping
from support import cli, simulated

pytestmark = pytest.mark.bench

ORDERS = 200
FURTHER = ("prune(channels=0.5)", "codebook(entries=4)", "int8(weights=4)", "int8(weights=3)")


def test_samples_that_the_candidates_of_a_fit_take(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir / "cifar10_resnet8"
    held = [np.load(folder / f"{name}.npz") for name in ("eval", "eval_jpeg")]
    x = np.concatenate([h["x"] for h in held]).astype(np.float32)
    y = np.concatenate([h["y"] for h in held])
    base = answers(folder / "model.onnx", x, {}) == y
    rng, used, wrong = np.random.default_rng(0), [], []
    with capsys.disabled():
        print(
            f"\n{len(y):,} samples, drop at most 0.5%, 1%, 2%: share of samples used, share of answers that are wrong"
        )
        for recipe in (*profile.choose("x86-cpu", None).recipes["onnx"], *FURTHER):
            out = tmp_path / "out.onnx"
            cli.run("compress", folder / "model.onnx", "--recipe", recipe, "--data", folder / "calib.npz", "-o", out)
            ok = answers(out, x, EXACT) == y
            lost, won = int((base & ~ok).sum()), int((~base & ok).sum())
            rows = [_decided(rng, lost, won, len(y), limit) for limit in (0.005, 0.01, 0.02)]
            used += [row[0] for row in rows]
            wrong += [row[1] for row in rows]
            drop = 100 * (base.mean() - ok.mean())
            print(f"  {recipe:26} drop {drop:5.1f}%  {'  '.join(f'{n:.2f} {w:.3f}' for n, w in rows)}", flush=True)
        print(f"  on average {np.mean(used):.2f} of the samples, {np.mean(wrong):.4f} wrong, at worst {max(wrong):.3f}")
    assert max(wrong) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / ORDERS)
    assert np.mean(used) <= 0.5


def _decided(rng: np.random.Generator, lost: int, won: int, total: int, limit: float) -> tuple[float, float]:
    """The share of the samples used, and of the orders in which the answer is not that of all samples."""
    whole = stopping.decide(lost, won, total, total, limit, prove=True)
    ends = [simulated.ended(simulated.answers(rng, lost, won, total), total, limit, prove=True) for _ in range(ORDERS)]
    wrong = sum(said not in ("continue", whole) for said, _ in ends)
    return float(np.mean([n for _, n in ends])) / total, wrong / ORDERS
