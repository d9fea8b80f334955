"""Rounding learned without training: the layers of an integer graph one after the other, each by second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.weights import levels, qweights, second_order
from edgelathe.compress.weights.problems import Pair, Problem, problems
from edgelathe.compress.weights.qweights import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from edgelathe.core.dataset import Dataset


@dataclass(frozen=True)
class Job(Pair):
    """A layer of an integer graph, and how its weights may be stored: see `levels.chosen`."""

    bits: int
    spacing: str
    reduce: bool
    input_scale: float
    per_channel: bool


def walk(
    model: ir.Model, before: ir.Model, jobs: Sequence[Job], data: Dataset, seed: int
) -> Iterator[tuple[Job, Stored]]:
    """Fit layer after layer; the caller writes each into `model` before it takes the next.

    `model` holds the integer graph with the weights of `jobs` still float, `before` the float one.
    """
    solved = problems(model, before, jobs, data, seed)
    for job in jobs:  # the problem of one layer is gone before that of the next is there; zip would keep it
        yield job, _stored(job, next(solved)[1])


def _stored(job: Job, problem: Problem) -> Stored:
    """Integers of the layer, as the node has its weights, and the bias that goes with them."""
    weights = g.array(job.twin.inputs[1])
    assert weights is not None
    least = np.zeros(problem.weights.shape[:2], np.float32)
    if problem.has_bias:  # it has to fit 32 bits in units of both scales, with room for the sum
        largest = np.abs(np.asarray(g.array(job.twin.inputs[2]), np.float64))
        least = (largest / job.input_scale / 2.0**30).astype(np.float32).reshape(least.shape)
    grid = levels.chosen(problem.wanted, problem.hessian, job.bits, job.spacing, reduce=job.reduce)
    found = second_order.round_to(problem.wanted, problem.hessian, grid, least, shared=not job.per_channel)
    scale, axis = found.scale.reshape(-1), qweights.channel_axis(job.twin)
    bias = problem.bias(found.real(), unhidden=True)
    stored = None if bias is None else qweights.integer_bias(bias.astype(np.float64), job.input_scale * scale)
    outputs_first = found.integers.reshape(weights.shape if axis == 0 else weights.shape[::-1])
    return Stored(
        np.ascontiguousarray(outputs_first if axis == 0 else outputs_first.T),
        scale if job.per_channel else scale[0].reshape(()),
        axis if job.per_channel else None,
        stored,
        job.bits,
        values=grid.values,
        offset=found.offset.reshape(-1),
    )
