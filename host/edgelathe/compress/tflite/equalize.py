"""Channels between two layers of a TFLite model rescaled so that one scale a tensor fits all of them.

Cross-layer equalization as in `equalize` (Nagel et al., 2019, 4.1). Only what lies between is positively homogeneous
may be crossed: RELU, pooling, zero padding, reshapes that keep channels last. RELU6 is not: it clips at 6 whatever the
scale, so a pair with one between stays as it is, and says so where it would have needed it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.layers import NONE, RELU, Layer, fused, layers
from edgelathe.compress.types import Note
from edgelathe.model import io, tflite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgelathe.model.types import Model

Weights = dict[int, "NDArray[np.float64]"]  # by operator
_ROUNDS = 50
_UNBALANCED = 32.0  # as for ONNX: channels that differ more lose more than 5 of 8 bits
_POOLS = {"MAX_POOL_2D": 5, "AVERAGE_POOL_2D": 5}  # the options' field of the activation
_CROSSED = frozenset(("RELU", "PAD", "RESHAPE", "SQUEEZE", "MEAN", *_POOLS))


@dataclass(frozen=True)
class Pair:
    """Two layers; `clipped`: something between them that may not be crossed, "" for a sound pair.

    `copies`: how often the channels of the first stand one after another among the inputs of the second.
    """

    first: Layer
    second: Layer
    copies: int
    clipped: str = ""


def balance(model: Model, mode: str, allowed: Callable[[str], bool]) -> tuple[Model, tuple[Note, ...]]:
    """The model with unbalanced pairs (`auto`), all (`always`) or none (`never`) equalized; its function is the same.

    Args:
        model: float, one subgraph.
        mode: as above.
        allowed: whether a layer of that name may be changed.
    """
    pairs = (
        [p for p in find(tflite.parse(model.data)) if allowed(p.first.name) and allowed(p.second.name)]
        if mode != "never"
        else []
    )
    if not pairs:
        return model, ()
    file = File(model.data)
    weights = {la.index: file.constant(la.weight).astype(np.float64) for p in pairs for la in (p.first, p.second)}
    limit = _UNBALANCED if mode == "auto" else 1.0
    spreads = {p: _spread(_factors(p, weights)) for p in pairs}
    wide = [p for p in pairs if spreads[p] > limit]
    chosen = [p for p in wide if not p.clipped]
    total = _even_out(chosen, weights)
    for layer in {la.index: la for p in chosen for la in (p.first, p.second)}.values():
        file.set_constant(layer.weight, weights[layer.index].astype(np.float32))
    for pair in chosen:
        if pair.first.bias >= 0:
            bias = file.constant(pair.first.bias) / total[pair.first.index]
            file.set_constant(pair.first.bias, bias.astype(np.float32))
    notes = tuple(Note(p.first.name, p in chosen, _words(p, spreads[p])) for p in wide)
    return (io.from_bytes(file.data(), "tflite", model.name) if chosen else model), notes


def find(parsed: tflite.Parsed) -> list[Pair]:
    """Pairs of layers with float weights of their own, with one way between them and operators that keep channels."""
    graph = parsed.main
    known = {la.index: la for la in layers(graph) if not la.shared and _is_float(graph, la)}
    readers: dict[int, list[int]] = {}
    for i, op in enumerate(graph.operators):
        for t in op.inputs:
            readers.setdefault(t, []).append(i)
    out = []
    for first in known.values():
        at, activations = first.output, [first.fused]
        while at not in graph.outputs and len(readers.get(at, ())) == 1:
            index = readers[at][0]
            op = graph.operators[index]
            if index in known:
                pair = _pair(first, known[index], at, activations)
                out += [pair] if pair else []
                break
            if (
                op.op not in (*_CROSSED, "RELU6")
                or op.inputs[0] != at
                or not _keeps_channels(parsed, op, first.outputs)
            ):
                break
            activations.append(_activation(op))
            at = op.outputs[0]
    return out


def _pair(first: Layer, second: Layer, at: int, activations: list[int]) -> Pair | None:
    inputs = second.shape[1] if second.op == "FULLY_CONNECTED" else second.shape[3]
    if second.source != at or (second.op == "CONV_2D" and second.groups > 1):
        return None
    if second.depthwise:
        inputs = second.groups
    if inputs % first.outputs:
        return None
    clipped = "" if set(activations) <= {NONE, RELU} else "RELU6 or another bound lies between"
    return Pair(first, second, inputs // first.outputs, clipped)


def _is_float(graph: tflite.Subgraph, layer: Layer) -> bool:
    return all(graph.tensors[t].dtype == "float32" for t in (layer.weight, layer.bias) if t >= 0)


def _activation(op: tflite.Operator) -> int:
    if op.op in _POOLS:
        return op.options.number(_POOLS[op.op], "b") if op.options is not None else NONE
    return {"RELU6": 3}.get(op.op, NONE) or fused(op)


def _keeps_channels(parsed: tflite.Parsed, op: tflite.Operator, channels: int) -> bool:
    """Whether channels stay last, or become rows of equal channels."""
    tensors = parsed.main.tensors
    shape = tensors[op.outputs[0]].shape
    last = shape[-1] if shape else None
    if op.op in ("RESHAPE", "SQUEEZE"):
        return bool(last) and (last or 0) % channels == 0
    if op.op == "MEAN":
        rank, axes = len(tensors[op.inputs[0]].shape), tensors[op.inputs[1]]
        over = parsed.buffers[axes.buffer].view("<i4") if axes.constant else np.array([rank - 1])
        return last == channels and rank - 1 not in over % rank
    return last == channels


def _factors(pair: Pair, weights: Mapping[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """s = sqrt(r1 * r2) / r2 per channel; 1 for channels that are zero on one side."""
    first = np.abs(pair.first.grouped(weights[pair.first.index])).max(axis=2).reshape(-1)
    second = np.abs(_columns(pair, weights[pair.second.index])).max(axis=(0, 2))
    alive = (first > 0) & (second > 0)
    return np.asarray(np.sqrt(np.where(alive, first, 1) / np.where(alive, second, 1)), np.float64)


def _columns(pair: Pair, w: NDArray[Any]) -> NDArray[Any]:
    """A view [a, channels of the first, b] of the weights of the second."""
    channels = pair.first.outputs
    if pair.second.depthwise:
        return w.reshape(math.prod(w.shape[:3]), channels, -1)
    return w.reshape(-1, channels, 1)  # the channel is the last axis; behind a flattening it repeats


def _spread(s: NDArray[np.float64]) -> float:
    return float(s.max() / s.min())


def _even_out(pairs: list[Pair], weights: Weights) -> dict[int, NDArray[np.float64]]:
    """Rescale until nothing moves; what each first layer's channels were divided by, by operator."""
    total = {p.first.index: np.ones(p.first.outputs) for p in pairs}
    for _ in range(_ROUNDS):
        moved = 1.0
        for pair in pairs:
            s = _factors(pair, weights)
            a, b = pair.first, pair.second
            shape = [-1 if i == (3 if a.depthwise else 0) else 1 for i in range(len(a.shape))]
            weights[a.index] = weights[a.index] / s.reshape(shape)
            weights[b.index] = (_columns(pair, weights[b.index]) * s[None, :, None]).reshape(b.shape)
            total[a.index] = total[a.index] * s
            moved = max(moved, float(np.max(np.maximum(s, 1 / s))))
        if moved < 1.001:
            break
    return total


def _words(pair: Pair, spread: float) -> str:
    text = f"channels to {pair.second.name} differed {spread:.3g} times"
    return f"{text}; not equalized: {pair.clipped}" if pair.clipped else text
