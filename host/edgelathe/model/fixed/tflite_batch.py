"""Whether samples may go through a TFLite model together, though it was made for one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Graph, Site


def independent(graph: Graph) -> bool:
    """Whether the first axis of every tensor is that of samples, and no operator mixes it. Indices do not count."""
    batch = graph.batch or 1
    for site in graph.sites:
        for slot in site.outputs:
            if slot.grid is None and slot.dtype != "float32":
                continue
            if not slot.shape or slot.shape[0] not in (None, batch):
                return False
            if site.op in _MIXES and _MIXES[site.op](site, len(slot.shape)):
                return False
    return True


def _second(site: Site) -> NDArray[Any] | None:
    slot = site.optional(1)
    return None if slot is None else slot.constant


def _transpose(site: Site, _rank: int) -> bool:
    order = _second(site)
    return order is None or int(order[0]) != 0


def _over_axes(site: Site, _rank: int) -> bool:
    axes, rank = _second(site), len(site.input(0).shape)
    return axes is None or bool(np.isin(0, axes.reshape(-1) % rank))


def _pad(site: Site, _rank: int) -> bool:
    widths = _second(site)
    return widths is None or bool(widths[0].any())


def _axis(field: int) -> Callable[[Site, int], bool]:
    return lambda site, rank: site.number(field, "i") % rank == 0


def _always(_site: Site, _rank: int) -> bool:
    return True


#: Operators that may read the first axis as something else than samples, and whether one does.
_MIXES: dict[str, Callable[[Site, int], bool]] = {
    "TRANSPOSE": _transpose, "MEAN": _over_axes, "SUM": _over_axes, "REDUCE_MAX": _over_axes, "REDUCE_MIN": _over_axes,
    "PAD": _pad, "PADV2": _pad, "MIRROR_PAD": _pad, "CONCATENATION": _axis(0), "GATHER": _axis(0), "PACK": _axis(1),
    "UNPACK": _always, "SPLIT": _always, "SPLIT_V": _always, "SLICE": _always, "STRIDED_SLICE": _always,
    "TILE": _always,
}  # fmt: skip
