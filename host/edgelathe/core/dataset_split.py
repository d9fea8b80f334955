"""A fixed part of a dataset set aside for calibration, by a rule that replays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.core.dataset_bind import take
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from edgelathe.core.dataset_types import Array, Dataset

Rule = Mapping[str, bool | int | float | str]
MOST = 256  # samples: ranges and second moments of edge-sized models hardly move beyond


def holdout(dataset: Dataset) -> tuple[Array, Array, dict[str, bool | int | float | str]]:
    """Indices for calibration, indices for evaluation, and the rule: one of each `every` samples, 256 at most.

    The place within each group of `every` follows from a hash of the group's number, so that neither sorted nor
    alternating labels bias the choice. Raises UserError where there are fewer than 8 samples.
    """
    n = len(dataset)
    if n < 8:
        raise UserError(
            dataset.name, f"{n} samples are too few to set some aside", "give calibration data with --calib"
        )
    every = max(4, -(-n // MOST))
    chosen = _chosen(n, every)
    rest = np.setdiff1d(np.arange(n), chosen)
    return chosen, rest, {"every": every, "samples": n}


def apply_holdout(dataset: Dataset, rule: Rule) -> Dataset:
    """The calibration part of a dataset by a rule of `holdout`. Raises UserError where it is not for these data."""
    every, samples = rule.get("every"), rule.get("samples")
    for key in rule:
        if key not in ("every", "samples"):
            raise UserError(f"holdout.{key}", "unknown key", "the keys are every and samples")
    if not all(isinstance(v, int) and not isinstance(v, bool) and v > 1 for v in (every, samples)):
        raise UserError("holdout", f"every = {every!r}, samples = {samples!r}", "both are whole numbers above 1")
    if samples != len(dataset):
        what = f"{len(dataset)} samples, the recipe's [holdout] was made for {samples}"
        raise UserError(dataset.name, what, "give the data of that run, or remove [holdout] from the recipe")
    assert isinstance(every, int)
    return take(dataset, _chosen(len(dataset), every))


def _chosen(n: int, every: int) -> Array:
    """One index of each whole group of `every`."""
    digests = (hashlib.sha256(str(group).encode()).digest() for group in range(n // every))
    return np.asarray(
        [group * every + int.from_bytes(d[:8], "big") % every for group, d in enumerate(digests)], np.int64
    )
