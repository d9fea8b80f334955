"""Integer weights of a quantized TFLite file settled layer by layer, toward the float model.

Each layer sees what the layers before it, settled already, make of the samples, and is fitted to what it made of the
float model's values (as `problems` does for ONNX): by second-order rounding, or by its bias alone, which takes the mean
error of weights and activations (the empirical correction of Nagel et al., 2019, 4.2).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.tflite import frontier as tflite_frontier
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import Frontier
from edgelathe.compress.tflite.layers import NONE, Layer, layers
from edgelathe.compress.weights import qweights, second_order
from edgelathe.compress.weights.levels import Levels
from edgelathe.compress.weights.problems import DAMP, DAMP_WIDE, Moments
from edgelathe.compress.weights.second_order import Array
from edgelathe.core import dataset
from edgelathe.model import tflite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

_SAMPLES, _FEWEST = 256, 8  # that the fits see at most, and at least where there are so many
_LIVE = 400_000_000  # bytes of values between layers that are kept, of all samples
_ENTRIES, _MEAN_ENTRIES = 6_000_000, 1_000_000  # numbers that one layer's problem, or its mean, is gathered from
_TOLD = 1e-5  # of the second moments: less of a covariance is none
_TOGETHER = 16  # runs whose rows are taken at once
_WIDEST = 4096  # inputs of an output whose moments are held; wider layers are rounded to nearest
_BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Wish:
    """What is to be done with one layer: learn its rounding, or correct its bias."""

    learn: bool
    correct: bool


@dataclass(frozen=True)
class Job:
    """One layer in the float file and in the quantized one, and what is wanted of it."""

    before: Layer
    after: Layer
    learn: bool


class Means:
    """Sums over rows of x [groups, f] and y [groups, o]: what a bias alone is fitted to."""

    def __init__(self, groups: int, features: int, outputs: int) -> None:
        self.x, self.y, self.n = np.zeros((groups, features)), np.zeros((groups, outputs)), 0

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Take in rows x [r, groups, f] and y [r, groups, o]."""
        self.x += x.sum(axis=0, dtype=np.float64)
        self.y += y.sum(axis=0, dtype=np.float64)
        self.n += len(x)

    def means(self) -> tuple[Array, Array]:
        """Of x [g, f] and y [g, o]."""
        return self.x / max(self.n, 1), self.y / max(self.n, 1)


def settle(
    before: Model, after: bytes, wishes: Mapping[str, Wish], data: Dataset, seed: int
) -> tuple[bytes, frozenset[str]]:
    """The quantized file with fitted weights and biases, and the names of the layers whose rounding was learned.

    Args:
        before: the float model that `after` was quantized from.
        after: its quantized file.
        wishes: by layer name; layers that are not named stay as they are.
        data: samples bound to the model.
        seed: of the places that are looked at.

    Raises:
        UserError: values that are not finite.
    """
    jobs = _jobs(before, after, wishes)
    if not jobs:
        return after, frozenset()
    file, float_file = File(after), File(before.data)
    graphs = tflite.parse(after).main, tflite.parse(before.data).main
    rows = _chosen(graphs[1], data)
    given = list(tflite_frontier.feeds(before, data, rows))
    ours = Frontier(file, graphs[0], [dict(zip(graphs[0].inputs, f.values(), strict=True)) for f in given], data.name)
    theirs = Frontier(float_file, graphs[1], given, data.name)
    for index, job in enumerate(jobs):
        ours.advance(job.after.index)
        theirs.advance(job.before.index)
        weights = job.before.grouped(float_file.constant(job.before.weight)).astype(np.float64)
        bias = float_file.constant(job.before.bias).astype(np.float64) if job.before.bias >= 0 else None
        moments = _moments(job, weights, bias, (ours, theirs), graphs, len(given), np.random.default_rng((seed, index)))
        _write(file, graphs[0], job, _fitted(job, graphs[0], weights, bias, moments, len(rows), file))
    return file.data(), frozenset(j.before.name for j in jobs if j.learn)


