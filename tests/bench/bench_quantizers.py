"""int8 and 4-bit weights against eight other quantizers, each at its best of a small grid: one job, side by side.

The same calibration samples for all; every file is judged on the same held-out images, with exact integer products and
with a default session. A peer's best setting is the one with fewest changed answers on these very images, which
flatters it; ours is the default. Environments are made on demand under the cache folder.

    EDGELATHE_BENCH_MODELS   titles of MODELS, by comma (default: all)
    EDGELATHE_BENCH_PEERS    names of PEERS, by comma (default: all)
    EDGELATHE_BENCH_BITS     of the weights: 8, 4 or 8,4 (default)
    EDGELATHE_BENCH_LIMIT    seconds that one quantization may take (default 900)
    EDGELATHE_BENCH_KEEP     a folder for what is made; a job that is there is not run again
    EDGELATHE_BENCH_LATENCY  seconds a model of the timing in turns, 0: none (default 2)
    EDGELATHE_PEERS          a folder of environments that exist already: nncf, quark, aimet, ...
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bench.peers import environments
from bench.peers.catalogue import OURS, PEERS, Peer
from bench.peers.children import Made, Source, make
from bench.peers.judge import EXACT, Verdict, answers, judge
from edgelathe.core.device import SessionOptions
from edgelathe.device.open import LOCAL, open_device
from edgelathe.measure.bench import bench_document
from edgelathe.measure.plan import Job
from edgelathe.model import io
from edgelathe.model.run import one_line

pytestmark = pytest.mark.bench


def chosen(variable: str, names: list[str]) -> list[str]:
    wanted = [w.strip() for w in os.environ.get(variable, "").split(",") if w.strip()]
    assert set(wanted) <= set(names), f"{variable}: choose from {', '.join(names)}"
    return wanted or names


@dataclass(frozen=True)
class Case:
    """One model of the data: its file, calibration samples, evaluation files, and whether it is slow to quantize."""

    title: str
    model: str
    calib: str
    count: int
    held: tuple[str, ...]
    layout: str  # "raw": 0..255 NHWC; else -1..1
    large: bool = False


CIFAR = ("cifar10_resnet8/eval.npz", "cifar10_resnet8/eval_jpeg.npz")
CASES = (
    Case("ResNet8", "cifar10_resnet8/model.onnx", "cifar10_resnet8/calib.npz", 128, CIFAR, "raw"),
    Case("MobileNetV2 CIFAR", "cifar10_mobilenetv2/model.onnx", "cifar10_resnet8/calib.npz", 128, CIFAR, "NCHW"),
    Case(
        "unbalanced", "cifar10_mobilenetv2/model_unbalanced.onnx", "cifar10_resnet8/calib.npz", 128, CIFAR, "NCHW"
    ),
    Case(
        "MobileNetV2 224", "imagenet_mobilenetv2/model.onnx", "imagenet_mobilenetv2/calib.npz", 64,
        ("imagenet_mobilenetv2/eval.npz",), "NHWC", large=True,
    ),
)  # fmt: skip
LIMIT_S = float(os.environ.get("EDGELATHE_BENCH_LIMIT", "900"))
BITS = chosen("EDGELATHE_BENCH_BITS", ["8", "4"])
LATENCY_S = float(os.environ.get("EDGELATHE_BENCH_LATENCY", "2"))


@dataclass(frozen=True)
class Row:
    """One file: who made it, with which setting, what it cost and what it answers."""

    peer: str
    setting: str
    bits: int
    made: Made
    bytes: int = 0
    exact: Verdict | None = None
    default: Verdict | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """Fewest changed answers first, then most right ones."""
        return (self.exact.changed, -self.exact.right) if self.exact else (float("inf"), 0)


@pytest.fixture(params=chosen("EDGELATHE_BENCH_MODELS", [c.title for c in CASES]))
def case(request):
    return next(c for c in CASES if c.title == request.param)


@pytest.fixture
def folder(tmp_path):
    kept = Path(os.environ.get("EDGELATHE_BENCH_KEEP") or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def prepared(x, layout):
    if layout == "raw":
        return x.astype(np.float32)
    x = (x.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if layout == "NCHW" else x


def rows(peer: Peer, case: Case, source: Source, x, y, float_answers, folder):
    """Every setting of a peer that suits the model's size; none, and loudly, where it cannot be installed."""
    try:
        python = environments.python(peer)
    except environments.CannotInstallError as e:
        print(f"  SKIPPED {peer.name}: {e}")
        return
    for bits, grid in ((8, peer.grid), (4, peer.four)):
        if str(bits) not in BITS:
            continue
        for setting, options in grid.items():
            if case.large and setting in peer.slow:
                continue
            made = make(python, peer, options, source, folder, LIMIT_S)
            row = Row(peer.name, setting, bits, made)
            if made.path:
                try:
                    both = [judge(made.path, x, y, float_answers, c) for c in (EXACT, dict(made.session or {}))]
                    row = Row(peer.name, setting, bits, made, made.bytes, *both)
                except Exception as e:  # onnxruntime's own kinds: it refuses the file
                    row = replace(row, made=replace(made, why=one_line(e)))
            print(shown(row), flush=True)
            yield row


def shown(row: Row) -> str:
    head = f"  {row.peer:18} {row.bits} {row.setting:28}"
    if row.exact is None or row.default is None:
        return f"{head} FAILED: {row.made.why}"
    return (
        f"{head} {row.exact.right:5} {row.exact.changed:5}   {row.default.right:5} {row.default.changed:5}"
        f" {row.bytes:10,} {row.made.seconds:8.1f} {row.made.memory / 1e6:8.0f}"
    )


