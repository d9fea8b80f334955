"""A graph settled layer by layer: what each layer's new weights are to be fitted to.

A layer is fitted on what it reads, the outputs of the layers before it as they are settled, to what it made in the
float model, so that errors do not add up (Nagel et al., Up or Down?, 2020, section 3.4); where its output is summed
with an earlier value, it makes up for the error of that one too; where a clamp follows, what that hides costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.forward.frontier import Frontier
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.weights import qweights, repair, second_order
from edgelathe.compress.weights.rows import Rows, Stack, products
from edgelathe.core import dataset, memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weights.second_order import Array
    from edgelathe.core.dataset import Dataset

_CHUNK = 16  # samples that run at once where the model's batch is open
_AT_ONCE = 20_000_000  # bytes of the largest value of the samples that run at once
_SAMPLES = 256  # that the fits see at most
_FEWEST = 8
_LIVE = 400_000_000  # bytes of values between layers that are kept, of all samples
_ENTRIES = 6_000_000  # numbers that one layer's problem is gathered from
_NOISE = 1e-6  # of the mean square of what a layer reads
DAMP, DAMP_WIDE = 0.1, 0.1  # of the mean diagonal; the second by inputs per sample


@dataclass(frozen=True)
class Pair:
    """One layer: its node in the graph that is settled layer by layer, and in the float one."""

    node: ir.Node
    twin: ir.Node


class Moments:
    """Sums over rows of x [groups, f] and y [groups, o]."""

    def __init__(self, groups: int, features: int, outputs: int) -> None:
        self.xx = np.zeros((groups, features, features))
        self.xy = np.zeros((groups, features, outputs))
        self.x, self.y, self.n = np.zeros((groups, features)), np.zeros((groups, outputs)), 0

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Take in rows x [r, groups, f] and y [r, groups, o]."""
        a, b = (np.moveaxis(v, 1, 0) for v in (x, y))
        self.xx += products(a, a)
        self.xy += products(a, b)
        self.x += a.sum(axis=1, dtype=np.float64)
        self.y += b.sum(axis=1, dtype=np.float64)
        self.n += len(x)

    def means(self) -> tuple[Array, Array]:
        """Of x [g, f] and y [g, o]."""
        return self.x / max(self.n, 1), self.y / max(self.n, 1)

    def second(self, *, centred: bool) -> tuple[Array, Array]:
        """E[x x'] [g, f, f] and E[y x'] [g, o, f]; covariances where `centred`."""
        h, c = self.xx / max(self.n, 1), np.swapaxes(self.xy, 1, 2) / max(self.n, 1)
        if centred:
            x, y = self.means()
            h, c = h - x[:, :, None] * x[:, None, :], c - y[:, :, None] * x[:, None, :]
        return h, c


@dataclass(frozen=True, eq=False)
class Problem:
    """What one layer's new weights are fitted to.

    Attributes:
        weights: of the float model [g, o, f].
        wanted: real weights [g, o, f] that lose least, given what the layer reads now.
        hessian: moments of what it reads [g, f, f], damped: other weights lose e H e' more, e their distance to these.
        moments: sums over the rows.
        rows: places of the samples.
        has_bias: whether the node has a bias, which then takes the mean error.
    """

    weights: Array
    wanted: Array
    hessian: Array
    moments: Moments
    rows: Rows
    has_bias: bool

    @classmethod
    def of(cls, weights: Array, rows: Rows, samples: int, *, has_bias: bool) -> Problem:
        """Of float weights [g, o, f] and rows of so many samples."""
        moments = Moments(len(rows.x), rows.x.shape[2], rows.y.shape[2])
        moments.add(np.moveaxis(rows.x, 0, 1), np.moveaxis(rows.y, 0, 1))
        hessian, cross = moments.second(centred=has_bias)
        # Of inputs that never vary, what is left beside their mean is rounding of sums in float32: not even positive.
        noise = _NOISE * np.trace(moments.xx, axis1=1, axis2=2) / max(moments.n * weights.shape[2], 1)
        hessian, damp = second_order.damped(hessian, DAMP + DAMP_WIDE * weights.shape[2] / samples, noise)
        wanted = second_order.pulled(weights, hessian, cross, damp)
        return cls(weights, wanted, hessian, moments, rows, has_bias)

    def loss(self, real: Array) -> float:
        """Size of the output's error under real weights [g, o, f], relative to the output's."""
        error, whole = (float(np.vdot(e @ self.hessian, e)) for e in (real - self.wanted, self.weights))
        return float(np.sqrt(max(error, 0.0) / whole)) if whole > 0 else 0.0

    def bias(self, real: Array, *, unhidden: bool = False) -> NDArray[np.float32] | None:
        """The bias [outputs] that goes with real weights [g, o, f]; `unhidden`: what a clamp hides does not count."""
        if not self.has_bias:
            return None
        x, y = self.moments.means()
        made = np.einsum("gof,gf->go", real, x)
        if unhidden and self.rows.is_clamped:
            y = self.rows.unhidden_sum(real, y - made) / max(self.moments.n, 1)
        return np.asarray((y - made).reshape(-1), np.float32)