def _jobs(before: Model, after: bytes, wishes: Mapping[str, Wish]) -> list[Job]:
    """Layers that stand in both files, weights of the second in integers; other pairs are left alone."""
    graph = tflite.parse(after).main
    twins = {graph.tensors[la.weight].name: la for la in layers(graph)}
    float_graph = tflite.parse(before.data).main
    out = []
    for layer in layers(float_graph):
        twin, wish = twins.get(float_graph.tensors[layer.weight].name), wishes.get(layer.name)
        if twin is None or wish is None or twin.shared or twin.shape != layer.shape:
            continue
        if graph.tensors[twin.weight].dtype not in _BITS:
            continue
        learn = wish.learn and math.prod(layer.shape) // layer.outputs <= _WIDEST
        if learn or (wish.correct and layer.bias >= 0 and twin.bias >= 0):
            out.append(Job(layer, twin, learn))
    return out


def _chosen(graph: tflite.Subgraph, data: Dataset) -> NDArray[np.int64]:
    """Numbers of the samples, spread over all; big values mean fewer."""
    return dataset.spread(len(data), min(_SAMPLES, max(_FEWEST, _LIVE // max(_live_bytes(graph), 1))))


def _live_bytes(graph: tflite.Subgraph) -> int:
    """What one sample's values take at most at once, as float32 and as int8."""
    change = np.zeros(len(graph.operators) + 1, np.int64)
    change[0] = sum(8 * graph.tensors[t].elements for t in graph.inputs)  # both graphs read them from one array
    last = {t: i for i, op in enumerate(graph.operators) for t in op.inputs}
    for i, op in enumerate(graph.operators):
        for t in op.outputs:
            change[i] += 5 * graph.tensors[t].elements
            change[last.get(t, i)] -= 5 * graph.tensors[t].elements
    return int(np.cumsum(change).max(initial=0))


def _moments(
    job: Job, weights: Array, bias: Array | None, both: tuple[Frontier, Frontier],
    graphs: tuple[tflite.Subgraph, tflite.Subgraph], runs: int, rng: np.random.Generator,
) -> Moments | Means:  # fmt: skip
    """Sums of what the layer reads now, and of what it is to make of it: the float layer's values before activation.

    Where its output is summed with an earlier value, it makes up for the error of that one too.
    """
    ours, theirs = both
    groups, outputs, features = weights.shape
    out = (Moments if job.learn else Means)(groups, features, outputs)
    side = _side(job, graphs, both)
    # What its grid clips of the other term was found not to matter where the sum is clamped (see `effective`).
    ends = tflite_frontier.ends(graphs[0].tensors[side[0]]) if side else (-np.inf, np.inf)
    others = zip(_stacked(theirs, side[1]), _stacked(ours, side[0]), strict=True) if side else None
    entries = _ENTRIES if job.learn else _MEAN_ENTRIES
    wanted = max(1, -(-max(64, entries // (groups * features)) // runs))  # rows of a run
    spread = np.ascontiguousarray(weights.transpose(0, 2, 1), np.float32)  # [g, f, o]
    both_read = zip(_stacked(ours, job.after.source), _stacked(theirs, job.before.source), strict=True)
    for (x, n), (real, _) in both_read:
        total = job.before.places(real)
        at = np.arange(total) if total <= n * wanted else rng.choice(total, n * wanted, replace=False)
        y = np.matmul(job.before.rows(real, at).transpose(1, 0, 2), spread).transpose(1, 0, 2)
        if bias is not None:
            y = y + bias.reshape(groups, outputs).astype(np.float32)
        if others is not None:
            (float_, _), (now, _) = next(others)
            y = y + job.before.made(np.clip(float_, *ends) - now, at)
        out.add(job.after.rows(x, at), y)
    return out


def _stacked(frontier: Frontier, tensor: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """The tensor of several runs at once, and how many these are."""
    values = frontier.real(tensor)
    while part := list(itertools.islice(values, _TOGETHER)):
        yield np.concatenate(part), len(part)


def _side(
    job: Job, graphs: tuple[tflite.Subgraph, tflite.Subgraph], both: tuple[Frontier, Frontier]
) -> tuple[int, int] | None:
    """The other term of the sum that alone reads the layer's output, in the quantized and in the float graph."""
    found = []
    for graph, layer, frontier in zip(graphs, (job.after, job.before), both, strict=True):
        readers = [op for op in graph.operators if layer.output in op.inputs]
        if len(readers) != 1 or readers[0].op != "ADD" or layer.fused != NONE or layer.output in graph.outputs:
            return None
        a, b = readers[0].inputs[:2]
        other = b if a == layer.output else a
        if a == b or not frontier.has(other) or graph.tensors[other].shape != graph.tensors[layer.output].shape:
            return None
        found.append(other)
    return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Settled:
    """Integers [g, o, f] and scales [g, o] of a layer; real bias [outputs], None where it has none."""

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: Array | None


def _fitted(
    job: Job, graph: tflite.Subgraph, weights: Array, bias: Array | None, moments: Moments | Means,
    samples: int, file: File,
) -> Settled:  # fmt: skip
    tensor = graph.tensors[job.after.weight]
    groups, outputs, features = weights.shape
    integers = job.after.grouped(file.constant(job.after.weight))
    scale = np.broadcast_to(np.asarray(tensor.scales, np.float32), job.after.outputs).reshape(groups, outputs)
    has_bias = bias is not None and job.after.bias >= 0
    if isinstance(moments, Moments):
        hessian, cross = moments.second(centred=has_bias)
        # What one sample leaves of a covariance is rounding: such groups are rounded as if all inputs were alike.
        size, whole = (np.trace(h, axis1=1, axis2=2) for h in (hessian, moments.xx / max(moments.n, 1)))
        told = (size > _TOLD * whole)[:, None, None]
        hessian, cross = hessian * told, cross * told
        hessian, strength = second_order.damped(hessian, DAMP + DAMP_WIDE * features / samples)
        wanted = second_order.pulled(weights, hessian, cross, strength)
        least = np.zeros((groups, outputs), np.float32)
        if has_bias and bias is not None:
            least = _least(bias, _input_scale(graph, job.after)).reshape(groups, outputs)
        levels = Levels.of(_BITS[tensor.dtype], reduce=False)
        found = second_order.round_to(wanted, hessian, levels, least, shared=len(tensor.scales) == 1)
        integers, scale = found.integers, found.scale
    if not has_bias:
        return Settled(integers, scale, None)
    x, y = moments.means()
    real = integers.astype(np.float64) * scale[:, :, None]
    return Settled(integers, scale, (y - np.einsum("gof,gf->go", real, x)).reshape(-1))


def _write(file: File, graph: tflite.Subgraph, job: Job, found: Settled) -> None:
    shared = len(graph.tensors[job.after.weight].scales) == 1
    scale = found.scale.reshape(-1)[:1] if shared else found.scale.reshape(-1)
    if job.learn:
        file.set_constant(job.after.weight, job.after.filed(found.integers))
        file.set_scale(job.after.weight, scale)
    if found.bias is None:
        return
    if graph.tensors[job.after.bias].dtype.startswith("float"):
        file.set_constant(job.after.bias, found.bias)
        return
    unit = np.float32(_input_scale(graph, job.after)) * scale
    file.set_constant(job.after.bias, qweights.integer_bias(found.bias, unit))
    file.set_scale(job.after.bias, unit)


def _input_scale(graph: tflite.Subgraph, layer: Layer) -> float:
    """Of the integers that the layer reads; 0: it reads reals."""
    scales = graph.tensors[layer.source].scales
    return scales[0] if scales else 0.0


def _least(bias: Array, input_scale: float) -> NDArray[np.float32]:
    """Scales of the weights below which the bias would not fit 32 bits with room for the sum."""
    if not input_scale:
        return np.zeros(bias.shape, np.float32)
    return (np.abs(bias) / input_scale / 2.0**30).astype(np.float32)
