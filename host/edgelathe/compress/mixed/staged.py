"""Widths taken over stage by stage, each only where the model's output bears it.

Convolutions first, then fully connected layers, then the last layers; within a stage from the output inwards. After
each layer the model is run with all that are settled, and a layer that makes more error than its own and the others'
errors add up to goes to its next wider width; the layers that are left then share the room that is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelathe.compress.mixed import allocate
from edgelathe.compress.mixed.allocate import Choice, Room
from edgelathe.compress.mixed.alone import loss
from edgelathe.compress.mixed.limits import FLOAT
from edgelathe.compress.sensitivity import passes
from edgelathe.compress.sensitivity.reference import Change, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.mixed.alone import Constants
    from edgelathe.compress.sensitivity.reference import Float

STAGES = ("convolutions", "fully connected layers", "output")
_SLACK = 2.0  # 3 dB: what errors of layers may make together, over what they add up to
_SMALLEST = 1e-9  # of a loss that counts


@dataclass(frozen=True)
class Stage:
    """One stage: how many layers, and the loss of all that is settled by then, as it adds up and as it is."""

    name: str
    layers: int
    expected: float
    measured: float


@dataclass(frozen=True)
class Settled:
    """The width of each layer, those that were taken back to a wider one with the narrower, and the stages."""

    bits: Mapping[str, int]
    back: Mapping[str, int]
    stages: tuple[Stage, ...]


def stages(of: Float, layers: Sequence[Weighted]) -> list[tuple[str, list[Weighted]]]:
    """The layers of each stage, from the output inwards. The last ones are those that no other layer hangs on."""
    found: dict[str, list[Weighted]] = {name: [] for name in STAGES}
    starts = {at for la in layers for at in la.positions}
    for la in sorted(layers, key=lambda la: -la.positions[-1]):
        cut = passes.cut(of.proto.graph, la)
        last = cut is not None and not (starts - set(la.positions)) & set(cut.nodes)
        found[STAGES[2] if last else STAGES[0] if la.op == "Conv" else STAGES[1]].append(la)
    return [(name, group) for name, group in found.items() if group]


def settle(
    of: Float,
    layers: Sequence[Weighted],
    made: Mapping[str, Mapping[int, Constants]],
    choices: Mapping[str, Sequence[Choice]],
    bits: Mapping[str, int],
    room: Room,
) -> Settled:
    """Take over widths one by one.

    Args:
        of: the float model on samples.
        layers: that have widths.
        made: their constants, by layer and width.
        choices: what each may be, with its loss alone.
        bits: the widths that are planned.
        room: of all layers.
    """
    now, back = dict(bits), dict[str, int]()
    constants: dict[str, NDArray[np.float32]] = {}
    expected, measured = 0.0, 0.0
    groups = stages(of, layers)
    left = [la.name for _, group in groups for la in group]
    out = []
    for stage, group in groups:
        for la in group:
            left.remove(la.name)
            while True:
                form = _at(choices[la.name], now[la.name])
                trial = constants | dict(made[la.name][form.bits])
                found = loss(of, whole(of, Change(trial))) if form.bits < FLOAT else measured
                if found <= _SLACK * (expected + form.loss) + _SMALLEST:
                    break
                wider = next((c for c in choices[la.name] if c.bits > form.bits), None)
                rest = _shared(choices, left, now, room, wider)
                if wider is None or rest is None:
                    break
                back.setdefault(la.name, form.bits)
                now |= rest | {la.name: wider.bits}
            constants, measured, expected, room = trial, found, expected + form.loss, room.without(form)
        out.append(Stage(stage, len(group), expected, measured))
    return Settled(now, back, tuple(out))


def _shared(
    choices: Mapping[str, Sequence[Choice]],
    left: Sequence[str],
    now: Mapping[str, int],
    room: Room,
    wider: Choice | None,
) -> dict[str, int] | None:
    """The widths of the layers that are left once one takes a wider form; None where the room does not suffice."""
    if wider is None:
        return None
    if room.open:
        return {name: now[name] for name in left}
    picks = allocate.best([choices[name] for name in left], room.without(wider))
    return None if picks is None else {name: choices[name][i].bits for name, i in zip(left, picks, strict=True)}


def _at(choices: Sequence[Choice], bits: int) -> Choice:
    return next(c for c in choices if c.bits == bits)
