"""Layers of a compressed TFLite file against the float file's, as `sensitivity.explain` compares those of ONNX models.

Both run in interpreters that keep inner tensors. Whether a value was clipped is told from the grid's ends: a kernel
rounds and clamps at once, so what stood before is not seen, but the float model's value is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.sensitivity import explain as both
from edgelathe.compress.sensitivity.matched import Match, Span, spread
from edgelathe.compress.sensitivity.seen import Mends, Seen, ranked
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import ends, feeds, interpreter, restored
from edgelathe.compress.tflite.layers import AXES, RELU, RELU6, fused, layers
from edgelathe.core.errors import UserError
from edgelathe.model import run, tflite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.explain import Explanation
    from edgelathe.compress.sensitivity.seen import LayerFound
    from edgelathe.compress.tflite.layers import Layer
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

_INTEGER = Mends(overflow="int8", shared="int8")  # its weights have a scale per channel always
_REAL = Mends(overflow="int8", shared="int8", more_bits=False)  # int4 takes no `weights`


def explain(
    before: Model, after: Model, data: Dataset, config: Mapping[str, str] | None = None, *,
    samples: int = both.SAMPLES, layers: bool = True,
) -> Explanation:  # fmt: skip
    """`sensitivity.explain.explain` of ONNX and TFLite models alike, arguments and errors as there."""
    return both.explain(before, after, data, config, samples=samples, layers=layers, inside=inside)


def inside(before: Model, after: Model, data: Dataset) -> tuple[LayerFound, ...]:
    """The layers with constant weights that have the same name in both files, worst first.

    Empty where a file has several subgraphs: which one runs is known only as it runs.

    Raises UserError where a file does not run on the samples.
    """
    parsed = [tflite.parse(m.data) for m in (before, after)]
    if any(len(p.subgraphs) != 1 for p in parsed):
        return ()
    graphs = [p.main for p in parsed]
    there = {la.name: la for la in layers(graphs[1])}
    pairs = [(la, twin) for la in layers(graphs[0]) if (twin := there.get(la.name) or there.get(f"{la.name}_q"))]
    if not pairs:
        return ()
    file, sources = File(after.data), _sources(graphs[0], [la for la, _ in pairs])
    seen = [_seen(file, graphs, la, twin, sources[la.index]) for la, twin in pairs]
    batch = run.batch_size(before.signature)
    sums = {la.name: found for la, twin in pairs if (found := _sum_behind(graphs, la, twin))}
    wanted = [[*(pair[i].output for pair in pairs), *(t[i] for t in sums.values())] for i in range(2)]
    try:
        calls = [
            interpreter(m.data, g.inputs, w, keep=True) for m, g, w in zip((before, after), graphs, wanted, strict=True)
        ]
        for at, inputs in enumerate(zip(feeds(before, data), feeds(after, data), strict=True)):
            made = [
                dict(zip(w, call([x[t] for t in g.inputs]), strict=True))
                for w, call, g, x in zip(wanted, calls, graphs, inputs, strict=True)
            ]
            for one, (la, twin) in zip(seen, pairs, strict=True):
                f = made[0][la.output]
                a, raw = _real(made[1][twin.output], f, graphs[1].tensors[twin.output])
                if la.name in sums and a.shape == f.shape:
                    plain, stored = sums[la.name]
                    total = restored(made[1][stored], graphs[1].tensors[stored])
                    hidden = (made[0][plain] <= 0) & (total <= 0)
                    a, raw = np.where(hidden, f, a), None if raw is None else np.where(hidden, a, raw)
                count = min(batch, len(data) - at * batch)
                one.add(f, a, raw, count if len(f) == batch else len(f))  # rows of one sample may be its places
    except (RuntimeError, ValueError) as e:
        raise UserError(after.name, f"does not run with inner tensors kept: {e}", "leave out --explain") from e
    return ranked({la.name: one for (la, _), one in zip(pairs, seen, strict=True)}, {})


def _sum_behind(graphs: Sequence[tflite.Subgraph], *pair: Layer) -> tuple[int, int] | None:
    """The tensors of the sum that alone reads a layer's output and ends in a Relu, in both files; None without one.

    Where that is 0 in both, nothing that went into it counts, as ranges are chosen (`scale=auto`) to clip there.
    """
    found = []
    for graph, la in zip(graphs, pair, strict=True):
        readers = [op for op in graph.operators if la.output in op.inputs]
        if len(readers) != 1 or readers[0].op != "ADD" or la.output in graph.outputs:
            return None
        total = readers[0].outputs[0]
        if fused(readers[0]) not in (RELU, RELU6) or graph.tensors[total].shape != graph.tensors[la.output].shape:
            return None
        found.append(total)
    return found[0], found[1]


def _real(
    stored: NDArray[Any], f: NDArray[np.float32], tensor: tflite.Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """What the numbers stand for, and the same with the float model's where they stand at an end of their grid."""
    real = restored(stored, tensor)
    if stored.dtype.kind not in "iu" or real.shape != f.shape:
        return real, None
    limits = np.iinfo(stored.dtype)
    return real, np.where((stored == limits.min) | (stored == limits.max), f, real)


def _seen(file: File, graphs: Sequence[tflite.Subgraph], la: Layer, twin: Layer, sources: tuple[str, ...]) -> Seen:
    weight, output = graphs[1].tensors[twin.weight], graphs[1].tensors[twin.output]
    low, high = ends(output)
    integer = bool(np.isfinite(low))
    half = output.scales[0] / 2 if integer else 0.0
    ratio = None
    if len(weight.scales) == 1 and twin.outputs > 1 and weight.dtype.startswith(("int", "uint")):
        w, axis = np.abs(file.constant(twin.weight).astype(np.float64)), AXES[twin.op]
        ratio = spread(w.max(axis=tuple(i for i in range(w.ndim) if i != axis)))
    match = Match(
        la.name, la.op, -1, la.name, twin.name, twin.name if integer else None, (None, None),
        Span(low - half, high + half) if integer else None, ratio, 4 if weight.dtype == "int4" else None, sources,
    )  # fmt: skip
    return Seen(match, _INTEGER if integer else _REAL)


def _sources(graph: tflite.Subgraph, chosen: Sequence[Layer]) -> dict[int, tuple[str, ...]]:
    """Names of the layers that each one reads, through what lies between, by operator."""
    names = {la.index: la.name for la in chosen}
    reach: dict[int, set[str]] = {}  # of each tensor: the last layers before it
    found: dict[int, tuple[str, ...]] = {}
    for i, op in enumerate(graph.operators):
        before = set[str]().union(*(reach.get(t, set()) for t in op.inputs))
        if i in names:
            found[i], before = tuple(sorted(before)), {names[i]}
        reach.update(dict.fromkeys(op.outputs, before))
    return found
