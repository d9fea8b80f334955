"""The model's inputs replaced by representatives: rounded to levels, each level looked up in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph.moves import Names, constant
from edgelathe.compress.types import Note
from edgelathe.compress.weights import representatives

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weight_only.codebook import Options
    from edgelathe.core.dataset import Dataset

_STEPS = 255  # of the range of an input: those of an image in bytes
_MOST = 1 << 16  # levels of an input's range
_SEEN = 1 << 22  # values that are counted, spread over all samples


def replace(graph: ir.Graph, names: Names, options: Options, data: Dataset) -> list[Note]:
    """Put the replacement behind every float32 input of the graph; notes say what each became."""
    import onnx_ir as ir

    notes = []
    for value in graph.inputs:
        if value.dtype != ir.DataType.FLOAT or not value.uses() or str(value.name) not in data.inputs:
            notes.append(Note(str(value.name), False, "input: no float32 values that are read"))
            continue
        x = data.inputs[str(value.name)].reshape(-1)
        low, step, table = levels(x[:: max(1, x.size // _SEEN)].astype(np.float64), options)
        _insert(graph, names, value, low, step, table)
        different = len(np.unique(table))
        what = f"input: {different} values in {table[0]:.4g} to {table[-1]:.4g}, step {step:.3g}"
        notes.append(Note(str(value.name), True, what))
    return notes


def levels(x: NDArray[np.float64], options: Options) -> tuple[int, float, NDArray[np.float32]]:
    """The lowest level, the step, and what each level from there on is replaced by, float32 [levels].

    Inputs need not lie around zero, so the default step is a 255th of what they span.
    """
    if options.range is not None:
        x = np.clip(x, -options.range, options.range)
    span = float(x.max() - x.min())
    step = options.step or (span / _STEPS if span > 0 else 1.0)
    step = max(step, span / _MOST)
    found = np.rint(x / step).astype(np.int64)
    low, count = int(found.min()), int(found.max() - found.min()) + 1
    counts = np.bincount(found - low, minlength=count).astype(np.float64)
    if options.by == "frequency":
        wide = np.pad(counts, (0, max(0, options.entries - count)))[None]
        kept = representatives.by_frequency(wide, options.entries)[0]
    else:
        kept = np.rint(representatives.by_kmeans(counts, options.entries))
    kept = np.unique(kept[kept < count]).astype(np.float64)
    near = representatives.nearest(np.arange(count, dtype=np.float64), kept)
    return low, step, ((kept[near] + low) * step).astype(np.float32)


def _insert(graph: ir.Graph, names: Names, value: ir.Value, low: int, step: float, table: NDArray[np.float32]) -> None:
    """table[clip(round(x / step), low, high) - low]."""
    import onnx_ir as ir

    uses = list(value.uses())
    first = graph[0]
    high = low + len(table) - 1

    def node(op: str, *inputs: ir.Value | NDArray[np.float32], **attributes: object) -> ir.Value:
        values = [constant(graph, v, names()) if isinstance(v, np.ndarray) else v for v in inputs]
        made = ir.node(op, values, attributes, name=names())
        made.outputs[0].name = names()
        graph.insert_before(first, made)
        return made.outputs[0]

    level = node("Round", node("Div", value, np.array(step, np.float32)))
    level = node("Clip", level, np.array(low, np.float32), np.array(high, np.float32))
    place = node("Cast", node("Sub", level, np.array(low, np.float32)), to=ir.DataType.INT32)
    out = node("Gather", constant(graph, table, names()), place)
    out.shape, out.type = value.shape, value.type
    for use in uses:
        use.node.replace_input_with(use.idx, out)
