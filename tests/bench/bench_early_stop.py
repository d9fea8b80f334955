"""How many samples the decisions on accuracy take over the candidates of a `fit`, against evaluating all of them.

The candidates are the recipes of the profile and some that lose more. Each is asked about in many random orders of the
samples; an early answer counts as wrong where all samples say the opposite.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgelathe.core import profile
from edgelathe.stats import stopping
from support import cli

pytestmark = pytest.mark.bench

ORDERS = 200
FURTHER = ("prune(channels=0.5)", "codebook(entries=4)", "int8(weights=4)", "int8(weights=3)")


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]).argmax(1)


def test_samples_that_the_candidates_of_a_fit_take(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir / "cifar10_resnet8"
    held = [np.load(folder / f"{name}.npz") for name in ("eval", "eval_jpeg")]
    x = np.concatenate([h["x"] for h in held]).astype(np.float32)
    y = np.concatenate([h["y"] for h in held])
    base = answers(folder / "model.onnx", x) == y
    rng, used, wrong = np.random.default_rng(0), [], []
    with capsys.disabled():
        print(
            f"\n{len(y):,} samples, drop at most 0.5%, 1%, 2%: share of samples used, share of answers that are wrong"
        )
        for recipe in (*profile.choose("x86-cpu", None).recipes["onnx"], *FURTHER):
            out = tmp_path / "out.onnx"
            cli.run("compress", folder / "model.onnx", "--recipe", recipe, "--data", folder / "calib.npz", "-o", out)
            ok = answers(out, x) == y
            rows = [_decided(rng, base & ~ok, ~base & ok, limit) for limit in (0.005, 0.01, 0.02)]
            used += [row[0] for row in rows]
            wrong += [row[1] for row in rows]
            drop = 100 * (base.mean() - ok.mean())
            print(f"  {recipe:26} drop {drop:5.1f}%  {'  '.join(f'{n:.2f} {w:.3f}' for n, w in rows)}", flush=True)
        print(f"  on average {np.mean(used):.2f} of the samples, {np.mean(wrong):.4f} wrong, at worst {max(wrong):.3f}")
    assert max(wrong) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / ORDERS)
    assert np.mean(used) <= 0.5


def _decided(rng: np.random.Generator, lost: np.ndarray, won: np.ndarray, limit: float) -> tuple[float, float]:
    total = len(lost)
    whole = stopping.decide(int(lost.sum()), int(won.sum()), total, total, limit, prove=True)
    counts, wrong = [], 0
    for _ in range(ORDERS):
        order = rng.permutation(total)
        k, m = np.cumsum(lost[order]), np.cumsum(won[order])
        said, n = "continue", total
        for n in stopping.looks(total):
            said = stopping.decide(int(k[n - 1]), int(m[n - 1]), n, total, limit, prove=True)
            if said != "continue":
                break
        counts.append(n / total)
        wrong += said not in ("continue", whole)
    return float(np.mean(counts)), wrong / ORDERS
