"""A dataset as a value, and which labels its metric wants."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = NDArray[Any]

# Metric -> what its labels are: one class a sample, classes (one, or 0/1 per class), or real targets.
METRICS = {
    "top1": "class", "top5": "class", "balanced": "class", "f1": "classes", "auroc": "classes",
    "mae": "target", "rmse": "target", "cosine": "target",
}  # fmt: skip
OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Preprocessed samples in memory, as the model takes them.

    Attributes:
        name: the path that the user gave, for messages.
        inputs: an array [n, ...] per model input; before `bind` the only input may be called "".
        labels: [n] int64 classes, or [n, ...] float targets; None: agreement with the uncompressed model counts.
        metric: `top1 top5 balanced f1 auroc mae rmse cosine` or `module:function`.
        warnings: what looked odd while the data were read.
    """

    name: str
    inputs: Mapping[str, Array]
    labels: Array | None = None
    metric: str = "top1"
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @cached_property
    def sha256(self) -> str:
        """Hash of samples, labels and metric."""
        found = hashlib.sha256(self.metric.encode())
        arrays = [*sorted(self.inputs.items()), *([("labels", self.labels)] if self.labels is not None else [])]
        for name, array in arrays:
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def check_metric(metric: object, where: str) -> str:
    """The metric's name. Raises UserError with the nearest name for an unknown one."""
    if not isinstance(metric, str) or not (metric in METRICS or OWN.fullmatch(metric)):
        mend = nearest(str(metric), METRICS) + " Your own is written module:function"
        raise UserError(f"{where}: metric", f"unknown metric {metric!r}", mend)
    return metric


def fit_labels(labels: Array, metric: str, where: str) -> Array:
    """Labels as the metric wants them: int64 classes [n], 0/1 [n, k], or float64 targets. Raises UserError."""
    if labels.dtype.kind not in "biuf":
        raise UserError(where, f"labels are {_kind(labels)}, not numbers", "number the classes from 0")
    if labels.dtype.kind == "f":
        _check_finite(labels, where)
    kind = METRICS.get(metric)
    if kind is None:
        return labels
    if kind == "target":
        return labels.astype(np.float64)
    return _classes(labels, metric, kind, where)


def _classes(labels: Array, metric: str, kind: str, where: str) -> Array:
    whole = labels.astype(np.int64)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        at = int(np.flatnonzero((whole != labels).reshape(len(labels), -1).any(1))[0])
        raise UserError(
            where,
            f"labels are fractions (sample {at}: {labels[at].flat[0]:g}), metric {metric} wants class numbers",
            'give classes, or describe the data in a .toml with metric = "mae"',
        )
    if whole.ndim > 1 and whole[0].size == 1:
        whole = whole.reshape(len(whole))
    if whole.size and whole.min() < 0:
        at = int(np.flatnonzero((whole < 0).reshape(len(whole), -1).any(1))[0])
        raise UserError(where, f"label of sample {at} is {whole[at].min()}", "number the classes from 0")
    if whole.ndim == 2 and whole.max(initial=0) <= 1:
        if kind == "classes":
            return whole
        if (whole.sum(1) == 1).all():  # one-hot
            return np.asarray(whole.argmax(1), np.int64)
    if whole.ndim != 1:
        shape = "x".join(map(str, whole.shape))
        raise UserError(
            where, f"labels are {shape}, metric {metric} wants one class a sample", "give labels of shape [n]"
        )
    return whole


def _check_finite(labels: Array, where: str) -> None:
    bad = ~np.isfinite(labels).reshape(len(labels), -1).all(1)
    if bad.any():
        raise UserError(
            where, f"label of sample {int(bad.argmax())} is NaN or infinite", "remove that sample or mend it"
        )


def _kind(array: Array) -> str:
    return {"U": "text", "S": "bytes", "O": "Python objects", "M": "dates", "c": "complex"}.get(
        array.dtype.kind, str(array.dtype)
    )
