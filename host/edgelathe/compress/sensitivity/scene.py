"""A float model on its samples, with the layers that may be rounded and how its answers are scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.graph.fold import fold
from edgelathe.compress.graph.moves import refuse_quantized
from edgelathe.compress.integer import weighted
from edgelathe.compress.sensitivity import passes, reference
from edgelathe.compress.sensitivity.reference import Float
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers as graph_layers
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.types import Note
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.result import Accuracy
    from edgelathe.model.types import Model
    from edgelathe.stats.metrics import Metric


@dataclass(frozen=True, eq=False)
class Scene:
    """A float model on its samples, with the layers that may be rounded and how its answers are scored.

    Attributes:
        float: the folded model and its values.
        layers, skipped: those with weights, and why others have none.
        metric, labels: of the data.
        macs: of each layer for one sample, None where not known.
        means: of each channel of what a layer reads, by that value's name, on the first chunk of samples.
    """

    float: Float
    layers: tuple[Weighted, ...]
    skipped: tuple[Note, ...]
    metric: Metric
    labels: NDArray[Any] | None
    macs: Mapping[str, int | None]
    means: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, model: Model, data: Dataset, run_all: partial.Map) -> Scene:
        """Fold the model and run it. Raises UserError where it is no float model, or has no layer with weights."""
        ir_model = onnx_model.to_ir(model)
        refuse_quantized(ir_model.graph, model.name)
        fold(ir_model)
        found, left = weighted.layers(ir_model)
        if not found:
            why = f": {left[0].layer}: {left[0].what}" if left else ""
            raise UserError(model.name, f"has no layer whose weights can be rounded{why}", "see `edgelathe inspect`")
        folded = onnx_model.from_ir(ir_model, model.name)
        table = graph_layers(folded)
        held = sum(4 * math.prod(d or 1 for d in la.shape) for la in table if la.shape is not None)  # bytes a sample
        chunks = partial.chunks_of(folded, data, max(1, passes.BLOCK_BYTES // max(1, held)))
        made = Float.of(onnx_model.to_proto(folded), model.name, chunks, run_all)
        metric = metrics.load_metric(data.metric, Path(data.name).parent)
        macs = {layer.name: layer.macs for layer in table}
        means = reference.input_means(made, found)
        return cls(made, tuple(found), tuple(left), metric, data.labels, macs, means)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs of real numbers."""
        return self.float.outputs

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of what goes into closing operators."""
        return self.float.hidden

    def accuracy(self, outputs: NDArray[Any]) -> Accuracy | None:
        """Of a changed model, in pairs with the float one; None where outputs are NaN."""
        try:
            labels = None if self.labels is None else self.labels[: len(outputs)]
            return metrics.compare_accuracy(self.metric, self.float.head(len(outputs)), outputs, labels)[0]
        except metrics.OutputError:
            return None

    def changed(self, outputs: NDArray[Any]) -> int | None:
        """How many answers are not the float model's."""
        if not self.metric.classes:
            return None
        answers = (v.reshape(len(v), -1).argmax(1) for v in (self.float.head(len(outputs)), outputs))
        return int(np.not_equal(*answers).sum())
