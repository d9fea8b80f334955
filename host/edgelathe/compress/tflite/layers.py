"""The layers of a TFLite model that have constant weights, seen as stacks of linear maps.

A layer is groups of outputs that read the same inputs: weights [g, o, f], rows of what it reads [r, g, f], outputs
[r, g, o]. A plain layer has g = 1; a depthwise convolution a group per channel, o its multiplier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.products import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model import tflite

#: Operators with weights: which axis of the weights (input 1) has a scale per channel.
AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_FUSED = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 0, "ADD": 0}  # the options' field of the activation
_DILATION = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5}  # the field of the one along the width; the height's comes after
NONE, RELU, RELU6 = 0, 1, 3


@dataclass(frozen=True)
class Layer:
    """One operator with weights.

    Attributes:
        index: of the operator.
        name: of its first output.
        source, weight, output: numbers of tensors.
        bias: the same, -1: it has none.
        shape: of the weights.
        groups: of channels that are summed on their own.
        step: strides, then dilations (height, width) of a convolution.
        same: whether a convolution pads so that each stride has a window.
        fused: activation, by the schema's number.
        shared: whether another operator reads its weights or bias too.
    """

    index: int
    op: str
    name: str
    source: int
    weight: int
    bias: int
    output: int
    shape: tuple[int, ...]
    groups: int = 1
    step: tuple[int, int, int, int] = (1, 1, 1, 1)
    same: bool = False
    fused: int = NONE
    shared: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether each output reads one channel."""
        return self.op == "DEPTHWISE_CONV_2D"

    @property
    def outputs(self) -> int:
        """How many channels it makes."""
        return self.shape[AXES[self.op]]

    def grouped(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Weights as the file has them, as [g, o, f]."""
        if self.depthwise:
            places = math.prod(self.shape[1:3])
            return np.ascontiguousarray(weights.reshape(places, self.groups, -1).transpose(1, 2, 0))
        return weights.reshape(self.groups, self.shape[0] // self.groups, -1)

    def filed(self, weights: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `grouped`."""
        if self.depthwise:
            return np.ascontiguousarray(weights.transpose(2, 0, 1)).reshape(self.shape)
        return weights.reshape(self.shape)

    def places(self, x: NDArray[Any]) -> int:
        """How many places a run over x [n, ...] has an output at."""
        if len(self.shape) == 2:  # no image
            return x.size // self.shape[1]
        return len(x) * math.prod(self._window(x).output(x.shape[1:3]))

    def rows(self, x: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """What it reads of x [n, ...] at places [r] of its output, as [r, g, f]."""
        if len(self.shape) == 2:
            return x.reshape(-1, 1, self.shape[1])[at]
        cut = self._window(x).cut(x)  # [n, oh, ow, c, kh, kw]
        taken = cut[np.unravel_index(at, cut.shape[:3])]
        split = taken.reshape(len(at), self.groups, -1, *taken.shape[2:])
        return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2)).reshape(len(at), self.groups, -1)

    def made(self, y: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """A value of the shape of its output, at places [r], as [r, g, o]."""
        return y.reshape(-1, self.groups, self.outputs // self.groups)[at]

    def _window(self, x: NDArray[Any]) -> Window:
        size = (self.shape[1], self.shape[2])
        strides, dilations = self.step[:2], self.step[2:]
        if not self.same:
            return Window(size, strides, dilations)
        pads = [_same(n, k, s, d) for n, k, s, d in zip(x.shape[1:3], size, strides, dilations, strict=True)]
        return Window(size, strides, dilations, (pads[0], pads[1]))


def layers(graph: tflite.Subgraph) -> list[Layer]:
    """The layers whose weights are constants, stored as they are or behind a DEQUANTIZE, in order."""
    found = [_layer(graph, i, op) for i, op in enumerate(graph.operators) if op.op in AXES]
    return [la for la in found if la is not None]


def fused(op: tflite.Operator) -> int:
    """The activation that an operator ends with, by the schema's number."""
    return op.options.number(_FUSED[op.op], "b") if op.options is not None and op.op in _FUSED else NONE


def _layer(graph: tflite.Subgraph, index: int, op: tflite.Operator) -> Layer | None:
    source, weight = op.inputs[0], _stored(graph, op.inputs[1])
    bias = op.inputs[2] if len(op.inputs) > 2 else -1
    tensor = graph.tensors[weight]
    shape = tuple(d or 0 for d in tensor.shape)
    rank = 2 if op.op == "FULLY_CONNECTED" else 4
    if not tensor.constant or len(shape) != rank or 0 in shape or (bias >= 0 and not graph.tensors[bias].constant):
        return None
    mine = {t for t in (op.inputs[1], weight, bias) if t >= 0}
    readers = [t for o in graph.operators for t in o.inputs if t in mine]
    shared = len(readers) > len(set(readers))
    plain = Layer(
        index, op.op, graph.tensors[op.outputs[0]].name, source, weight, bias, op.outputs[0], shape, fused=fused(op),
        shared=shared,
    )  # fmt: skip
    options, read = op.options, graph.tensors[source].shape
    if rank == 2:
        shuffled = options is not None and options.number(1, "b")
        return None if shuffled else plain
    if options is None or len(read) != rank or not read[3]:
        return None
    wide, across = options.number(1, "i"), _DILATION[op.op]
    step = (options.number(2, "i"), wide, options.number(across + 1, "i", 1), options.number(across, "i", 1))
    groups = read[3] if op.op == "DEPTHWISE_CONV_2D" else read[3] // shape[3]
    if 0 in step or not groups:
        return None
    return replace(plain, groups=groups, step=step, same=options.number(0, "b") == 0)


def _stored(graph: tflite.Subgraph, weight: int) -> int:
    """The constant that a DEQUANTIZE unpacks to this tensor, else the tensor itself."""
    sources = (op.inputs[0] for op in graph.operators if op.op == "DEQUANTIZE" and op.outputs[0] == weight)
    return next(sources, weight)


def _same(length: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    """(before, after) such that ceil(length / stride) windows fit; an odd one goes after."""
    total = max(0, (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length)
    return total // 2, total - total // 2