def problems(
    model: ir.Model, before: ir.Model, pairs: Sequence[Pair], data: Dataset, seed: int
) -> Iterator[tuple[Pair, Problem]]:
    """The problem of layer after layer, for any kind of grid; the caller settles each before it takes the next."""
    chunks = chunks_of(before, data)
    counts = [len(next(iter(c.values()))) for c in chunks]
    ours, theirs = (Frontier(m, chunks, data.name, narrow=True) for m in (model, before))
    undecided = {pair.twin for pair in pairs}
    for index, pair in enumerate(pairs):
        memory.give_back()
        undecided.discard(pair.twin)
        rows = rows_of(pair, sides_of(pair, undecided), ours, theirs, counts, (seed, index))
        has_bias = len(pair.twin.inputs) > 2 and g.array(pair.twin.inputs[2]) is not None
        problem = Problem.of(grouped(pair.twin), rows, sum(counts), has_bias=has_bias)
        del rows
        yield pair, problem
        del problem  # gone before the next layer's rows are there, if the caller holds it no more


def sides_of(job: Pair, undecided: set[ir.Node]) -> tuple[ir.Value, ir.Value] | None:
    """The other term of the sum that the layer's output goes into, in the float and in the integer graph."""
    total = g.only_consumer(job.twin.outputs[0])
    if total is None or total.op_type != "Add" or total.domain:
        return None
    place = next(i for i, v in enumerate(total.inputs) if v is not job.twin.outputs[0])
    other = total.inputs[place]
    mine = _sum_of(job.node)
    if (
        other is None
        or mine is None
        or g.array(other) is not None
        or other.shape is None
        or job.twin.outputs[0].shape is None
    ):
        return None
    if other.shape != job.twin.outputs[0].shape or _hangs_on(other, undecided):
        return None
    same = mine.inputs[place]
    return None if same is None else (other, same)


def clamp_behind(value: ir.Value) -> tuple[float, float]:
    """What the value is clamped to by all that reads it; infinite ends where it is not."""
    node = g.only_consumer(value)
    if node is not None and node.op_type == "Relu":
        return 0.0, np.inf
    if node is None or node.op_type != "Clip":
        return -np.inf, np.inf
    ends = [g.scalar(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2)]
    return -np.inf if ends[0] is None else ends[0], np.inf if ends[1] is None else ends[1]


def _sum_of(node: ir.Node) -> ir.Node | None:
    """The Add that reads the node's output, stored in integers or not."""
    at: ir.Node | None = node
    while at is not None:
        at = g.only_consumer(at.outputs[0])
        if at is not None and at.op_type == "Add":
            return at
        if at is None or at.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return None
    return None


def _hangs_on(value: ir.Value, nodes: set[ir.Node]) -> bool:
    todo, seen = [value], set()
    while todo:
        node = todo.pop().producer()
        if node is None or node in seen:
            continue
        if node in nodes:
            return True
        seen.add(node)
        todo += [v for v in node.inputs if v is not None]
    return False


