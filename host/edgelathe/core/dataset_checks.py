"""Data that look wrong: two sets that differ, samples in both, values normalized twice or not at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgelathe.core.dataset_types import Array, Dataset

LOOKED_AT = 512  # samples, and so many values of each channel, are enough for a mean and a deviation
HASHED = 1024  # values of a sample tell it from others, before all are compared


def duplicates(a: Dataset, b: Dataset) -> list[tuple[int, int]]:
    """Pairs (index in a, first index in b) of samples with equal values as float32: found by hash, then compared."""
    seen: dict[bytes, list[int]] = {}
    for j, digest in enumerate(_digests(b)):
        seen.setdefault(digest, []).append(j)
    pairs = ((i, _first_equal(a, i, b, seen.get(digest, []))) for i, digest in enumerate(_digests(a)))
    return [(i, j) for i, j in pairs if j is not None]


def compare(a: Dataset, b: Dataset) -> list[str]:
    """Warnings about calibration data `a` and evaluation data `b`, bound to a model or not.

    What looked odd in each, samples in both, and clearly different statistics: per channel, the samples' means
    differ by more than one pooled standard deviation (Cohen, Statistical Power Analysis, 2nd ed., 2.2: 0.8 is a
    large effect), or the deviations within samples by more than a factor of 2.
    """
    notes = [*a.warnings, *(w for w in b.warnings if w not in a.warnings)]
    pairs = duplicates(a, b)
    if pairs:
        i, j = pairs[0]
        both = f"{len(pairs)} of {len(a)} samples of {a.name} are in {b.name} too"
        notes.append(f"{both} (sample {i} is sample {j} there): accuracy on them is flattered")
    for name, (x, y) in _matching(a, b).items():
        if x.shape[1:] == y.shape[1:]:
            notes += _different(x, y, f"{name or 'the inputs'} of {a.name} and {b.name}")
    return notes


def _main(dataset: Dataset) -> dict[str, Array]:
    """The inputs proper: before `bind`, an `x` may have other arrays beside it."""
    only = {k: v for k, v in dataset.inputs.items() if k in ("", "x")}
    return only or dict(dataset.inputs)


def _matching(a: Dataset, b: Dataset) -> dict[str, tuple[Array, Array]]:
    ours, theirs = _main(a), _main(b)
    if len(ours) == len(theirs) == 1:
        return {k: (v, w) for (k, v), w in zip(ours.items(), theirs.values(), strict=True)}
    return {k: (v, theirs[k]) for k, v in ours.items() if k in theirs}


def suspicions(values: Array, stored: Sequence[Array] | Array, where: str) -> list[str]:
    """What looks odd in preprocessed `values` beside the `stored` ones: normalized twice, or with the wrong units."""
    if values is stored or values.dtype.kind != "f" or not isinstance(stored, np.ndarray) or values.ndim < 3:
        return []
    before, after = _part(stored), _part(values)
    low, high, spread = float(after.min()), float(after.max()), float(after.std())
    notes = []
    if (
        before.dtype.kind == "f"
        and np.abs(before).max() <= 4
        and spread < 0.05
        and abs(float(after.mean())) > 4 * spread
    ):
        notes.append(
            f"{where}: inputs look normalized twice: stored values {before.min():.3g} to {before.max():.3g} "
            f"become {low:.3g} to {high:.3g}; give mean and std in the units of the stored values"
        )
    elif before.max() > 32 and max(abs(low), abs(high)) > 2 * float(np.abs(before).max()):
        notes.append(
            f"{where}: mean and std look like those of values in 0..1, stored values go to {before.max():.3g}: "
            f"inputs become {low:.3g} to {high:.3g}; give both in the units of the stored values"
        )
    return notes


def _arrays(dataset: Dataset) -> list[Array]:
    return [v for _, v in sorted(_main(dataset).items())]


def _digests(dataset: Dataset) -> Iterator[bytes]:
    """A hash of some of each sample's values: equal samples have equal ones."""
    inputs = _arrays(dataset)
    thinned = [v.reshape(len(v), -1)[:, :: max(1, v[0].size // HASHED)] for v in inputs]
    for i in range(len(inputs[0])):
        h = hashlib.blake2b(digest_size=16)
        for values in thinned:
            h.update(np.ascontiguousarray(values[i], np.float32).data)
        yield h.digest()


def _first_equal(a: Dataset, i: int, b: Dataset, candidates: list[int]) -> int | None:
    """The first candidate in `b` whose values are those of sample i."""
    for j in candidates:
        pairs = zip(_arrays(a), _arrays(b), strict=False)
        if all(np.array_equal(np.asarray(x[i], np.float32), np.asarray(y[j], np.float32)) for x, y in pairs):
            return j
    return None


def _part(values: Array) -> Array:
    return values[:: max(1, len(values) // LOOKED_AT)]


def _moments(values: Array) -> tuple[Array, Array]:
    """Per sample and channel: mean and deviation, each [n, channels]."""
    part = _part(values)
    if part.ndim == 1:
        part = part[:, None]
    last = part.ndim == 2 or part.shape[-1] <= part.shape[1]
    flat = np.moveaxis(part, -1 if last else 1, 1).reshape(len(part), part.shape[-1 if last else 1], -1)
    # An odd stride does not fall in step with the rows of an image.
    thinned = flat[:, :, :: max(1, flat.shape[2] // LOOKED_AT) | 1].astype(np.float64)
    return thinned.mean(2), thinned.std(2)


def _different(a: Array, b: Array, where: str) -> list[str]:
    (mean_a, std_a), (mean_b, std_b) = _moments(a), _moments(b)
    if min(len(mean_a), len(mean_b)) < 8:
        return []
    pooled = np.sqrt((mean_a.var(0) + mean_b.var(0)) / 2)
    shift = np.abs(mean_a.mean(0) - mean_b.mean(0)) / np.maximum(pooled, 1e-12 + 1e-6 * np.abs(mean_a).max())
    if mean_a.shape[1] <= 16 and shift.max() > 1:
        c = int(shift.argmax())
        return [
            f"{where} differ clearly: the mean of channel {c} is {mean_a[:, c].mean():.4g} against "
            f"{mean_b[:, c].mean():.4g}; are both preprocessed alike?"
        ]
    level_a, level_b = float(std_a.mean()), float(std_b.mean())
    if max(level_a, level_b) > 2 * min(level_a, level_b):
        return [
            f"{where} differ clearly: the deviation within a sample is {level_a:.4g} against {level_b:.4g}; "
            f"are both preprocessed alike?"
        ]
    return []
