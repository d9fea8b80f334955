"""One streaming pass over the calibration samples: what values each tensor takes, in memory of constant size."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate import cache, statistics
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.run import batch_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.calibrate.statistics import Statistics
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

GROUP_BYTES = 128_000_000  # of captured tensors at a time; two samples' worth is held


def collect(model: Model, data: Dataset, tensors: Mapping[str, int | None]) -> dict[str, Statistics]:
    """Statistics of `tensors` while the model runs on every sample of `data`; those in the cache are not run again.

    Args:
        model: an ONNX model.
        data: samples bound to its inputs, by name.
        tensors: names of float32 tensors of the main graph (inputs too); the axis that counts channels, None for none.

    Tensors are captured in groups of at most `GROUP_BYTES`, each group in one run of the model over all samples; what
    is held does not grow with the number of samples. Raises UserError where a tensor is not finite, or the model does
    not run.
    """
    with cache.opened(cache.key(model, data)) as known:
        missing = {name: axis for name, axis in tensors.items() if not _serves(known.statistics.get(name), axis)}
        known.statistics.update(gather(model, data, missing))
        return {name: known.statistics[name] for name in tensors}


def gather(model: Model, data: Dataset, tensors: Mapping[str, int | None]) -> dict[str, Statistics]:
    """As `collect`, always by running the model."""
    out = {name: statistics.nothing(name) for name in tensors}
    for group in _groups(model, data, list(tensors)):
        run = capture(model, group)
        # The next sample runs while this one is counted: both leave Python's lock.
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for index, feed in enumerate(itertools.chain(_feeds(model, data), [None])):
                after = pool.submit(run, feed) if feed is not None else None
                if ahead is not None:
                    for name, values in ahead.result().items():
                        out[name] = _add(out[name], values, tensors[name], f"{data.name}: sample {index - 1}")
                ahead = after
    return out


def _serves(found: Statistics | None, axis: int | None) -> bool:
    """Whether cached statistics have what is asked for."""
    if found is None or axis is None:
        return found is not None
    rank = len(found.shape)
    return not rank or (found.channels is not None and found.channels.axis == axis % rank)


def _add(sofar: Statistics, values: NDArray[np.float32], axis: int | None, where: str) -> Statistics:
    try:
        return statistics.merge(sofar, statistics.of(sofar.name, values, axis))
    except ValueError as e:
        raise UserError(where, str(e), "check preprocessing and the float model") from None


def _feeds(model: Model, data: Dataset) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs sample by sample, or in the model's fixed batch filled up with copies of the last sample."""
    batch, n = batch_size(model.signature), len(data)
    for start in range(0, n, batch):
        rows = np.minimum(np.arange(start, start + batch), n - 1)
        yield {k: np.ascontiguousarray(v[rows]) for k, v in data.inputs.items()}


def capture(model: Model, names: Sequence[str]) -> Callable[[Mapping[str, Any]], dict[str, NDArray[np.float32]]]:
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