def rows_of(
    job: Pair,
    sides: tuple[ir.Value, ir.Value] | None,
    ours: Frontier,
    theirs: Frontier,
    counts: Sequence[int],
    seed: tuple[int, int],
) -> Rows:
    """The places of the layer's output that are looked at; `sides` of `sides_of`, `counts` of samples, by chunk."""
    x, y = job.node.inputs[0], job.twin.outputs[0]
    assert x is not None
    groups, outputs, features = grouped(job.twin).shape
    stacks: list[Stack] = []
    picks: NDArray[np.int64] | None = None
    start = 0
    mine = ours.advance([x, *([sides[1]] if sides else [])])
    wanted = theirs.advance([y, *([sides[0]] if sides else [])])
    for a, b, count in zip(mine, wanted, counts, strict=True):
        read, made = a[name_of(x)], [b[name_of(y)]]
        if sides:
            beside = a[name_of(sides[1])]
            made = [made[0] + (b[name_of(sides[0])] - beside), beside]
        if picks is None:
            rows = max(64, _ENTRIES // (groups * features))
            picks = repair.pick(job.twin, made[0], count, sum(counts), rows, seed)
        own = picks[start : start + count]
        start += count
        flat = repair.rows(job.twin, read, own)
        left = flat.reshape(len(flat), groups, features)
        right = [repair.made(job.twin, v, own).reshape(len(flat), groups, outputs) for v in made]
        stacks = stacks or [Stack(-(-len(flat) * sum(counts) // count)) for _ in (left, *right)]
        for stack, part in zip(stacks, (left, *right), strict=True):
            stack.add(part)
    found = [s.whole() for s in stacks]
    total = g.only_consumer(y) if sides else None
    low, high = clamp_behind(y if total is None else total.outputs[0])
    return Rows(found[0], found[1], found[2] if sides else None, low, high)


def grouped(node: ir.Node) -> Array:
    """The weights [groups, outputs, inputs of one output]."""
    w = g.array(node.inputs[1])
    assert w is not None
    if node.op_type == "Conv":
        groups = int(g.number(node, "group", 1))
        return w.reshape(groups, len(w) // groups, -1).astype(np.float64)
    return (w if qweights.channel_axis(node) == 0 else w.T)[None].astype(np.float64)


def count_of(model: ir.Model, data: Dataset) -> int:
    """How many samples fits may look at: `_SAMPLES`, fewer where their values between layers would not be held."""
    return min(len(data), _SAMPLES, max(_FEWEST, _LIVE // max(_live_bytes(model), 1)))


def chunks_of(model: ir.Model, data: Dataset) -> list[Mapping[str, NDArray[np.float32]]]:
    """Inputs of at most `_SAMPLES` samples, spread over all, for chunk after chunk.

    A chunk is the model's own batch where that is fixed, the last one filled up with samples from the front, else one
    that a graph of open batch takes; both frontiers keep values of all chunks, so big values mean fewer samples.
    """
    fixed = [v.shape[0] for v in model.graph.inputs if v.shape is not None and len(v.shape)]
    batch = next((n for n in fixed if isinstance(n, int)), None)
    rows = dataset.spread(len(data), count_of(model, data))
    step = batch or max(1, min(_CHUNK, _AT_ONCE // max(_largest_bytes(model), 1)))
    if batch:
        rows = np.resize(rows, -(-len(rows) // batch) * batch)
    return [{k: v[rows[i : i + step]] for k, v in data.inputs.items()} for i in range(0, len(rows), step)]


def _largest_bytes(model: ir.Model) -> int:
    """What one sample's largest value takes; those of unknown shape count nothing."""
    shapes = (v.shape for n in model.graph for v in n.outputs if v.shape is not None)
    return max((4 * math.prod(n for n in s[1:] if isinstance(n, int)) for s in shapes), default=0)


def _live_bytes(model: ir.Model) -> int:
    """What one sample's values take at most at once, as float32 and as int8; those of unknown shape count nothing."""
    nodes = list(model.graph)
    place = {n: i for i, n in enumerate(nodes)}
    change = np.zeros(len(nodes) + 1, np.int64)
    for i, node in enumerate(nodes):
        for value in node.outputs:
            readers = [place[u.node] for u in value.uses() if u.node in place]
            if value.shape is None or not readers:
                continue
            size = 5 * math.prod(n for n in value.shape[1:] if isinstance(n, int))
            change[i] += size
            change[max(readers)] -= size
    return int(np.cumsum(change).max(initial=0))
