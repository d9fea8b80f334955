"""What the kernels of all TFLite operators share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.rescaling import Way
    from edgelathe.model.fixed.tflite_graph import Site, Slot
    from edgelathe.model.fixed.types import Grid

Arrays = Sequence["NDArray[Any]"]


@dataclass(frozen=True, eq=False)
class Result:
    """Integers of the outputs, how many were clipped, how many sums overflowed."""

    outputs: tuple[NDArray[Any], ...]
    clipped: int = 0
    overflows: int = 0


Fixed = Callable[[Arrays], Result]


def grid(site: Site, slot: Slot) -> Grid:
    """The grid of a tensor that must have one. Raises UserError."""
    if slot.grid is None:
        raise site.refused(f"mixes integers with '{slot.name}', which has no scale")
    return slot.grid


def ends(site: Site) -> tuple[Grid, Grid]:
    """The grids of the first input and the first output."""
    return grid(site, site.input(0)), grid(site, site.outputs[0])


def way(site: Site) -> Way:
    """Of the requantization: TFLite's own rounds twice."""
    asked = site.arithmetic.rounding or "double"
    return "even" if asked == "float" else asked


def default(site: Site, out: Grid) -> bool:
    """Whether the kernels of a default TFLite session are wanted, which differ for 8 bits."""
    return site.arithmetic.kernels == "optimized" and out.bits == 8
