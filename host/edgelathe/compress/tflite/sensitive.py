"""A float TFLite model on its samples, with the layers that may be rounded and how its answers are scored.

The kernels are those of `eval`, XNNPACK's among them, run after run of the model's own batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.sensitivity.errors import Answer, Error
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import feeds, interpreter
from edgelathe.compress.tflite.weighted import Weighted, dtypes, weighted
from edgelathe.core.errors import UserError
from edgelathe.model import run, tflite
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Map
    from edgelathe.compress.types import Note
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.result import Accuracy
    from edgelathe.model.types import Model
    from edgelathe.stats.metrics import Metric

_HIDING = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC")
_PART = 32  # samples whose errors are summed together
_MEANS = 32  # runs that the means of what layers read are of
Values = dict[int, "NDArray[Any]"]


@dataclass(frozen=True, eq=False)
class Scene:
    """The model on its samples.

    Attributes:
        model, graph, data: the file, what stands in it, and the samples.
        map: runs a function on several threads.
        layers, skipped: those with weights, and why others have none.
        metric: of the data.
        macs: of each layer for one sample, by name; None where not known.
        real, closing: tensors of the outputs of real numbers, and of what goes into closing operators.
        means: of each channel of what a layer reads, by its name, on the first runs.
        known: float values of `real`, `closing` and the first output, [n, ...], block by block.
    """

    model: Model
    graph: tflite.Subgraph
    data: Dataset
    map: Map
    layers: tuple[Weighted, ...]
    skipped: tuple[Note, ...]
    metric: Metric
    macs: Mapping[str, int | None]
    real: tuple[int, ...]
    closing: tuple[int, ...]
    means: Mapping[str, NDArray[np.float64]]
    known: list[Values] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, model: Model, data: Dataset, run_all: Map, macs: Mapping[str, int | None]) -> Scene:
        """Raises UserError where it is no float model of one subgraph, or has no layer with weights."""
        parsed = tflite.parse(model.data)
        graph = parsed.main
        if len(parsed.subgraphs) > 1:
            raise UserError(model.name, "has control flow (several subgraphs)", "give a model without it")
        if integers := dtypes(graph):
            name, dtype = next(iter(integers.items()))
            why = f"is quantized already ('{name}' is {dtype})"
            raise UserError(model.name, why, "give the float model that it was made from")
        found, left = weighted(File(model.data), graph)
        if not found:
            why = f": {left[0].layer}: {left[0].what}" if left else ""
            raise UserError(model.name, f"has no layer whose weights can be rounded{why}", "see `edgelathe inspect`")
        real = tuple(t for t in graph.outputs if graph.tensors[t].dtype.startswith("float"))
        ends = [op for op in graph.operators if op.op in _HIDING and op.outputs[0] in graph.outputs]
        closing = tuple(dict.fromkeys(op.inputs[0] for op in ends))
        metric = metrics.load_metric(data.metric, Path(data.name).parent)
        sources = list(dict.fromkeys(la.layer.source for la in found))
        call = interpreter(model.data, graph.inputs, sources, keep=True)
        seen: dict[int, list[NDArray[Any]]] = {}
        for _, inputs in zip(range(_MEANS), feeds(model, data), strict=False):
            for t, v in zip(sources, call([inputs[i] for i in graph.inputs]), strict=True):
                seen.setdefault(t, []).append(v)
        means = {la.name: la.channel_mean(np.concatenate(seen[la.layer.source])) for la in found}
        layers, skipped = tuple(found), tuple(left)
        return cls(model, graph, data, run_all, layers, skipped, metric, macs, real, closing, means)

    @functools.cached_property
    def batch(self) -> int:
        """Samples of a run."""
        return run.batch_size(self.model.signature)

    @functools.cached_property
    def judged(self) -> tuple[int, ...]:
        """Tensors whose errors count, the first output first."""
        return tuple(dict.fromkeys((self.graph.outputs[0], *self.real, *self.closing)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of real numbers."""
        return tuple(self.graph.tensors[t].name for t in self.real)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of what goes into closing operators."""
        return tuple(self.graph.tensors[t].name for t in self.closing)

    @property
    def scores(self) -> int | None:
        """The value that tells classes, and by how much: the only output, [n, classes], or what its Softmax reads."""
        if self.metric.name != "top1" or len(self.graph.outputs) != 1 or not self.real or len(self.closing) > 1:
            return None
        tensor = (self.closing or self.real)[0]
        value = self.known[0][tensor]
        return tensor if value.ndim == 2 and value.shape[1] > 1 else None

    def head(self, samples: int) -> NDArray[Any]:
        """The float model's first output on the first samples, of blocks that were run."""
        return np.concatenate([v[self.graph.outputs[0]] for v in self.known])[:samples]

    def accuracy(self, outputs: NDArray[Any]) -> Accuracy | None:
        """Of a changed model, in pairs with the float one; None where outputs are NaN."""
        labels = None if self.data.labels is None else self.data.labels[: len(outputs)]
        try:
            return metrics.compare_accuracy(self.metric, self.head(len(outputs)), outputs, labels)[0]
        except metrics.OutputError:
            return None

    def changed(self, outputs: NDArray[Any]) -> int | None:
        """How many answers are not the float model's."""
        if not self.metric.classes:
            return None
        answers = (v.reshape(len(v), -1).argmax(1) for v in (self.head(len(outputs)), outputs))
        return int(np.not_equal(*answers).sum())

    def compared(self, want: Values, have: Values) -> dict[str, tuple[Error, ...]]:
        """Errors of outputs and hidden values, `_PART` samples at a time."""
        n = len(want[self.judged[0]])
        return {
            self.graph.tensors[t].name: tuple(
                Error.of(want[t][i : i + _PART], have[t][i : i + _PART]) for i in range(0, n, _PART)
            )
            for t in (*self.real, *self.closing)
        }

    def reading(
        self, constants: Mapping[int, NDArray[np.float32]], tensors: Sequence[int]
    ) -> Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]:
        """The model with other constants, from its inputs to some tensors that it computes."""
        file = File(self.model.data)
        for tensor, values in constants.items():
            file.set_constant(tensor, values)
        data = file.part(range(len(self.graph.operators)), self.graph.inputs, tensors)
        return interpreter(data, self.graph.inputs, tensors, plain=False)

    def whole(self, constants: Mapping[int, NDArray[np.float32]]) -> Answer:
        """The model with other constants, on the samples of all blocks."""
        call = self.reading(constants, self.judged)
        runs = [call([x[t] for t in self.graph.inputs]) for x in feeds(self.model, self.data)]
        have = dict(
            zip(self.judged, (np.concatenate(v)[: len(self.data)] for v in zip(*runs, strict=True)), strict=True)
        )
        want = {t: np.concatenate([v[t] for v in self.known]) for t in self.judged}
        return Answer(have[self.judged[0]], self.compared(want, have))
