"""The layers of a float TFLite model whose weights may be rounded, and their weights at a bit width, real again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate.scales import store_weights, weight_scales
from edgelathe.compress.tflite.layers import AXES, Layer, layers
from edgelathe.compress.types import Note
from edgelathe.compress.weights.levels import Levels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.compress.tflite.file import File
    from edgelathe.model import tflite

_OTHERS = frozenset(("TRANSPOSE_CONV", "CONV_3D", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BATCH_MATMUL"))


@dataclass(frozen=True, eq=False)
class Weighted:
    """One layer; operators that share their weights are one.

    Attributes:
        layer: the first operator that has these weights.
        positions: of all its operators.
        weights: as the file has them, float32.
        bias: the same [outputs]; None where it has none of its own.
    """

    layer: Layer
    positions: tuple[int, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    @property
    def name(self) -> str:
        """Of its first output."""
        return self.layer.name

    def bytes(self, bits: int | None) -> int:
        """What the weights take, packed, with a float32 scale per output channel; None: as float32."""
        size = self.weights.size
        return 4 * size if bits is None else -(-size * bits // 8) + 4 * self.layer.outputs

    def rounded(self, bits: int, mean: NDArray[np.float64]) -> dict[int, NDArray[np.float32]]:
        """Weights, and bias where there is one, by tensor: symmetric with a scale per output, to nearest, real again.

        The bias makes up for what the rounding adds on average (Nagel et al., 2019, 4.2), padding left out; `mean`
        [input channels] is that of what the layer reads.
        """
        axis, largest = AXES[self.layer.op], Levels.of(bits, reduce=False).high
        scale = weight_scales(self.weights, axis, largest)
        shape = [-1 if i == axis else 1 for i in range(self.weights.ndim)]
        made = store_weights(self.weights, scale, axis, largest) * scale.reshape(shape)
        out = {self.layer.weight: made.astype(np.float32)}
        if self.bias is not None:
            error = self.layer.grouped(made.astype(np.float64) - self.weights)  # [g, o, f], channels last in f
            means = mean.reshape(self.layer.groups, -1)
            each = error.reshape(*error.shape[:2], -1, means.shape[1]).sum(axis=2)
            shift = np.einsum("goi,gi->go", each, means).reshape(-1)
            out[self.layer.bias] = (self.bias - shift).astype(np.float32)
        return out

    def channel_mean(self, source: NDArray[np.float32]) -> NDArray[np.float64]:
        """The mean of each channel of what it reads, [input channels]."""
        width = self.weights.shape[1] if self.weights.ndim == 2 else source.shape[-1]
        return np.asarray(source.reshape(-1, width).mean(axis=0, dtype=np.float64))


def weighted(file: File, graph: tflite.Subgraph) -> tuple[list[Weighted], list[Note]]:
    """The layers with float weights, and why others have none."""
    by_weight: dict[int, list[Layer]] = {}
    for la in layers(graph):
        by_weight.setdefault(la.weight, []).append(la)
    found = [w for same in by_weight.values() if (w := _weighted(file, graph, same))]
    taken = {i for w in found for i in w.positions}
    left = [
        Note(graph.tensors[op.outputs[0]].name, False, _why(graph, op))
        for i, op in enumerate(graph.operators)
        if i not in taken and op.outputs and (op.op in AXES or op.op in _OTHERS)
    ]
    return found, left


def _weighted(file: File, graph: tflite.Subgraph, same: list[Layer]) -> Weighted | None:
    first = same[0]
    w = file.constant(first.weight).astype(np.float32)
    if not graph.tensors[first.weight].dtype.startswith("float") or not np.isfinite(w).all():
        return None
    bias = None
    if first.bias >= 0 and not first.shared and graph.tensors[first.bias].dtype == "float32":
        bias = file.constant(first.bias)
    return Weighted(first, tuple(la.index for la in same), w, bias)


def _why(graph: tflite.Subgraph, op: tflite.Operator) -> str:
    if op.op in _OTHERS:
        return f"{op.op} is not rounded here"
    weight = graph.tensors[op.inputs[1]]
    return "its weights are not finite" if weight.constant else "its weights or bias are computed by the model"


def dtypes(graph: tflite.Subgraph) -> Mapping[str, str]:
    """Tensors of integers with a scale, by name: what a quantized model has."""
    return {t.name: t.dtype for t in graph.tensors if t.scales and t.dtype.startswith(("int", "uint"))}
