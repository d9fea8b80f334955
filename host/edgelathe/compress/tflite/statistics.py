"""One streaming pass of a float TFLite model over the calibration samples, as `calibrate.ranges` makes for ONNX.

What a term of a clamped sum is seen as, clamp(a + b) - b, is gathered beside the tensors (see `effective`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgelathe.calibrate import cache, statistics
from edgelathe.compress.tflite import frontier as tflite_frontier
from edgelathe.compress.tflite import layers as tflite_layers
from edgelathe.core.errors import UserError
from edgelathe.model import tflite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edgelathe.calibrate.statistics import Statistics
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

_SUFFIX = ":seen"
_CLAMPS = (tflite_layers.RELU, tflite_layers.RELU6)


@dataclass(frozen=True)
class Part:
    """A term of a clamped sum: its tensor, the other term, the sum; numbers of tensors."""

    term: int
    other: int
    clamped: int


def collect(model: Model, data: Dataset) -> dict[str, Statistics]:
    """Statistics of every float activation by tensor name, and of what is seen of terms under `seen(name)`.

    The model runs over all samples, one at a time or in its fixed batch; memory does not grow with their number, and
    what the cache holds is not run again. Raises UserError where a tensor is not finite.
    """
    with cache.opened(cache.key(model, data)) as known:
        if not known.statistics:
            known.statistics.update(_gather(model, data))
        return dict(known.statistics)


def seen(name: str) -> str:
    """The name of what is seen of a term of a clamped sum."""
    return name + _SUFFIX


def parts(graph: tflite.Subgraph) -> list[Part]:
    """The terms of sums with a clamp that nothing else reads."""
    readers: dict[int, int] = {}
    for op in graph.operators:
        for t in op.inputs:
            readers[t] = readers.get(t, 0) + 1
    out = []
    for op in graph.operators:
        if op.op == "ADD" and tflite_layers.fused(op) in _CLAMPS and op.inputs[0] != op.inputs[1]:
            for term, other in (op.inputs, op.inputs[::-1]):
                shapes = {graph.tensors[t].shape for t in (term, other, op.outputs[0])}
                alone = readers[term] == 1 and term not in graph.outputs and term not in graph.inputs
                if alone and len(shapes) == 1 and not any(graph.tensors[t].constant for t in (term, other)):
                    out.append(Part(term, other, op.outputs[0]))
    return out


def _gather(model: Model, data: Dataset) -> dict[str, Statistics]:
    graph = tflite.parse(model.data).main
    terms = parts(graph)
    out: dict[str, Statistics] = {}
    for index, values in enumerate(_runs(model, graph, data)):
        more = {seen(graph.tensors[p.term].name): values[p.clamped] - values[p.other] for p in terms}
        for name, array in {**{graph.tensors[t].name: v for t, v in values.items()}, **more}.items():
            try:
                found = statistics.of(name, array, None)
            except ValueError as e:
                raise UserError(
                    f"{data.name}: sample {index}", str(e), "check preprocessing and the float model"
                ) from None
            out[name] = statistics.merge(out[name], found) if name in out else found
    return out


def _runs(model: Model, graph: tflite.Subgraph, data: Dataset) -> Iterator[Mapping[int, NDArray[Any]]]:
    """Every float activation of run after run, by tensor."""
    made = {t for op in graph.operators for t in op.outputs} | set(graph.inputs)
    wanted = sorted(t for t in made if graph.tensors[t].dtype == "float32" and 0 not in graph.tensors[t].shape)
    call = tflite_frontier.interpreter(model.data, graph.inputs, wanted, keep=True)
    for feed in tflite_frontier.feeds(model, data):
        yield dict(zip(wanted, call([feed[t] for t in graph.inputs]), strict=True))
