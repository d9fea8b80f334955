"""Data that look wrong: two sets that differ, samples in both, values normalized twice or not at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgelathe.core.dataset_types import Array, Dataset

LOOKED_AT = 512  # samples are enough for a mean and a deviation


def duplicates(a: Dataset, b: Dataset) -> list[tuple[int, int]]:
    """Pairs (index in a, first index in b) of samples with equal inputs, by hash. Both sets bound to the same model."""
    seen: dict[bytes, int] = {}
    for i in range(len(b)):
        seen.setdefault(_digest(b, i), i)
    return [(i, seen[d]) for i in range(len(a)) if (d := _digest(a, i)) in seen]


def compare(a: Dataset, b: Dataset) -> list[str]:
    """Warnings about two datasets bound to one model: what looked odd in each, and clearly different statistics.

    Per channel, the samples' means (and their deviations) are compared: a difference of more than one pooled
    standard deviation (Cohen, Statistical Power Analysis, 2nd ed., 2.2: 0.8 is large), or a ratio of the
    deviations beyond 2, is clear.
    """
    notes = [*a.warnings, *(w for w in b.warnings if w not in a.warnings)]
    for name in a.inputs:
        if name in b.inputs and a.inputs[name].shape[1:] == b.inputs[name].shape[1:]:
            notes += _different(a.inputs[name], b.inputs[name], f"input '{name}' of {a.name} and {b.name}")
    return notes


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


def _digest(dataset: Dataset, i: int) -> bytes:
    h = hashlib.blake2b(digest_size=16)
    for name in sorted(dataset.inputs):
        h.update(np.ascontiguousarray(dataset.inputs[name][i]).data)
    return h.digest()


def _part(values: Array) -> Array:
    return values[:: max(1, len(values) // LOOKED_AT)]


def _moments(values: Array) -> tuple[Array, Array]:
    """Per sample and channel: mean and deviation, each [n, channels]."""
    part = _part(values).astype(np.float64)
    if part.ndim == 1:
        part = part[:, None]
    last = part.ndim == 2 or part.shape[-1] <= part.shape[1]
    flat = np.moveaxis(part, -1 if last else 1, 1).reshape(len(part), part.shape[-1 if last else 1], -1)
    return flat.mean(2), flat.std(2)


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
