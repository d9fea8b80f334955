"""The bits of each layer under a limit: in so many bytes, or as few as a loss of the metric allows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgelathe.compress.mixed import allocate, dropped, limits, sizes
from edgelathe.compress.mixed.allocate import Choice, Room
from edgelathe.compress.sensitivity.reference import Change, whole
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Map
    from edgelathe.compress.mixed.alone import Constants, Subject
    from edgelathe.core.dataset import Dataset

Choices = Mapping[str, Sequence[Choice]]


def fitting(choices: Choices, room: Room, text: str) -> tuple[dict[str, int], Choices, Room]:
    """The bits that lose least in the room, the choices that they are of, and the room that was left for layers.

    Each width that packs its integers has tables that its layers share. They are paid for all widths first; then, as
    long as that loses less, again without one of them. Bit operations are multiply-accumulates x weight bits x
    activation bits (8), the measure of van Baalen et al., Bayesian Bits, 2020.

    Raises UserError, with the limits' `text`, where the fewest bits take more.
    """
    narrow = {b for b in _widths(choices) if b < 8}
    tried = [narrow, *({b} for b in sorted(narrow)), set[int]()] if room.bytes is not None else [narrow]
    found = next((f for some in tried if (f := _best(choices, some, room))), None)
    if found is None:
        raise _refusal(choices, tried, room, text)
    while room.bytes is not None:
        used, tables = ({b for b in some if b < 8} for some in (found[0].values(), _widths(found[1])))
        fewer = [used] if used < tables else [used - {b} for b in sorted(used)]
        least = min((f for some in fewer if (f := _best(choices, some, room))), key=_lost, default=None)
        if least is None or (used == tables and _lost(least) >= _lost(found)):
            break
        found = least
    return found


def allowed(macs: Mapping[str, int], text: str) -> int:
    """The bit operations that a share of those with weights of 8 bits is. Raises UserError for what is no share."""
    return round(limits.cost(text) * whole_operations(macs))


def macs(of: Subject) -> dict[str, int]:
    """Multiply-accumulates of each layer. Raises UserError where they are not known."""
    known = {la.name: la.macs for la in layers(onnx_model.from_ir(of.model, of.name))}
    found = {}
    for name in (la.name for la in of.layers):
        each = [known.get(n) for n in of.names[name]]
        counted = [m for m in each if m is not None]
        if len(counted) < len(each):
            raise UserError("mixed: cost", f"the multiply-accumulates of '{name}' are not known", "give size or drop")
        found[name] = sum(counted)
    return found


def whole_operations(macs: Mapping[str, int]) -> int:
    """Bit operations of one sample with weights of 8 bits."""
    return limits.operations(8) * sum(macs.values())


def _best(choices: Choices, narrow: Collection[int], room: Room) -> tuple[dict[str, int], Choices, Room] | None:
    rows = _rest(choices, narrow)
    left = room
    if room.bytes is not None:
        left = replace(room, bytes=room.bytes - sum(sizes.shared_bytes(b) for b in narrow))
    picks = allocate.best(tuple(rows.values()), left) if all(rows.values()) else None
    if picks is None:
        return None
    return {name: row[i].bits for (name, row), i in zip(rows.items(), picks, strict=True)}, rows, left


def _widths(choices: Choices) -> set[int]:
    return {c.bits for row in choices.values() for c in row}


def _lost(found: tuple[dict[str, int], Choices, Room]) -> float:
    """What an allocation loses in all."""
    bits, rows, _ = found
    return math.fsum(next(c.loss for c in row if c.bits == bits[name]) for name, row in rows.items())


def _refusal(choices: Choices, tried: Sequence[Collection[int]], room: Room, text: str) -> UserError:
    """Which limit cannot be kept, or that each can but not both."""
    mend = "raise it, or allow fewer bits in `widths`"
    least = min(_least(choices, some) for some in tried)
    if room.bytes is not None and least > room.bytes:
        return UserError(
            "mixed: size", f"{text}: {room.bytes:,} bytes of weights, the fewest bits take {least:,}", mend
        )
    whole = sum(row[0].operations * limits.operations(8) // limits.operations(row[0].bits) for row in choices.values())
    fewest = sum(min(c.operations for c in row) for row in choices.values())
    if room.operations is not None and fewest > room.operations:
        what = f"{text} of the bit operations, the fewest bits take {limits.share(fewest / whole)}"
        return UserError("mixed: cost", what, mend)
    found = [
        allocate.total(rows, picks).operations / whole
        for some in tried
        if all(rows := tuple(_rest(choices, some).values()))
        and (picks := allocate.fewest(rows, (room.bytes or 0) - sum(map(sizes.shared_bytes, some))))
    ]
    what = f"{text} cannot both be kept: in these bytes the fewest bit operations are {limits.share(min(found))}"
    return UserError("mixed", what, "raise one of them, or allow other bits in `widths`")


def _least(choices: Choices, narrow: Collection[int]) -> float:
    """Bytes at least; infinite where a layer has no choice."""
    rows = _rest(choices, narrow).values()
    if not all(rows):
        return math.inf
    return sum(min(c.bytes for c in row) for row in rows) + sum(map(sizes.shared_bytes, narrow))


def _rest(choices: Choices, narrow: Collection[int]) -> dict[str, tuple[Choice, ...]]:
    """The choices of 8 bits and more, and those of these fewer bits."""
    return {name: tuple(c for c in row if c.bits >= 8 or c.bits in narrow) for name, row in choices.items()}


def drop(
    of: Subject, made: Mapping[str, Mapping[int, Constants]], choices: Choices, text: str, data: Dataset, run_all: Map
) -> tuple[dict[str, int], str]:
    """The fewest bytes of `allocate.path` at which rounded weights lose no more than the limit, by bisection.

    The bits, and what they lose in words. Raises UserError as `dropped.Drop` does.
    """
    some = dropped.counted(data)
    reference = of.run(some, run_all)
    ways = [
        {name: row[i].bits for (name, row), i in zip(choices.items(), picks, strict=True)}
        for picks in allocate.path(tuple(choices.values()))
    ]

    def answers(way: int) -> NDArray[np.float32]:
        constants: dict[str, NDArray[np.float32]] = {}
        for name, width in ways[way].items():
            constants |= made[name][width]
        return whole(reference, Change(constants)).first

    limit = dropped.Drop.of(text, some, reference.first, "rounded weights")
    found, said = limit.fewest(len(ways), answers)
    return ways[found], said
