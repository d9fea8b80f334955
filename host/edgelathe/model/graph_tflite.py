"""The layers of a TFLite model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgelathe.model import tflite
from edgelathe.model.graph import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgelathe.model.types import Model

# Operations that only unpack a constant: what they make is a constant still.
UNPACK = ("DEQUANTIZE", "DENSIFY")
# Operations whose constants of other types than int32 are settings too.
SETTINGS = frozenset(("PADV2", "FILL", "RANGE", "TOPK_V2", "QUANTIZE"))


def layers(model: Model) -> Iterator[Layer]:
    """Every operation of the main subgraph that depends on an input, named by its first output."""
    graph = tflite.parse(model.data).main
    behind: dict[int, tuple[int, ...]] = {i: (i,) for i, t in enumerate(graph.tensors) if t.constant}
    spent: set[int] = set()
    for operator in graph.operators:
        sources = [s for i in operator.inputs for s in behind.get(i, ())]
        if operator.op in UNPACK and sources:
            behind.update((o, tuple(sources)) for o in operator.outputs)
            continue
        constants = [graph.tensors[s] for s in sources]
        fresh = {graph.tensors[s].buffer: graph.tensors[s] for s in sources if graph.tensors[s].buffer not in spent}
        spent.update(fresh)
        weights = [t for t in constants if operator.op not in SETTINGS and _is_weight(t)]
        output = graph.tensors[operator.outputs[0]] if operator.outputs else None
        yield Layer(
            name=output.name if output else operator.op,
            op=operator.op,
            inputs=tuple(graph.tensors[i].name for i in operator.inputs if i >= 0 and i not in behind),
            outputs=tuple(graph.tensors[i].name for i in operator.outputs),
            parameters=sum(t.elements for t in fresh.values() if t in weights),
            macs=macs(graph, operator),
            bytes=sum(t.nbytes for t in fresh.values()),
            dtype=max(weights, key=lambda t: t.elements).dtype if weights else output.dtype if output else "undefined",
            shape=_one_sample(output) if output else None,
        )


def _is_weight(tensor: tflite.Tensor) -> bool:
    """int32 with a scale is a bias, without one a shape or an index."""
    return bool(tensor.shape) and (tensor.dtype not in ("int32", "int64", "bool", "str") or bool(tensor.scales))


def _one_sample(tensor: tflite.Tensor) -> tuple[int | None, ...]:
    return tuple(1 if d is None and i == 0 else d for i, d in enumerate(tensor.shape))


def macs(graph: tflite.Subgraph, operator: tflite.Operator) -> int | None:
    """Multiply-accumulates of one operation; 0 for those without products, None where shapes are unknown."""
    rule = MACS.get(operator.op)
    if rule is None:
        return 0
    tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
    shapes = [_one_sample(t) for t in (*tensors, graph.tensors[operator.outputs[0]])]
    if any(None in s for s in shapes):
        return None
    known = [tuple(d or 0 for d in s) for s in shapes]
    return rule(known[:-1], known[-1])


Known = tuple[int, ...]


def _conv(inputs: list[Known], output: Known) -> int:
    """Filter [out, height, width, in / groups]."""
    return math.prod(output) * math.prod(inputs[1][1:])


def _depthwise(inputs: list[Known], output: Known) -> int:
    """Filter [1, height, width, channels]."""
    return math.prod(output) * math.prod(inputs[1][1:3])


def _conv3d(inputs: list[Known], output: Known) -> int:
    """Filter [depth, height, width, in, out]."""
    return math.prod(output) * math.prod(inputs[1][:4])


def _transpose_conv(inputs: list[Known], _: Known) -> int:
    """Inputs: output shape, filter [out, height, width, in], values."""
    return math.prod(inputs[2]) * math.prod(inputs[1][:3])


def _dense(inputs: list[Known], output: Known) -> int:
    """Weights [out, in]."""
    return math.prod(output) * inputs[1][-1]


def _batch_matmul(inputs: list[Known], output: Known) -> int:
    """[..., M, K] or transposed; M stands in the output."""
    return math.prod(output) * (math.prod(inputs[0][-2:]) // max(1, output[-2]))


def _recurrent(inputs: list[Known], _: Known) -> int:
    """Every matrix once per step: the input is [batch, time, features] or [batch, features]."""
    steps = math.prod(inputs[0][:-1])
    return steps * sum(math.prod(s) for s in inputs[1:] if len(s) == 2 and s[0] > 1)


MACS: dict[str, Callable[[list[Known], Known], int]] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "CONV_3D": _conv3d, "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense, "BATCH_MATMUL": _batch_matmul, "LSTM": _recurrent, "RNN": _recurrent, "SVDF": _recurrent,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent, "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _recurrent, "BIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
}  # fmt: skip
