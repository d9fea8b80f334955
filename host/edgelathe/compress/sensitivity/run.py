"""One `sensitivity` from its plan to the document `edgelathe.sensitivity/1`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity.keep import keep
from edgelathe.compress.sensitivity.measure import WIDTHS, measure
from edgelathe.compress.sensitivity.scene import Scene
from edgelathe.core import dataset
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from edgelathe.compress.sensitivity.measure import Tick
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model


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
    """`8,4,3` as (8, 4, 3). Raises UserError for anything but different whole numbers from 2 to 8."""
    words = [w.strip() for w in text.split(",")]
    if not all(w.isdecimal() and 2 <= int(w) <= 8 for w in words):
        raise UserError("--widths", f"'{text}' are no bit widths", "give whole numbers from 2 to 8, as in 8,4,3")
    return tuple(sorted({int(w) for w in words}, reverse=True))


def document(
    path: str, model: Model, data: Dataset, plan: Plan, tick: Tick = lambda what, part: None
) -> dict[str, Any]:
    """Measure each layer at each width, then what keeping the worst in float is worth.

    Args:
        path: of the model, as given.
        model: a float ONNX model.
        data: bound to it.
        plan: what is asked.
        tick: told of progress.

    Raises:
        UserError: the model is none that can be cut, or the data do not fit it.
    """
    start = time.perf_counter()
    data = dataset.take(data, np.random.default_rng(plan.seed).permutation(len(data)))
    with partial.workers(plan.threads) as run_all:
        tick("float", 0.0)
        scene = Scene.of(model, data, run_all)
        found = measure(scene, plan.widths, plan.activations, early=plan.early, tick=tick)
        measured = time.perf_counter()
        tick("together", 1.0)
        kept = keep(scene, found, plan.widths, plan.keep) if 0 < plan.keep < len(found.layers) else ()
    return {
        "schema": "edgelathe.sensitivity/1",
        "model": {"path": path, "sha256": model.sha256, "format": model.format, "bytes": model.bytes},
        "data": data.name,
        "options": {
            "widths": list(plan.widths), "activations": plan.activations, "early": plan.early, "seed": plan.seed,
            "threads": plan.threads or partial.cpus(), "chunk": scene.float.chunks.size,
        },
        **found.to_json(),
        "keep": [k.to_json() for k in kept],
        "seconds": {"layers": round(measured - start, 3), "keep": round(time.perf_counter() - measured, 3)},
    }  # fmt: skip
