"""One streaming pass over the calibration samples: what values each tensor takes, in memory of constant size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate import histogram
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.run import batch_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.calibrate.histogram import Histogram
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

GROUP_BYTES = 256_000_000  # of captured tensors at a time
# Values that enter histograms, of all tensors and samples together, and at least of each; ranges and means see all.
_COUNTED, _COUNTED_EACH = 1 << 26, 1 << 11


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one tensor held over all samples: exact range, histogram, mean per channel and its shape at batch 1.

    `mean` is float64 [channels] along the axis that was asked for, None where none was.
    """

    name: str
    low: float
    high: float
    histogram: Histogram
    shape: tuple[int, ...]
    mean: NDArray[np.float64] | None = None


def collect(model: Model, data: Dataset, tensors: Mapping[str, int | None]) -> dict[str, Statistics]:
    """Statistics of `tensors` while the model runs on every sample of `data`.

    Args:
        model: an ONNX model.
        data: samples bound to its inputs, by name.
        tensors: names of float32 tensors of the main graph (inputs too); the axis along which their means are taken.

    Tensors are captured in groups of at most `GROUP_BYTES`, each group in one run of the model over all samples.
    Raises UserError where a tensor is not finite, or the model does not run.
    """
    out: dict[str, Statistics] = {}
    counted = max(_COUNTED_EACH, _COUNTED // max(1, len(data) * len(tensors)))
    for group in _groups(model, data, list(tensors)):
        run = _capture(model, group)
        gathered = {name: _Gather(name, tensors[name], counted) for name in group}
        for index, feed in enumerate(_feeds(model, data)):
            for name, values in run(feed).items():
                gathered[name].add(values, f"{data.name}: sample {index}")
        out |= {name: g.result() for name, g in gathered.items()}
    return {name: out[name] for name in tensors}


class _Gather:
    """The running statistics of one tensor."""

    def __init__(self, name: str, axis: int | None, counted: int) -> None:
        self._name, self._axis, self._counted = name, axis, counted
        self._low, self._high, self._samples = math.inf, -math.inf, 0
        self._histogram, self._sum = histogram.EMPTY, np.zeros(0)
        self._shape: tuple[int, ...] = ()

    def add(self, values: NDArray[np.float32], where: str) -> None:
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(where, f"tensor '{self._name}' is not finite", "check preprocessing and the float model")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._histogram = histogram.extend(self._histogram, thin(values, self._counted))
        self._shape, self._samples = values.shape, self._samples + 1
        if self._axis is not None and values.ndim:
            axes = tuple(i for i in range(values.ndim) if i != self._axis % values.ndim)
            mean = values.mean(axis=axes, dtype=np.float32 if values.size < 1 << 20 else np.float64).astype(np.float64)
            self._sum = mean if self._samples == 1 else self._sum + mean

    def result(self) -> Statistics:
        low, high = (self._low, self._high) if self._samples else (0.0, 0.0)
        mean = self._sum / self._samples if self._samples and len(self._sum) else None
        return Statistics(self._name, low, high, self._histogram, self._shape, mean)


def thin(values: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most so many of the values: every k-th, k prime to the size so that no row or channel is missed."""
    flat = values.reshape(-1)
    if flat.size <= most:
        return flat
    step = -(-flat.size // most)
    while math.gcd(step, flat.size) != 1:
        step += 1
    return flat[::step]


def _feeds(model: Model, data: Dataset) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs sample by sample, or in the model's fixed batch filled up with copies of the last sample."""
    batch, n = batch_size(model.signature), len(data)
    for start in range(0, n, batch):
        rows = np.minimum(np.arange(start, start + batch), n - 1)
        yield {k: np.ascontiguousarray(v[rows]) for k, v in data.inputs.items()}


def _capture(model: Model, names: Sequence[str]) -> Callable[[Mapping[str, Any]], dict[str, NDArray[np.float32]]]:
    """A function that runs the model and gives these tensors: the graph's outputs are replaced by them."""
    import onnx
    import onnxruntime as ort

    proto = onnx_model.to_proto(model)
    given = {i.name for i in model.signature.inputs}
    inner = [n for n in names if n not in given]
    wanted = {o.name: o for o in proto.graph.output}
    del proto.graph.output[:]
    unknown = onnx.helper.make_empty_tensor_value_info
    proto.graph.output.extend([wanted[n] if n in wanted else unknown(n) for n in inner] or list(wanted.values()))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises a dozen of its own kinds
        raise UserError(
            model.name, f"cannot be run for calibration: {e}", "check it with `edgelathe inspect`"
        ) from None

    def run(feed: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        out = dict(zip(inner, session.run(inner, dict(feed)), strict=True)) if inner else {}
        return {n: feed[n] if n in given else out[n] for n in names}

    return run


def _groups(model: Model, data: Dataset, names: list[str]) -> Iterator[list[str]]:
    """The tensors in their order, cut where the bytes of one sample's would pass `GROUP_BYTES`."""
    sizes, used = _sizes(model, data), 0
    group: list[str] = []
    for name in names:
        size = sizes.get(name, GROUP_BYTES // 16)
        if group and used + size > GROUP_BYTES:
            yield group
            group, used = [], 0
        group.append(name)
        used += size
    if group:
        yield group


def _sizes(model: Model, data: Dataset) -> dict[str, int]:
    """Bytes of the model's tensors for one sample, where shape inference knows them."""
    import onnx

    proto, batch = onnx_model.to_proto(model), batch_size(model.signature)
    for value in proto.graph.input:
        if value.name in data.inputs:
            shape = (batch, *data.inputs[value.name].shape[1:])
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    del proto.graph.value_info[:]
    out = {}
    for value in onnx.shape_inference.infer_shapes(proto).graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            out[value.name] = 4 * math.prod(d.dim_value for d in dims)
    return out
