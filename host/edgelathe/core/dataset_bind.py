"""A dataset's arrays as one model's inputs take them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.dataset_types import METRICS, Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.preprocess import BLOCK
from edgelathe.core.signature import NOT_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgelathe.core.dataset_types import Array
    from edgelathe.core.signature import Signature, TensorInfo


def bind(dataset: Dataset, signature: Signature, where: object = "the model") -> Dataset:
    """Arrays by model input name in the inputs' dtypes, shapes and labels checked. `where` names the model in messages.

    Stored numbers are cast to a float input unchanged; for an integer input with a scale the same float values go
    through `round(v / scale) + zero_point`, clipped. Raises UserError.
    """
    for info in signature.inputs:
        check_numbers(info, where)
    inputs = {
        info.name: _cast(_find(dataset, signature, info), info, dataset.name, str(where)) for info in signature.inputs
    }
    lengths = {k: len(v) for k, v in inputs.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"'{k}' has {n}" for k, n in lengths.items())
        raise UserError(dataset.name, f"unequal numbers of samples: {text}", "give every input as many")
    notes = [note for i in signature.inputs for note in _outside(_find(dataset, signature, i), i, dataset.name)]
    bound = replace(dataset, inputs=inputs, warnings=(*dataset.warnings, *notes))
    if signature.outputs:
        check_labels(bound, _classes(signature.outputs[0]))
    return bound


def check_labels(dataset: Dataset, classes: int | None) -> None:
    """Class labels lie in 0..classes-1 (None: unknown), or UserError names the first sample whose label does not."""
    labels = dataset.labels
    if labels is None or labels.ndim != 1 or METRICS.get(dataset.metric) not in ("class", "classes") or not len(labels):
        return
    limit = 2 if classes == 1 else classes  # one output tells two classes apart
    bad = labels < 0 if limit is None else (labels < 0) | (labels >= limit)
    if bad.any():
        at = int(bad.argmax())
        known = "" if limit is None else f", the model has classes 0 to {limit - 1}"
        raise UserError(
            dataset.name, f"label of sample {at} is {labels[at]}{known}", "give the labels of this model, from 0"
        )


def check_numbers(info: TensorInfo, where: object) -> None:
    """Raises UserError where an input of the model `where` takes something else than an array of numbers."""
    if info.dtype in NOT_NUMBERS:
        what = {"str": "text", "undefined": "an undefined type"}.get(info.dtype, f"a value of type {info.dtype}")
        mend = "export the model so that it begins at arrays of numbers"
        raise UserError(where, f"input '{info.name}' takes {what}, which no data can be given for", mend)


def check_answer(info: TensorInfo, where: object) -> None:
    """Raises UserError where an output of the model `where` is something else than an array of numbers."""
    if info.dtype in NOT_NUMBERS:
        what = f"output '{info.name}' is no array of numbers ({info.dtype.replace('str', 'text')})"
        raise UserError(where, what, "export the model without it")


def no_samples_axis(info: TensorInfo, where: object) -> UserError:
    """The error of an input of the model `where` whose axes are all those of one sample."""
    lacking = f"is one sample ({_text(info.shape)})" if info.shape else "is a single number for all samples"
    mend = "export the model with a batch axis before its others"
    return UserError(where, f"input '{info.name}' {lacking}: it has no axis of samples", mend)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of so many samples, int64 indices spread evenly over them, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def take(dataset: Dataset, indices: Sequence[int] | Array) -> Dataset:
    """The samples at these indices, in this order, with their labels; those that follow one another are not copied."""
    rows = np.asarray(indices, np.int64)
    n = len(dataset)
    some: Any = rows
    if rows.size and rows[0] >= 0 and rows[-1] < n and (np.diff(rows) == 1).all():
        some = slice(int(rows[0]), int(rows[-1]) + 1)
    inputs = {k: v[some] for k, v in dataset.inputs.items() if len(v) == n}
    return replace(dataset, inputs=inputs, labels=None if dataset.labels is None else dataset.labels[some])


def _find(dataset: Dataset, signature: Signature, info: TensorInfo) -> Array:
    have = dataset.inputs
    names = [info.name, *(["", "x"] if len(signature.inputs) == 1 else [])]
    for name in names:
        if name in have:
            return have[name]
    if len(signature.inputs) == 1 and len(have) == 1 and dataset.name.endswith(".toml"):
        what = f"`inputs` names '{next(iter(have))}', the model's input is '{info.name}'"
        raise UserError(dataset.name, what, "leave `inputs` out, or give it that name")
    listed = ", ".join(n or "one without a name" for n in have)
    mend = f'name it x, or describe the data in a .toml with inputs = {{ "{info.name}" = "..." }}'
    if len(signature.inputs) > 1:
        mend = "name the arrays like the inputs, or map them under `inputs` in a .toml"
    raise UserError(dataset.name, f"no array for the model's input '{info.name}' (arrays: {listed})", mend)


def _cast(stored: Array, info: TensorInfo, name: str, where: str) -> Array:
    _check_shape(stored, info, name, where)
    target = _dtype(info.dtype)
    if stored.dtype == target and info.scale is None:
        return stored
    out = np.empty(stored.shape, target)
    step = max(1, BLOCK // max(1, stored[0].size))
    for start in range(0, len(stored), step):
        out[start : start + step] = _block(stored[start : start + step], info, target, name, start)
    return out


def _block(values: Array, info: TensorInfo, target: np.dtype[Any], name: str, start: int) -> Array:
    if target.kind not in "iu":
        with np.errstate(over="ignore"):  # told below, by sample
            cast: Array = values.astype(target)
        if target.itemsize < values.dtype.itemsize and values.dtype.kind == "f":
            bad = ~np.isfinite(cast).reshape(len(cast), -1).all(1)
            if bad.any():
                what = f"sample {start + int(bad.argmax())} has a value that {info.dtype} cannot hold"
                raise UserError(name, what, "scale the data under [preprocess]")
        return cast
    limits = np.iinfo(target)
    if info.scale is not None:
        real = np.round(values.astype(np.float32) / np.float32(info.scale)) + (info.zero_point or 0)
        clipped: Array = np.clip(real, limits.min, limits.max).astype(target)
        return clipped
    if values.dtype.kind == "f" and not np.array_equal(values, np.trunc(values)):
        what = f"the data are fractions, the model's input '{info.name}' takes {info.dtype}"
        raise UserError(name, what, "give whole numbers, and no mean or std under [preprocess]")
    if values.min() < limits.min or values.max() > limits.max:
        what = f"values {values.min():g} to {values.max():g} do not fit {info.dtype} of the model's input '{info.name}'"
        raise UserError(name, what, "give the values that the model takes")
    return values.astype(target)


def _outside(values: Array, info: TensorInfo, name: str) -> list[str]:
    """Whether an integer input's range is left by much of the data, or hardly used: not normalized, or twice."""
    if info.scale is None:
        return []
    limits = np.iinfo(info.dtype)
    low, high = ((v - (info.zero_point or 0)) * info.scale for v in (limits.min, limits.max))
    part = values[:: max(1, len(values) // 256)].astype(np.float32)
    held = f"of {part.min():.4g} to {part.max():.4g}, input '{info.name}' holds {low:.4g} to {high:.4g}"
    outside = float(((part < low - info.scale) | (part > high + info.scale)).mean())
    if outside > 0.1:
        return [f"{name}: {outside:.0%} of the values are clipped ({held}): not normalized?"]
    if part[0].size > 16 and float(part.max() - part.min()) < 8 * info.scale:
        return [f"{name}: the values fall on a few steps ({held}): normalized twice?"]
    return []


def _check_shape(stored: Array, info: TensorInfo, name: str, where: str) -> None:
    want = info.shape[1:]
    got = stored.shape[1:]
    if info.shape and len(got) == len(want) and all(w in (None, g) for w, g in zip(want, got, strict=True)):
        return
    if not info.shape or tuple(info.shape) == got:
        raise no_samples_axis(info, where)
    axes = "x".join("?" if w is None else str(w) for w in want) or "one number"
    what = f"samples are {_text(got)}, input '{info.name}' of {where} is {axes}"
    raise UserError(name, what, _shape_mend(got, want))


def _shape_mend(got: tuple[int, ...], want: tuple[int | None, ...]) -> str:
    def fits(shape: Sequence[int]) -> bool:
        return len(shape) == len(want) and all(w in (None, g) for w, g in zip(want, shape, strict=True))

    if len(got) == 3:
        for layout, axes in (("NHWC->NCHW", (2, 0, 1)), ("NCHW->NHWC", (1, 2, 0))):
            if fits([got[a] for a in axes]):
                return f'set layout = "{layout}" under [preprocess] of a .toml'
    if [g for g in got if g != 1] == [w for w in want if w != 1]:
        return f"store it as {'x'.join(map(str, want))} (reshape), an axis of 1 is missing or too many"
    if len(got) == len(want) == 3:
        return "give the array that fits, or resize under [preprocess] of a .toml"
    return "give the array that fits"


def _text(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if n is None else str(n) for n in shape) or "one number"


def _classes(output: TensorInfo) -> int | None:
    """How many classes an output tells apart: all its values of one sample, as answers are their largest."""
    known = [d for d in output.shape[1:] if d is not None]
    return math.prod(known) if known and len(known) == len(output.shape) - 1 else None


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
