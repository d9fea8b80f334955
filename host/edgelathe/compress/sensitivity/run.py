"""One `sensitivity` from its plan to the document `edgelathe.sensitivity/1`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity.keep import Together, keep, run_together
from edgelathe.compress.sensitivity.measure import WIDTHS, measure
from edgelathe.compress.sensitivity.scene import Scene
from edgelathe.core import dataset
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from edgelathe.compress.forward.partial import Map
    from edgelathe.compress.sensitivity.measure import Tick
    from edgelathe.compress.sensitivity.table import Sensitivity
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model


RunTogether = Callable[[int, Sequence[str]], Together]


@dataclass(frozen=True)
class Plan:
    """What is asked.

    Attributes:
        widths: bits of the weights, most first.
        activations: bits of each layer's input, None: float.
        keep: how many layers are proposed to stay in float; 0: none is.
        early: as for `sensitivity.measure`.
        threads: None: as many as there are CPUs.
        seed: of the order of samples: the first ones stand for all.
    """

    widths: tuple[int, ...] = WIDTHS
    activations: int | None = None
    keep: int = 3
    early: bool = False
    threads: int | None = None
    seed: int = 0


def parse_widths(text: str) -> tuple[int, ...]:
    """`16,8,4` as (16, 8, 4). Raises UserError for anything but whole numbers from 2 to 16."""
    words = [w.strip() for w in text.split(",")]
    if not all(w.isdecimal() and 2 <= int(w) <= 16 for w in words):
        raise UserError("--widths", f"'{text}' are no bit widths", "give whole numbers from 2 to 16, as in 16,8,4")
    return tuple(sorted({int(w) for w in words}, reverse=True))


class Way(Protocol):
    """How the models of one format are measured."""

    def __call__(
        self, model: Model, data: Dataset, plan: Plan, run_all: Map, tick: Tick
    ) -> tuple[Sensitivity, RunTogether, int]:
        """The table, how the model is run with several layers rounded, and how many samples run at once."""


def measured(model: Model, data: Dataset, plan: Plan, run_all: Map, tick: Tick) -> tuple[Sensitivity, RunTogether, int]:
    """Of an ONNX model: the table, how it is run with several layers rounded, and how many samples run at once."""
    scene = Scene.of(model, data, run_all)
    found = measure(scene, plan.widths, plan.activations, early=plan.early, tick=tick)
    return found, functools.partial(run_together, scene), scene.float.chunks.size


def document(
    path: str, model: Model, data: Dataset, plan: Plan, tick: Tick = lambda what, part: None, way: Way = measured
) -> dict[str, Any]:
    """Measure each layer at each width, then what keeping the worst in float is worth.

    Args:
        path: of the model, as given.
        model: a float model.
        data: bound to it.
        plan: what is asked.
        tick: told of progress.
        way: how the model's format is measured.

    Raises:
        UserError: the model is none that can be cut, or the data do not fit it.
    """
    start = time.perf_counter()
    data = dataset.take(data, np.random.default_rng(plan.seed).permutation(len(data)))
    with partial.workers(plan.threads) as run_all:
        tick("float", 0.0)
        found, together, chunk = way(model, data, plan, run_all, tick)
        done = time.perf_counter()
        tick("together", 1.0)
        kept = keep(found, plan.widths, together, plan.keep) if 0 < plan.keep < len(found.layers) else ()
    return {
        "schema": "edgelathe.sensitivity/1",
        "model": {"path": path, "sha256": model.sha256, "format": model.format, "bytes": model.bytes},
        "data": data.name,
        "options": {
            "widths": list(plan.widths), "activations": plan.activations, "early": plan.early, "seed": plan.seed,
            "threads": plan.threads or partial.cpus(), "chunk": chunk,
        },
        **found.to_json(),
        "keep": [k.to_json() for k in kept],
        "seconds": {"layers": round(done - start, 3), "keep": round(time.perf_counter() - done, 3)},
    }  # fmt: skip
