"""What `int8` rescales before it rounds few bits, as it changes what a layer loses alone.

A factor moved from the layers that make a value to one that reads it changes the rounding of that one only: the others
have a scale for each of their outputs. So it is rounded with its inputs divided by the factors and its weights
multiplied, and the weights are divided again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.graph.moves import skips
from edgelathe.compress.integer import rescale
from edgelathe.compress.weights.problems import Problem

if TYPE_CHECKING:
    from edgelathe.compress.mixed.alone import Subject
    from edgelathe.core.dataset import Dataset

Array = NDArray[np.float64]
_FULL_BITS = 8  # `int8` rescales for fewer; for these only where asked to


def factors(of: Subject, widths: Mapping[str, Sequence[int]], data: Dataset) -> dict[tuple[str, int], Array]:
    """The factors [channels read] by layer and bits, where there are any, all that read a value at the same bits.

    Raises UserError where activations are not finite.
    """
    always = of.whole.equalize == "noise"
    if of.whole.equalize not in ("auto", "noise") or not of.whole.per_channel:
        return {}
    found = rescale.look(
        of.model, of.name, data, lambda node: not skips(node, of.overrides), lambda t: always or t.is_dense
    )
    layers = {la.node: la.name for la in of.layers if len(la.positions) == 1}
    out: dict[tuple[str, int], Array] = {}
    for t in found.sets:
        names = [layers[n] for n in t.readers if n in layers]
        for bits in sorted(
            {b for name in names for b in widths[name] if b < _FULL_BITS or (always and b == _FULL_BITS)}
        ):
            best = found.factors(t, lambda _, bits=bits: bits)  # type: ignore[misc]  # bound at once
            if best is not None:
                out |= {(name, bits): best[0] for name in names if bits in widths[name]}
    return out


def problem(of: Problem, by: Array, samples: int) -> Problem:
    """The same of inputs divided by factors [channels read]; `samples` as `Problem.of` takes them."""
    each = by_input(by, of.weights)
    x = (of.rows.x / each).astype(np.float32)
    return Problem.of(of.weights * each, replace(of.rows, x=x), samples, has_bias=of.has_bias)


def by_input(by: Array, weights: Array) -> Array:
    """Factors [g, 1, f] of weights [g, o, f]: a channel has as many of the f as its kernel has places."""
    groups, _, inputs = weights.shape
    return np.repeat(by.reshape(groups, -1), inputs * groups // by.size, axis=1)[:, None]
