"""Partial forward passes: the samples in chunks of one shape, run through a part of a graph on several threads."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError
from edgelathe.core.signature import NOT_NUMBERS
from edgelathe.model.run import batch_size, has_fixed_batch, one_line

if TYPE_CHECKING:
    import onnx

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]

CHUNK = 32  # samples that run at once where the model's batch is open
_SAME = 1e-3  # of the largest output: what a sample alone and among others may differ by


class Map:
    """A function of items, on the threads of a pool or on the thread that calls."""

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool

    def lazily(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the items, each as soon as those before it are there."""
        return map(function, items) if self._pool is None else self._pool.map(function, items)

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """All results."""
        return list(self.lazily(function, items))


class Chunks:
    """The samples in pieces of `size`, the last one filled up with copies of the last sample."""

    def __init__(self, data: Dataset, size: int, *, open_: bool = False) -> None:
        """`open_`: the model takes pieces of any size."""
        self._data, self.size, self.open = data, size, open_

    def __len__(self) -> int:
        return math.ceil(len(self._data) / self.size)

    @property
    def samples(self) -> int:
        """How many samples there are in all."""
        return len(self._data)

    def feed(self, at: int) -> Arrays:
        """The model's inputs [size, ...] of one piece, by name."""
        rows = np.minimum(np.arange(at * self.size, (at + 1) * self.size), len(self._data) - 1)
        return {k: np.ascontiguousarray(v[rows]) for k, v in self._data.inputs.items()}

    def count(self, at: int) -> int:
        """How many samples the piece holds; the rows of a result beyond these are copies."""
        return min(self.size, len(self._data) - at * self.size)


def chunks_of(model: Model, data: Dataset, most: int | None = None) -> Chunks:
    """The largest pieces that the model takes as it takes single samples: its fixed batch, `CHUNK` (or `most`), or 1.

    Raises UserError where it does not run on the first sample, or its outputs are not finite there.
    """
    for info in model.signature.outputs:
        if info.dtype in NOT_NUMBERS and info.dtype != "str":
            raise UserError(model.name, f"output '{info.name}' is no array ({info.dtype})", "export it without it")
    fixed = batch_size(model.signature)
    run = session(model.data, model.name)
    alone = Chunks(data, fixed)
    try:
        first = run(alone.feed(0))
    except UserError as e:
        raise UserError(data.name, e.what, "check the samples") from e
    for info, value in zip(model.signature.outputs, first, strict=True):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(data.name, f"output '{info.name}' is not finite", "check the preprocessing")
    size = min(CHUNK, len(data), most or CHUNK)
    if has_fixed_batch(model.signature) or size == 1:
        return alone
    several = Chunks(data, size, open_=True)
    with contextlib.suppress(UserError):  # the graph has a batch of its own inside
        if all(_agree(a, b) for a, b in zip(first, run(several.feed(0)), strict=True)):
            return several
    return alone


def _agree(one: NDArray[Any], many: NDArray[Any]) -> bool:
    """Whether the first sample among others gives what it gives alone."""
    if one.ndim == 0 or one.shape[1:] != many.shape[1:] or len(one) == len(many):
        return False
    if one.dtype.kind not in "fiub":  # text
        return np.array_equal(one[0], many[0])
    largest = float(np.abs(one).max(initial=0.0))
    return bool(np.allclose(one[0], many[0], rtol=0, atol=_SAME * max(largest, 1e-30)))


def session(data: bytes, name: str) -> Run:
    """A function from arrays by name to the list of outputs, on the thread that calls it. Raises UserError."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 4, 1, 1
    try:
        made = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises a dozen of its own kinds
        raise UserError(name, f"ONNX Runtime refuses it: {one_line(e)}", "check it with `edgelathe inspect`") from e

    def run(feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return list(made.run(None, dict(feed)))
        except Exception as e:
            raise UserError(name, f"ONNX Runtime fails to run it: {one_line(e)}", "check model and samples") from e

    return run


def serialized(proto: onnx.ModelProto) -> bytes:
    """The bytes of a part. Raises UserError above 2 GB, where there is no such message."""
    try:
        return bytes(proto.SerializeToString())
    except ValueError as e:
        raise UserError(proto.graph.name, f"too large for one message: {one_line(e)}", "split the model") from e


@contextlib.contextmanager
def workers(threads: int | None) -> Iterator[Map]:
    """A map on so many threads (None: as many as this process may use CPUs)."""
    count = threads or cpus()
    if count == 1:
        yield Map()
        return
    with ThreadPoolExecutor(count) as pool:
        yield Map(pool)


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
