"""A dataset through a model in fixed point, chunk by chunk, and how far the answers are from float."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.errors import Layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.model.fixed.types import LayerError, Program

Tick = Callable[[str, float], None]
_CHUNK = 1 << 18  # numbers of a model's input that go through it at once: layers are many times wider


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a simulation found, over all samples.

    Attributes:
        simulated: first output [n, ...], as the model gives it: integers where its output is quantized.
        real: the same as real numbers, float32.
        exact: the first output of the float model, float32.
        layers: one record a layer, in the order in which they run.
    """

    simulated: NDArray[Any]
    real: NDArray[Any]
    exact: NDArray[Any]
    layers: tuple[LayerError, ...]


def simulate(program: Program, inputs: Mapping[str, NDArray[Any]], tick: Tick = lambda _, __: None) -> Simulation:
    """All samples through the program. `inputs` are arrays [n, ...] by input name, as `dataset.bind` gives them.

    `tick` is called with a phrase and the share of samples done.
    """
    layers, parts = Layers(), []
    n = len(next(iter(inputs.values())))
    for start in range(0, n, size := chunk(inputs, program.batch)):
        rows = np.arange(start, start + size) if program.batch else np.arange(start, min(n, start + size))
        kept = min(size, n - start)
        watch = functools.partial(layers.watch, filled=(kept, len(rows)) if kept < len(rows) else None)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # NaN is told of where answers are scored
            answer = program.run({k: v[np.minimum(rows, n - 1)] for k, v in inputs.items()}, watch)
        first = answer.simulated[0]
        parts.append([_by_sample(v, len(rows))[:kept] for v in (first.data, first.real, answer.exact[0])])
        tick(f"{min(n, start + size)} of {n} samples", min(1.0, (start + size) / n))
    simulated, real, exact = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Simulation(simulated, real, exact, layers.errors())


def chunk(inputs: Mapping[str, NDArray[Any]], batch: int | None) -> int:
    """How many samples go at once: the model's fixed batch, else what keeps the largest layers in memory."""
    return batch or max(1, min(32, _CHUNK // max(1, *(v[0].size for v in inputs.values()))))


def _by_sample(output: NDArray[Any], samples: int) -> NDArray[Any]:
    """Samples first: an output of one sample may come without an axis for it."""
    return output if output.ndim and output.shape[0] == samples else output[None]
