"""Where the answers of two models are compared: at their outputs, or right before a Softmax or Sigmoid that closes one.

What such an operator reads tells more than what it gives: a wrong value of -9 in place of -12 is no error behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward.frontier import Frontier
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.sensitivity.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Chunks

_CLOSING = ("Softmax", "LogSoftmax", "Sigmoid")
_PASSING = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")  # what may stand behind a closing one


@dataclass(frozen=True, eq=False)
class End:
    """The same end in both models.

    Attributes:
        output: name of the models' output.
        mine: the value in the model that is changed.
        reference: the value in the float model.
        closing: operator that closes both, "" where the values are the outputs themselves.
    """

    output: str
    mine: ir.Value
    reference: ir.Value
    closing: str


def matching(mine: ir.Graph, reference: ir.Graph) -> list[End]:
    """The outputs of real numbers that both graphs have and compute, in order."""
    out: list[End] = []
    others = {name_of(v): v for v in reference.outputs}
    for value in mine.outputs:
        other = others.get(name_of(value))
        if other is None or not (_is_real(value) and _is_real(other)):
            continue
        (a, closed), (b, same) = _inside(value), _inside(other)
        if closed != same:
            a, b, closed = value, other, ""
        if a.producer() is not None and b.producer() is not None and all(e.mine is not a for e in out):
            out.append(End(name_of(value), a, b, closed))
    return out


def pairs(
    model: ir.Model, reference: ir.Model, ends: Sequence[End], samples: Chunks, where: str
) -> Iterator[list[tuple[NDArray[Any], NDArray[Any]]]]:
    """(mine, the float model's) values [n, ...] of every end, chunk by chunk, copies that fill up a chunk left out.

    `where`: the data's name. Raises UserError where a model does not run on the samples.
    """
    feeds = [samples.feed(at) for at in range(len(samples))]
    mine = Frontier(model, feeds, where).advance([e.mine for e in ends])
    theirs = Frontier(reference, feeds, where).advance([e.reference for e in ends])
    for at, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        n = samples.count(at)
        yield [(a[name_of(e.mine)][:n], b[name_of(e.reference)][:n]) for e in ends]


def error(model: ir.Model, reference: ir.Model, samples: Chunks, where: str) -> Error:
    """The error of all ends that the models share; what a Softmax does not see is left out."""
    ends = matching(model.graph, reference.graph)
    total = Error()
    for found in pairs(model, reference, ends, samples, where) if ends else ():
        for end, (a, b) in zip(ends, found, strict=True):
            if a.shape == b.shape:
                total += Error.of(seen(end, b), seen(end, a))
    return total


def seen(end: End, values: NDArray[Any]) -> NDArray[Any]:
    """The values but for a number common to all classes, which Softmax ignores."""
    if end.closing not in ("Softmax", "LogSoftmax") or values.ndim != 2:
        return values
    real = values.astype(np.float64)
    return np.asarray(real - real.mean(axis=1, keepdims=True))


def _inside(value: ir.Value) -> tuple[ir.Value, str]:
    """What the closing operator behind a value reads, and its name; the value itself where there is none."""
    at = value
    while (node := at.producer()) is not None and node.op_type in _PASSING and node.inputs[0] is not None:
        at = node.inputs[0]
    if node is None or node.op_type not in _CLOSING or node.inputs[0] is None:
        return value, ""
    return node.inputs[0], node.op_type


def _is_real(value: ir.Value) -> bool:
    import onnx_ir as ir

    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
