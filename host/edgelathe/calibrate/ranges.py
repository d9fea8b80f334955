"""One streaming pass over the calibration samples: what values each tensor takes, in memory of constant size."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.calibrate import cache, probes, statistics
from edgelathe.calibrate.probes import Probe
from edgelathe.calibrate.statistics import Statistics
from edgelathe.core.errors import UserError
from edgelathe.core.memory import give_back, returning
from edgelathe.model import aside
from edgelathe.model import onnx as onnx_model
from edgelathe.model.run import batch_size, one_line, open_onnx

if TYPE_CHECKING:
    import onnx

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

WHOLE_AT_ONCE = 16  # tensors of unknown shape that leave the runtime in one pass
_LARGE = 4_000_000  # bytes of a model; a smaller one is not worth a file
_LIGHT = 1024  # bytes; a larger constant says nothing of shapes

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], dict[str, NDArray[Any]]]
Readers = dict[str, Callable[[Arrays], Statistics]]


def collect(model: Model, data: Dataset, tensors: Mapping[str, int | None]) -> dict[str, Statistics]:
    """Statistics of `tensors` while the model runs on every sample of `data`; those in the cache are not run again.

    Args:
        model: an ONNX model.
        data: samples bound to its inputs, by name.
        tensors: names of float32 tensors of the main graph (inputs too); the axis that counts channels, None for none.

    Where a tensor's shape is known the graph computes them itself (see `probes`); the others are looked at whole, a few
    in each run of the model over all samples. What is held does not grow with the number of samples. Raises UserError
    where a tensor is not finite, or the model does not run.
    """
    with cache.opened(cache.key(model, data)) as known:
        missing = {name: axis for name, axis in tensors.items() if not _serves(known.statistics.get(name), axis)}
        known.statistics.update(gather(model, data, missing))
        return {name: known.statistics[name] for name in tensors}


def gather(model: Model, data: Dataset, tensors: Mapping[str, int | None]) -> dict[str, Statistics]:
    """As `collect`, always by running the model."""
    out = {name: statistics.nothing(name) for name in tensors}
    for run, readers in _passes(model, data, tensors):
        give_back()  # what making the session took

        def count(index: int, found: Arrays, readers: Readers = readers) -> None:
            for name, read in readers.items():
                out[name] = _add(out[name], read, found, f"{data.name}: sample {index}")

        # The next sample runs while this one is counted: both leave Python's lock. It runs on this thread, since the
        # allocator keeps what another one has freed.
        with ThreadPoolExecutor(1) as pool:
            counted: Future[None] | None = None
            for index, feed in enumerate(_feeds(model, data)):
                try:
                    found = run(feed)
                finally:
                    if counted is not None:
                        counted.result()  # of several errors that of the first sample counts
                counted = pool.submit(count, index, found)
                del found
            if counted is not None:
                counted.result()
        del run, counted
        give_back()
    return out


def capture(model: Model, names: Sequence[str]) -> Run:
    """A function that runs the model and gives these tensors, inputs among them."""
    import onnx

    given = {i.name for i in model.signature.inputs}
    return _runner(model, onnx.GraphProto(), [n for n in names if n not in given])


def _serves(found: Statistics | None, axis: int | None) -> bool:
    """Whether cached statistics have what is asked for."""
    if found is None or axis is None:
        return found is not None
    rank = len(found.shape)
    return not rank or (found.channels is not None and found.channels.axis == axis % rank)


def _passes(model: Model, data: Dataset, tensors: Mapping[str, int | None]) -> Iterator[tuple[Run, Readers]]:
    """What runs over all samples, one after the other, and what reads statistics from each run's tensors."""
    if not tensors:
        return
    given = [i.name for i in model.signature.inputs if i.name in tensors]
    light = _light(model)
    opset = onnx_model.opsets(light).get("", 1)
    shapes = _shapes(light, batch_size(model.signature), data) if opset >= probes.OPSET else {}
    del light  # what is cleared of it goes with it only
    give_back()
    # The runtime starts from what nothing reads, latest first: that has to be the probes of the first tensors, or all
    # values wait for theirs.
    asked = [_probe(name, shapes[name], tensors[name]) for name in reversed(shapes) if name in tensors]
    whole = [name for name in tensors if name not in shapes and name not in given]
    for start in range(0, len(whole) or 1, WHOLE_AT_ONCE):
        some, probed = whole[start : start + WHOLE_AT_ONCE], asked if not start else []
        # In the graph's order: of several tensors that are not finite, the first one is named.
        readers: Readers = {name: partial(_look, name, tensors[name]) for name in (given if not start else ())}
        readers |= {p.tensor: partial(probes.read, p) for p in reversed(probed)}
        readers |= {name: partial(_look, name, tensors[name]) for name in some}
        yield _runner(model, probes.beside(probed, opset), some), readers


