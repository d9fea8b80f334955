"""Inner values of an ONNX graph on calibration samples, a chunk at a time, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.model import cut_onnx, run
from edgelathe.model import onnx as onnx_model
from edgelathe.model.types import Model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.core.dataset import Dataset

_CHUNK = 32  # samples that run at once where the model's batch is open
_OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider", threads=2)


def chunks(
    model: ir.Model, values: Sequence[str], data: Dataset
) -> Iterator[tuple[slice, dict[str, NDArray[np.float32]]]]:
    """Chunk after chunk, which of the samples it is and the values by name; only nodes that they hang on are run.

    The first axis of a value counts samples, or whatever the graph has made of it, such as the tokens of all samples.

    A model's fixed batch is filled up with copies of the last sample, whose rows are cut off again.

    Raises UserError where the model does not run or a value is not finite.
    """
    names = list(dict.fromkeys(values))
    part = cut_onnx.upto(onnx_model.to_proto(onnx_model.from_ir(model, "part")), names)
    piece = Model("onnx", part.SerializeToString(), data.name, onnx_model.signature(part))
    call = run.session(piece, _OPTIONS)
    batch = run.batch_size(piece.signature)
    fixed = run.has_fixed_batch(piece.signature)
    size = batch if fixed else _CHUNK
    start = 0
    while start < len(data):
        count = min(size, len(data) - start)
        rows = np.minimum(np.arange(start, start + (size if fixed else count)), len(data) - 1)
        feed = {i.name: data.inputs[i.name][rows] for i in piece.signature.inputs}
        try:
            found = call(feed)
        except Exception as e:
            if size > batch:  # the graph has a batch of its own inside
                size = batch
                continue
            raise UserError(data.name, f"the model does not run on it: {run.one_line(e)}", "check the samples") from e
        out: dict[str, Any] = dict(zip(names, found, strict=True))
        for name, value in out.items():
            if not np.isfinite(value).all():
                raise UserError(data.name, f"value '{name}' is not finite on these samples", "check the preprocessing")
        kept = {n: v[: len(v) * count // size] for n, v in out.items()} if fixed else out
        yield slice(start, start + count), kept
        start += count
