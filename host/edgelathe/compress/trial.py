"""How much of a layer's error reaches the model's output, measured by trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress import capture, repair
from edgelathe.compress import graph as g
from edgelathe.compress.repair import name_of
from edgelathe.core import dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.elimination import Order, Reader
    from edgelathe.core.dataset import Dataset

_SAMPLES = 128
_HIDING = ("Softmax", "LogSoftmax", "Sigmoid")  # closing operators that hide errors: measured before them


@dataclass(frozen=True, eq=False)
class Probe:
    """A graph whose weights may be changed for a while, and what it makes as it is.

    `want` are its outputs [n, ...] on `data`, `signal` the sum of their squared deviations from the mean.
    """

    model: ir.Model
    data: Dataset
    values: tuple[str, ...]
    want: tuple[NDArray[np.float32], ...]
    signal: float

    @classmethod
    def of(cls, model: ir.Model, data: Dataset) -> Probe:
        """Run the model as it is on some of the samples, spread evenly."""
        some = dataset.take(data, np.linspace(0, len(data) - 1, min(_SAMPLES, len(data))).astype(np.int64))
        values = []
        for out in model.graph.outputs:
            maker = out.producer()
            values.append(name_of(maker.inputs[0] if maker is not None and maker.op_type in _HIDING else out))
        want = _run(model, tuple(values), some)
        signal = sum(float(np.square(w - w.mean(axis=0), dtype=np.float64).sum()) for w in want)
        return cls(model, some, tuple(values), want, max(signal, 1e-30))

    def lost(self) -> float:
        """Squared error of the outputs as the model is now, relative to their variance."""
        have = _run(self.model, self.values, self.data)
        return (
            sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(have, self.want, strict=True))
            / self.signal
        )


def rescaled(order: Order, readers: Sequence[Reader], nodes: Sequence[ir.Node], probe: Probe) -> Order:
    """The order with errors as they reach the output, from trials with the refitted weights that it kept.

    `nodes` are the readers' in the probe's graph. Between trials the share that gets through is interpolated.
    """
    was = [repair.matrix(n) for n in nodes]
    if not order.trials or any(m is None for m in was):
        return order
    names = g.Names(probe.model.graph)
    bias = [repair.bias_value(n, len(r.m)) for n, r in zip(nodes, readers, strict=True)]
    at, through = [], []
    for k, trial in sorted(order.trials.items()):
        for node, reader, m, b in zip(nodes, readers, trial, bias, strict=True):
            _put(node, m, b if reader.mean is None else b + (reader.m - m) @ reader.mean, names)
        at.append(k)
        through.append(probe.lost() / max(float(order.error[k]), 1e-30))
    for node, reader, b in zip(nodes, readers, bias, strict=True):
        _put(node, reader.m, b, names)
    error = order.error * np.interp(np.arange(len(order.error)), at, through)
    return replace(order, error=np.maximum.accumulate(error), trials={})


def _put(node: ir.Node, m: NDArray[np.float64], b: NDArray[np.float64], names: g.Names) -> None:
    shape = repair.matrix(node)
    assert shape is not None
    repair.store(node, m.reshape(shape.shape), b, names)


def _run(model: ir.Model, values: tuple[str, ...], data: Dataset) -> tuple[NDArray[np.float32], ...]:
    chunks = list(capture.chunks(model, values, data))
    return tuple(np.concatenate([c[v] for c in chunks]) for v in values)