def _probe(name: str, shape: tuple[int, ...], axis: int | None) -> Probe:
    return Probe(name, shape, axis % len(shape) if axis is not None and shape else None)


def _look(name: str, axis: int | None, found: Arrays) -> Statistics:
    return statistics.of(name, found[name], axis)


def _add(sofar: Statistics, read: Callable[[Arrays], Statistics], found: Arrays, where: str) -> Statistics:
    try:
        return statistics.merge(sofar, read(found))
    except ValueError as e:
        raise UserError(where, str(e), "check preprocessing and the float model") from None


def _feeds(model: Model, data: Dataset) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs sample by sample, or in the model's fixed batch filled up with copies of the last sample."""
    batch, n = batch_size(model.signature), len(data)
    for start in range(0, n, batch):
        rows = np.minimum(np.arange(start, start + batch), n - 1)
        yield {k: np.ascontiguousarray(v[rows]) for k, v in data.inputs.items()}


def _runner(model: Model, extra: onnx.GraphProto, whole: Sequence[str]) -> Run:
    """Runs the model with `extra` merged into its graph; gives what goes in, the outputs of `extra` and `whole`.

    Messages that follow one another in one string are merged, lists joined (protobuf's encoding): the model, which may
    be large, need not be taken apart for that.
    """
    import onnx
    import onnxruntime as ort

    names, have = [*(o.name for o in extra.output), *whole], {o.name for o in model.signature.outputs}
    if not names:
        return dict
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # A tensor that was reduced is given back at once; an arena would keep the largest sum that there ever was, doubled.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.intra_op_num_threads = 1
    addition = onnx.ModelProto()
    addition.graph.CopyFrom(extra)
    addition.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in whole if n not in have)
    try:
        with returning():
            session = _open(model, addition.SerializeToString(), options)
    except Exception as e:  # onnxruntime raises a dozen of its own kinds
        raise UserError(
            model.name, f"cannot be run for calibration: {one_line(e)}", "check it with `edgelathe inspect`"
        ) from None

    def run(feed: Arrays) -> dict[str, NDArray[Any]]:
        try:
            return {**feed, **dict(zip(names, session.run(names, dict(feed)), strict=True))}
        except Exception as e:  # as above; samples in a wrong layout come this far where the model's shapes are open
            shapes = ", ".join(f"'{name}' {'x'.join(map(str, value.shape))}" for name, value in feed.items())
            what = f"fails to run on calibration samples ({shapes}): {one_line(e)}"
            raise UserError(model.name, what, "check names, layout and shapes of the samples") from None

    return run


def _open(model: Model, addition: bytes, options: Any) -> Any:
    """A session on both messages merged. From a file it takes one copy of the weights less than from bytes."""
    import onnxruntime as ort

    providers = ["CPUExecutionProvider"]
    if len(model.data) > _LARGE and model.external is None:
        with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(suffix=".onnx") as file:  # a disk may be full
            file.writelines((model.data, addition))
            file.flush()
            return ort.InferenceSession(file.name, options, providers=providers)
    return open_onnx(replace(model, data=model.data + addition), options, providers)


def _shapes(proto: onnx.ModelProto, batch: int, data: Dataset) -> dict[str, tuple[int, ...]]:
    """Shapes of the inner float32 tensors for one run, where inference knows them and they are not empty."""
    import onnx

    for value in proto.graph.input:
        if value.name in data.inputs:
            shape = (batch, *data.inputs[value.name].shape[1:])
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    graph = onnx.shape_inference.infer_shapes(proto).graph
    out = {}
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = [d.dim_value for d in kind.shape.dim if d.HasField("dim_value")]
        known = kind.HasField("shape") and len(dims) == len(kind.shape.dim) and all(dims)
        if known and kind.elem_type == onnx.TensorProto.FLOAT:
            out[value.name] = tuple(dims)
    return out


def _light(model: Model) -> onnx.ModelProto:
    """The model without its large constants and without the shapes that its file claims."""
    proto, _ = aside.parse(model.data)
    for tensor in proto.graph.initializer:
        if tensor.ByteSize() > _LIGHT:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
    del proto.graph.value_info[:]
    for output in proto.graph.output:  # with the open batch that the file has
        output.type.tensor_type.ClearField("shape")
    return proto
