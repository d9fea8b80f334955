"""Samples, labels and how they are scored: read, preprocessed once, checked.

The forms are those of docs/datasets.md: an `.npz`, an `.npy`, a folder of images per class, a `.csv`, or a `.toml`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core import preprocess
from edgelathe.core.dataset_bind import bind, check_labels, spread, take
from edgelathe.core.dataset_checks import compare, duplicates, suspicions
from edgelathe.core.dataset_read import Stored, read
from edgelathe.core.dataset_split import apply_holdout, holdout
from edgelathe.core.dataset_types import METRICS, Dataset, check_metric, fit_labels
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgelathe.core.dataset_types import Array

__all__ = [
    "METRICS",
    "Dataset",
    "apply_holdout",
    "bind",
    "check_labels",
    "compare",
    "duplicates",
    "holdout",
    "load",
    "spread",
    "suspicions",
    "take",
]

KEYS = ("path", "inputs", "labels", "limit", "metric", "preprocess")


@dataclass(frozen=True)
class Description:
    """A `.toml` of docs/datasets.md; `preprocess` by input name, "" for the only one."""

    path: Path
    inputs: dict[str, str] | None = None
    labels: str | None = None
    limit: int | None = None
    metric: str = "top1"
    preprocess: Mapping[str, Preprocess] = field(default_factory=dict)


def load(path: str | Path) -> Dataset:
    """A dataset of any form, preprocessed. Raises UserError naming the file, and the field or sample at fault."""
    path = Path(path)
    if path.suffix.lower() == ".toml" and not path.is_dir():
        return _from(describe(path), str(path))
    return _from(Description(path, labels="y"), str(path))


def describe(path: Path) -> Description:
    """The `.toml` that describes a dataset. Raises UserError naming the key at fault."""
    where = str(path)
    try:
        doc = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(where, "no such file", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise UserError(where, f"not TOML: {e}", 'the form is path = "eval.npz", labels = "y"') from None
    for key in doc:
        if key not in KEYS:
            raise UserError(f"{where}: {key}", "unknown key", nearest(key, KEYS))
    target = doc.get("path")
    if not isinstance(target, str) or not target:
        raise UserError(f"{where}: path", "missing", 'name the data, as in path = "eval.npz"')
    full = path.parent / target
    if full.suffix.lower() == ".toml":
        raise UserError(f"{where}: path", f"{target} is a description too", "name an array, a folder or a .csv")
    inputs, limit, labels = doc.get("inputs"), doc.get("limit"), doc.get("labels")
    if inputs is not None and not (_is_table(inputs) and inputs and all(isinstance(v, str) for v in inputs.values())):
        raise UserError(f"{where}: inputs", f"{inputs!r} maps no input to an array", 'write inputs = { input = "x" }')
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UserError(f"{where}: limit", f"{limit!r} is no number of samples", "give a whole number from 1")
    if labels is not None and not isinstance(labels, str):
        raise UserError(f"{where}: labels", f"{labels!r} names no array", 'write labels = "y", or leave it out')
    metric = check_metric(doc.get("metric", "top1"), where)
    return Description(full, inputs, labels, limit, metric, _preprocess(doc.get("preprocess", {}), where))


def _preprocess(table: Any, where: str) -> dict[str, Preprocess]:
    if not _is_table(table):
        raise UserError(f"{where}: preprocess", f"{table!r} is no table", "write [preprocess] and its keys below it")
    if table and all(_is_table(v) for v in table.values()):
        return {k: preprocess.parse(v, f"{where} [{k}]") for k, v in table.items()}
    return {"": preprocess.parse(table, where)} if table else {}


def _from(d: Description, where: str) -> Dataset:
    stored = read(d.path, d.inputs, d.labels)
    origin, labels = str(d.path), stored.labels
    inputs, notes = {}, list(_forgotten(d, stored, where))
    for name, samples in stored.inputs.items():
        _check_samples(samples, name or "the array", origin)
        if labels is not None:
            _check_count(samples, labels, name or "the array", origin)
        limited = samples[: d.limit]
        _check_finite(limited, name or "the array", origin)
        inputs[name] = _prepare(limited, name, d, list(stored.inputs), where)
        notes += suspicions(inputs[name], limited, where)
    if labels is not None:
        whole = fit_labels(labels, d.metric, origin)
        labels = whole[: d.limit]
        notes += _one_sided(whole, labels, d, where)
    return Dataset(where, inputs, labels, d.metric, tuple(notes))


def _forgotten(d: Description, stored: Stored, where: str) -> Iterator[str]:
    if d.labels is None and stored.has_y:
        agreement = "agreement with the uncompressed model is the accuracy"
        yield f"{where}: no `labels`, so {agreement} ({d.path.name} has an array 'y')"


def _one_sided(whole: Array, labels: Array, d: Description, where: str) -> Iterator[str]:
    """The first samples of data that are sorted by class are of few classes."""
    if whole.dtype.kind == "i" and whole.ndim == 1 and len(labels) < len(whole):
        kept, all_ = len(np.unique(labels)), len(np.unique(whole))
        if kept <= all_ // 2 and len(labels) >= 2 * all_:
            yield f"{where}: limit = {d.limit} keeps {kept} of {all_} classes: the data are sorted; shuffle them"


def _prepare(samples: Sequence[Array] | Array, name: str, d: Description, names: list[str], where: str) -> Array:
    steps = d.preprocess.get(name) or (d.preprocess.get("") if len(names) == 1 or name == "x" else None)
    unknown = [k for k in d.preprocess if k and k not in names]
    if unknown:
        raise UserError(f"{where}: preprocess.{unknown[0]}", "no such input", nearest(unknown[0], names))
    return preprocess.apply(samples, steps or Preprocess(), where)


def _check_samples(samples: Sequence[Array] | Array, name: str, where: str) -> None:
    """Numbers, and at least one sample of them."""
    if isinstance(samples, np.ndarray):
        if samples.dtype.kind not in "biuf":
            raise UserError(where, f"{name} holds {samples.dtype}, not numbers", "store numbers")
        if samples.ndim == 0:
            raise UserError(where, f"{name} is a single number", "give an array [n, ...] of samples")
    if not len(samples):
        raise UserError(where, f"{name} holds no sample (0 of them)", "give at least one")


def _check_count(samples: Sequence[Array] | Array, labels: Array, name: str, where: str) -> None:
    count = len(labels) if labels.ndim else 1
    if count != len(samples) or not labels.ndim:
        raise UserError(
            where, f"{name} has {len(samples)} samples, but there are {count} labels", "give one label a sample"
        )


def _check_finite(samples: Sequence[Array] | Array, name: str, where: str) -> None:
    if not isinstance(samples, np.ndarray) or samples.dtype.kind != "f":
        return
    step = max(1, preprocess.BLOCK // max(1, samples[0].size))
    for start in range(0, len(samples), step):
        block = samples[start : start + step]
        bad = ~np.isfinite(block).reshape(len(block), -1).all(1)
        if bad.any():
            what = f"{name} holds NaN or infinity in sample {start + int(bad.argmax())}"
            raise UserError(where, what, "mend or remove that sample")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)
