"""Whether labels fit a model's outputs: `check(labels, outputs, where)` raises UserError starting with `where`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError
from edgelathe.stats.scores import flat

Array = NDArray[np.generic]


def check_classes(labels: Array, outputs: Array, where: str) -> None:
    """Labels [n] or [n, 1] are integers from 0 below the number of outputs, of which there are two at least."""
    k = flat(outputs).shape[1]
    if k < 2:
        raise UserError(
            where, "the model gives one output per sample, classes need two", "use metric auroc, mae or rmse"
        )
    _whole(labels, outputs, where, k)


def check_top5(labels: Array, outputs: Array, where: str) -> None:
    """As `check_classes`, with more than five classes."""
    k = flat(outputs).shape[1]
    if k <= 5:
        raise UserError(where, f"top5 of {k} classes is always 1", "use metric top1")
    check_classes(labels, outputs, where)


def check_ranking(labels: Array, outputs: Array, where: str) -> None:
    """As `check_classes`, but one output is enough, and two classes must occur."""
    _whole(labels, outputs, where, max(2, flat(outputs).shape[1]))
    if len(np.unique(labels)) < 2:
        raise UserError(where, "the labels hold one class only", "auroc needs samples of two classes at least")


def check_targets(labels: Array, outputs: Array, where: str) -> None:
    """Targets have the outputs' number of values per sample, all finite."""
    _numbers(labels, where)
    want, have = flat(outputs).shape, flat(labels).shape
    if want != have:
        raise UserError(
            where, f"labels {labels.shape} do not fit outputs {outputs.shape}", "give a target per output value"
        )
    if not np.isfinite(labels.astype(np.float64)).all():
        raise UserError(where, "labels hold NaN or infinity", "clean the targets")


def _whole(labels: Array, outputs: Array, where: str, k: int) -> None:
    _numbers(labels, where)
    if labels.size != len(outputs) or len(labels) != len(outputs):
        raise UserError(where, f"labels {labels.shape} for {len(outputs)} samples", "give one class per sample")
    values = labels.reshape(-1).astype(np.float64)
    if not (values == np.floor(values)).all():
        raise UserError(
            where, "labels are no whole numbers", "give classes, or use a metric for targets: mae rmse cosine"
        )
    wrong = (values < 0) | (values >= k)
    if wrong.any():
        at = int(wrong.argmax())
        raise UserError(
            where,
            f"label {values[at]:.0f} of sample {at} is outside 0..{k - 1}",
            "number the classes as the model does",
        )


def _numbers(labels: Array, where: str) -> None:
    if labels.dtype.kind not in "biuf":
        raise UserError(where, f"labels of type {labels.dtype} are no numbers", "store them as integers or floats")


def check_nothing(_labels: Array, _outputs: Array, _where: str) -> None:
    """A user's metric checks for itself."""
