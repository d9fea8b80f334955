"""Raw samples in a file: every counted call, none left out for being slow or marked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelathe.core import files
from edgelathe.core.errors import UserError
from edgelathe.measure.conditions import marks
from edgelathe.measure.interleave import Series
from edgelathe.measure.subject import Measured

COLUMNS = ("model", "lane", "process", "block", "call", "start_s", "ns", "marks")
SUFFIXES = (".csv", ".npz", ".json")


def check(path: Path) -> None:
    """Raises UserError for a file that could not be written in the end."""
    if path.suffix not in SUFFIXES:
        raise UserError(path, "raw samples are a table", f"end its name in one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UserError(path, "its folder is not there", "make it, or choose another")


def write(path: Path, measured: Sequence[Measured], cores: int) -> None:
    """A row per call. By suffix: .csv with a header, .npz with an array per column, .json with `columns` and `rows`.

    model, lane (the scenario's calls, or `back-to-back` beside paced ones), process, block and call count from 0;
    start_s: seconds from the first block's start, by the device's steady clock, exact for the first call of a block
    and for the others without what lies between calls; ns: the query's time; marks: of its block, joined by `+`.
    """
    table = list(rows(measured, cores))
    if path.suffix == ".csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(table)
        data = out.getvalue().encode()
    elif path.suffix == ".json":
        data = json.dumps({"columns": COLUMNS, "rows": table}).encode()
    else:
        arrays: dict[str, Any] = {name: np.array([r[i] for r in table]) for i, name in enumerate(COLUMNS)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        data = buffer.getvalue()
    files.write(path, data)


def rows(measured: Sequence[Measured], cores: int) -> Iterator[tuple[Any, ...]]:
    """The rows of `write`."""
    lanes = [(m, "scenario", process, g) for m in measured for process, g in enumerate(m.groups)]
    lanes += [(m, "back-to-back", 0, m.beside) for m in measured if m.beside]
    starts = [t for _, _, _, g in lanes for c in g.conditions if (t := _start(c)) is not None]
    origin = min(starts, default=0.0)
    for m, lane, process, series in lanes:
        for block, values in enumerate(_blocks(series, cores, origin)):
            for call, (start, ns, marked) in enumerate(values):
                yield m.subject.name, lane, process, block, call, start, ns, marked


def _blocks(series: Series, cores: int, origin: float) -> Iterator[list[tuple[float | None, int, str]]]:
    for ns, conditions, more in zip(series.blocks, series.conditions, series.more, strict=True):
        marked = "+".join(sorted(marks(conditions, more, cores)))
        begun = _start(conditions)
        before = np.concatenate([[0], np.cumsum(ns)[:-1]]) / 1e9
        starts = [None if begun is None else round(begun - origin + float(b), 9) for b in before]
        yield [(s, int(n), marked) for s, n in zip(starts, ns, strict=True)]


def _start(conditions: Any) -> float | None:
    at = ((conditions.get("before") or {}).get("time_ns") or {}).get("monotonic")
    return None if at is None else float(at) / 1e9