def test_quantizers(case, data_dir, folder):
    model = data_dir / case.model
    x = np.concatenate([np.load(data_dir / h)["x"] for h in case.held])
    y = np.concatenate([np.load(data_dir / h)["y"] for h in case.held])
    x = prepared(x, case.layout)
    samples = folder / f"{case.title.replace(' ', '_')}.npy"
    np.save(samples, prepared(np.load(data_dir / case.calib)["x"][: case.count], case.layout))
    source = Source(case.title, model, io.load(model).signature.inputs[0].name, samples)
    float_answers = answers(model, x, {})
    print(f"\n{case.title}: float {(float_answers == y).sum()} of {len(y)} right, {model.stat().st_size:,} bytes")
    print(f"  {'':50} exact products  default session      bytes        s       MB")
    wanted = chosen("EDGELATHE_BENCH_PEERS", [p.name for p in PEERS])
    peers = [OURS, *(p for p in PEERS if p.name in wanted)]
    table = [r for p in peers for r in rows(p, case, source, x, y, float_answers, folder)]
    report = {"case": case.title, "float": int((float_answers == y).sum()), "n": len(y)}
    report["rows"] = [asdict(r) for r in table]
    ours = {r.setting: r for r in table if r.peer == OURS.name}
    best = [
        min((r for r in table if r.peer == p.name and r.bits == 8), key=lambda r: r.rank, default=None) for p in peers
    ]
    theirs = [r for r in best if r and r.exact and r.peer != OURS.name]
    if LATENCY_S:
        report["latency"] = in_turns([ours["for this machine"], ours["int8"], *theirs])
    (folder / f"{case.title.replace(' ', '_')}.json").write_text(json.dumps(report, default=str, indent=1))
    verdicts(case, ours, theirs, table)


def in_turns(files):
    """Median of each, one thread, and its ratio to the first, in randomized turns."""
    models = [(f"{r.peer}, {r.setting}", io.load(r.made.path)) for r in files]
    options = [SessionOptions("onnxruntime", "CPUExecutionProvider", config=dict(r.made.session or {})) for r in files]
    job = Job(min_ms=1000 * LATENCY_S, max_ms=3000 * LATENCY_S, cool_down_ms=0)
    with open_device(LOCAL) as device:
        document = bench_document(device, models, options, None, job)
    out = []
    for result in document["results"]:
        if result.get("error"):
            print(f"  {result['model']:50} {result['error']}")
            continue
        pair = next((c for c in document["comparisons"] if (c["a"], c["b"]) == (models[0][0], result["model"])), None)
        text = f"{pair['ratio']:.2f}x [{pair['low']:.2f}, {pair['high']:.2f}] {pair['verdict']}" if pair else ""
        print(f"  {result['model']:50} {result['latency_ms']['p50']:8.3f} ms {text}")
        out.append({"model": result["model"], "p50": result["latency_ms"]["p50"], "against ours": pair})
    return out


def verdicts(case, ours, theirs, table):
    """The goals, told as they came out; those that do not hang on the clock are asserted, noise allowed for."""
    mine, by = ours["int8"], {(r.peer, r.setting): r for r in table if r.exact and r.bits == 8}
    assert mine.exact is not None, mine.made.why
    channel, entropy = by.get(("ONNX Runtime", "channel")), by.get(("ONNX Runtime", "channel, entropy"))
    room = 0 if case.title == "ResNet8" else 2
    if theirs:
        least = min(theirs, key=lambda r: r.rank)
        fewest, bytes_ = least.exact.changed, min(r.bytes for r in theirs)
        print(f"  changed {mine.exact.changed}, best peer {fewest} ({least.peer}, {least.setting}), goal +{room}")
        print(f"  bytes {mine.bytes:,}, smallest best peer {bytes_:,}")
        # Two standard errors of the difference of two counts.
        assert mine.exact.changed <= fewest + room + 2 * np.sqrt(mine.exact.changed + fewest)
    if channel:
        print(f"  bytes {mine.bytes / channel.bytes:.2f}x of ONNX Runtime's, changed {mine.exact.changed}")
        assert mine.bytes <= (0.8 if case.title == "ResNet8" else 1.0) * channel.bytes
    for name, other in (("min-max", channel), ("entropy", entropy)):
        if other:
            s, m = mine.made.seconds / other.made.seconds, mine.made.memory / max(other.made.memory, 1)
            print(f"  against ONNX Runtime's {name}: {s:.2f}x its seconds, {m:.2f}x its peak memory")
    four = sorted((r for r in table if r.bits == 4 and r.exact), key=lambda r: r.rank)
    for r in four:
        print(f"  4-bit weights: {r.peer}, {r.setting}: {r.exact.right} right, {r.exact.changed} changed")
    assert not four or four[0].peer == OURS.name
    free = ours.get("without data")
    if free and free.exact:
        lost = 100 * (mine.exact.right - free.exact.right) / mine.exact.n
        print(f"  without data {lost:+.2f} points below calibration with data")


def test_memory_is_flat(data_dir, folder):
    """Peak of `int8` on 64 and on 1,024 samples, of which each process holds one."""
    case = CASES[1]
    samples = folder / "one.npy"
    np.save(samples, prepared(np.load(data_dir / case.calib)["x"][:1], case.layout))
    source = Source("one", data_dir / case.model, io.load(data_dir / case.model).signature.inputs[0].name, samples)
    python = environments.python(OURS)
    peak = {}
    for n in (64, 1024):
        made = make(python, OURS, {"recipe": "int8", "repeat": n}, source, folder, LIMIT_S)
        assert made.path, made.why
        peak[n] = made.memory
        print(f"  {n} samples: {made.memory / 1e6:.0f} MB, {made.seconds:.1f} s")
    assert peak[1024] - peak[64] < 16_000_000
