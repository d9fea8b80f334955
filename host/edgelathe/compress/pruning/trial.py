"""How much of a layer's error reaches the model's output, measured by trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.forward import capture
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.weights import repair
from edgelathe.core import dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.pruning.elimination import Order, Reader
    from edgelathe.core.dataset import Dataset

_SAMPLES = 256
_EVERY = 4
_RANKED = ("top1", "top5", "balanced", "f1")  # metrics of classes
_HIDING = ("Softmax", "LogSoftmax", "Sigmoid")  # closing operators that hide errors: measured before them


@dataclass(frozen=True, eq=False)
class Probe:
    """A graph whose weights may be changed for a while, and what it makes as it is.

    Attributes:
        data: the samples that it runs on.
        values: names of the outputs, or of what goes into a closing operator of `_HIDING`.
        want: these values [n, ...] as the model makes them unchanged.
        classes: per value, whether it holds the logits of classes.
    """

    model: ir.Model
    data: Dataset
    values: tuple[str, ...]
    want: tuple[NDArray[np.float32], ...]
    classes: tuple[bool, ...]

    @classmethod
    def of(cls, model: ir.Model, data: Dataset) -> Probe:
        """Run the model as it is."""
        values, soft = [], []
        for out in model.graph.outputs:
            maker = out.producer()
            hiding = maker is not None and maker.op_type in _HIDING
            values.append(name_of(maker.inputs[0] if maker is not None and hiding else out))
            soft.append(hiding and maker is not None and maker.op_type != "Sigmoid")
        want = _run(model, tuple(values), data)
        ranked = data.metric in _RANKED
        classes = tuple(w.ndim == 2 and w.shape[1] > 1 and (s or ranked) for w, s in zip(want, soft, strict=True))
        return cls(model, data, tuple(values), want, classes)

    def lost(self) -> float:
        """How far the outputs are from what they were: Kullback-Leibler divergence of classes in nats per sample.

        Of other values the squared error relative to their variance. Several outputs are added.
        """
        have = _run(self.model, self.values, self.data)
        return sum(
            _divergence(w, h)
            if c
            else float(np.square(h - w, dtype=np.float64).mean() / max(w.var(dtype=np.float64), 1e-30))
            for w, h, c in zip(self.want, have, self.classes, strict=True)
        )


def _divergence(want: NDArray[np.float32], have: NDArray[np.float32]) -> float:
    p, q = (_log_softmax(v.astype(np.float64)) for v in (want, have))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def held_out(data: Dataset) -> Dataset:
    """Every fourth sample, at most `_SAMPLES`: trials on samples that the refits saw would flatter wide layers."""
    return dataset.take(data, np.arange(0, len(data), _EVERY)[:_SAMPLES])


def the_others(data: Dataset) -> Dataset:
    """The samples that `held_out` leaves."""
    every = np.arange(len(data))
    return dataset.take(data, every[every % _EVERY != 0] if len(data) >= _EVERY else every)


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
    chunks = [chunk for _, chunk in capture.chunks(model, values, data)]
    return tuple(np.concatenate([c[v] for c in chunks]) for v in values)
