"""A TFLite graph run forward over the samples, stretch by stretch: what lies behind is never run again.

The counterpart of `frontier` for ONNX: per run it keeps the values that operators ahead still read. Constants of
operators ahead may be changed between two moves. The plain kernels compute, without XNNPACK: they are exact integers.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError
from edgelathe.model import run, tflite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgelathe.compress.tflite.file import File
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

Array = NDArray[Any]
Values = dict[int, Array]
_MAKING = threading.Lock()  # what is hushed, and warnings, are the process's


class Frontier:
    """One graph on one set of runs, computed up to some operator."""

    def __init__(
        self, file: File, graph: tflite.Subgraph, feeds: Sequence[Mapping[int, NDArray[Any]]], where: str
    ) -> None:
        """`graph`: what `file` holds; `feeds`: the inputs of each run by tensor; `where`: the data's name in errors."""
        self._file, self._graph, self._where = file, graph, where
        self._live: list[Values] = [dict(f) for f in feeds]
        self._at = 0
        self._last = _last_readers(graph)
        self._moves = _depends(graph)

    def advance(self, operator: int) -> None:
        """Compute all that stands before an operator. Raises UserError where a real value is not finite."""
        stretch = [i for i in range(self._at, operator) if self._moves[i]]
        self._at = max(self._at, operator)
        if not stretch:
            return
        made = {t for i in stretch for t in self._graph.operators[i].outputs}
        outputs = sorted(t for t in made if self._last.get(t, -1) >= self._at)
        read = {t for i in stretch for t in self._graph.operators[i].inputs} - made
        inputs = sorted(t for t in read if t in self._live[0])
        data = self._file.part([*self._unpacking(stretch), *stretch], inputs, outputs)
        call = interpreter(data, inputs, outputs)
        for live in self._live:
            live.update(zip(outputs, call([live[t] for t in inputs]), strict=True))
            for t in [t for t in live if self._last.get(t, -1) < self._at]:
                del live[t]
            for t in outputs:
                if live[t].dtype.kind == "f" and not np.isfinite(live[t]).all():
                    what = f"tensor '{self._graph.tensors[t].name}' is not finite on these samples"
                    raise UserError(self._where, what, "check the preprocessing and the float model")

    def has(self, tensor: int) -> bool:
        """Whether a tensor is computed and still kept."""
        return tensor in self._live[0]

    def real(self, tensor: int) -> Iterator[NDArray[np.float32]]:
        """The tensor of each run, as real numbers."""
        t = self._graph.tensors[tensor]
        for live in self._live:
            yield restored(live[tensor], t)

    def _unpacking(self, stretch: Sequence[int]) -> list[int]:
        """Operators of any place that only make constants for the stretch, in order."""
        source = {t: i for i, op in enumerate(self._graph.operators) if not self._moves[i] for t in op.outputs}
        found: set[int] = set()
        todo = [t for i in stretch for t in self._graph.operators[i].inputs]
        while todo:
            i = source.get(todo.pop())
            if i is not None and i not in found:
                found.add(i)
                todo += self._graph.operators[i].inputs
        return sorted(found)


def feeds(model: Model, data: Dataset, rows: NDArray[np.int64] | None = None) -> Iterator[dict[int, NDArray[Any]]]:
    """Inputs of run after run by tensor: one sample each, or the model's fixed batch, filled up with the last one.

    `rows`: numbers of the samples, None: all.
    """
    graph, batch = tflite.parse(model.data).main, run.batch_size(model.signature)
    chosen = np.arange(len(data)) if rows is None else rows
    for start in range(0, len(chosen), batch):
        some = chosen[np.minimum(np.arange(start, start + batch), len(chosen) - 1)]
        yield {
            t: np.ascontiguousarray(data.inputs[i.name][some])
            for t, i in zip(graph.inputs, model.signature.inputs, strict=True)
        }


def restored(values: NDArray[Any], tensor: tflite.Tensor) -> NDArray[np.float32]:
    """Integers of one scale as the reals that they stand for; reals as they are."""
    if not tensor.scales or values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    zero = tensor.zero_points[0] if tensor.zero_points else 0
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(tensor.scales[0])


def ends(tensor: tflite.Tensor) -> tuple[float, float]:
    """The least and greatest real that integers of one scale stand for; infinite for reals."""
    if not tensor.scales or tensor.dtype.startswith("float"):
        return -np.inf, np.inf
    limits, zero = np.iinfo(tensor.dtype), tensor.zero_points[0] if tensor.zero_points else 0
    return (int(limits.min) - zero) * tensor.scales[0], (int(limits.max) - zero) * tensor.scales[0]


def interpreter(
    data: bytes, inputs: Sequence[int], outputs: Sequence[int], *, keep: bool = False, plain: bool = True
) -> Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]:
    """A function from inputs to outputs of a file by tensor numbers.

    `keep`: inner tensors are kept for reading. `plain`: without XNNPACK, else with it, as `eval` runs a file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = OpResolverType
    with _MAKING, run.hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that keeping all tensors takes memory
        made = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else kinds.BUILTIN,
            experimental_preserve_all_tensors=keep,
        )
        made.allocate_tensors()
    shapes = {d["index"]: tuple(d["shape"]) for d in made.get_input_details()}

    def call(values: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        other = [(t, v.shape) for t, v in zip(inputs, values, strict=True) if v.shape != shapes[t]]
        for t, shape in other:  # an open axis
            made.resize_tensor_input(t, shape)
            shapes[t] = shape
        if other:
            made.allocate_tensors()
        for t, v in zip(inputs, values, strict=True):
            made.set_tensor(t, v)
        made.invoke()
        return [made.get_tensor(t) for t in outputs]

    return call


def _last_readers(graph: tflite.Subgraph) -> dict[int, int]:
    """The last operator that reads each tensor; one past the end for outputs of the graph."""
    last = {t: i for i, op in enumerate(graph.operators) for t in op.inputs if t >= 0}
    return last | dict.fromkeys(graph.outputs, len(graph.operators))


def _depends(graph: tflite.Subgraph) -> list[bool]:
    """Whether each operator depends on an input of the graph."""
    live, out = set(graph.inputs), []
    for op in graph.operators:
        out.append(bool(live.intersection(op.inputs)))
        if out[-1]:
            live.update(op.outputs)
    return out
