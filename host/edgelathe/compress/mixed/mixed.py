"""`mixed`: static quantization with bits of its own for each layer, chosen by what they cost the model's output.

Widths are chosen here; `int8` then quantizes with them, so that the result is what a recipe of `int8` with these
widths as overrides makes.
"""

from __future__ import annotations

import dataclasses
import glob
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.corrections import held_out
from edgelathe.compress.forward import partial
from edgelathe.compress.graph.moves import is_depthwise
from edgelathe.compress.half import fp16
from edgelathe.compress.integer import int8, qplan
from edgelathe.compress.mixed import alone, gated, limits, outcome, sizes, staged, within
from edgelathe.compress.mixed.allocate import Room
from edgelathe.compress.mixed.limits import FLOAT, HALF, word
from edgelathe.compress.sensitivity.reference import input_means
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.compress.weights.levels import NORMAL_BITS
from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware

if TYPE_CHECKING:
    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.mixed.allocate import Choice
    from edgelathe.compress.mixed.alone import Subject
    from edgelathe.compress.mixed.staged import Settled
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

_HELD, _EVERY = 64, 4  # samples that widths are judged by: so many, one of so many


@dataclass(frozen=True)
class Options(int8.Options):
    """Options of `mixed`: those of `int8`, but that bits are chosen."""

    weights: int = option(
        0,
        "bits of a layer's weights, for its overrides; 0: chosen, 16: float16, 32: float",
        choices=(0, *limits.WIDTHS),
    )
    depthwise: int = option(2, "bits of the weights of depthwise layers, at least", choices=(8, 7, 6, 5, 4, 3, 2))
    size: str | None = option(None, "what the weights may take: 0.2x of float32, 5bits for each on average, or 80kB")
    drop: str | None = option(None, "what the metric may lose on the calibration samples; 1% where no other limit is")
    cost: str | None = option(None, "bit operations (MACs x weight bits x activation bits): 0.6x of those of 8 bits")
    widths: str = option("3/4/5/6/8", "the bits to choose from: 2 to 8, 16 (float16) and float, as in 4/8/float")
    gate: bool | str = option(
        True,
        "take widths over stage by stage, back to a wider one where errors more than add up; channel: and new scales "
        "and biases for the output channels that gain",
        choices=(True, False, "channel"),
    )


def resolve(options: Options, hardware: Hardware) -> Options:
    """Fill the open choices as `int8` does, and the limit. Raises UserError for what is no size, drop or width."""
    limits.widths(options.widths)
    options = replace(options, drop=limits.held(options.size, options.drop, options.cost))
    if options.levels == "normal" and (options.rounding == "nearest" or not NORMAL_BITS & _allowed(options)):
        what = "normal levels are for 2 to 5 bits, rounded by second order"
        raise UserError("mixed: levels", what, "allow some of these bits in `widths`, or leave levels away")
    # The levels of each layer count, once its bits are known.
    filled = int8.resolve(replace(options, levels="auto"), hardware)
    assert isinstance(filled, Options)
    return replace(filled, levels=options.levels)


def _allowed(options: Options) -> set[int]:
    return {options.weights} if options.weights else set(limits.widths(options.widths))


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Choose the bits of each layer, then quantize by `int8` with them.

    Raises UserError where there are no calibration samples, too few of them for `gate=channel`, or the fewest bits take
    more than `size`.
    """
    data = context.samples("mixed")
    options = resolve(options, Hardware(None, frozenset()))
    if options.gate == "channel":
        held_out.folds(data, "mixed(gate=channel)")  # too few samples are told of before the work
    of = alone.subject(model, options, context)
    chosen = _choose(of, options, data, context.seed)
    applied, more = _write(model, of, chosen, options, context), tuple[Note, ...]()
    if options.gate == "channel" and applied.twin is not None:
        made, more = gated.gated(applied.model, applied.twin, context, "mixed")
        applied = replace(applied, model=made)
    answers = outcome.answers(model, applied.model, data, _parts(data)[1])
    return replace(applied, notes=(*chosen.notes, answers, *applied.notes, *more))


@dataclass(frozen=True)
class _Chosen:
    """Bits by layer, why by layer, and what is to be said of all."""

    bits: Mapping[str, int]
    why: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def _choose(of: Subject, options: Options, data: Dataset, seed: int) -> _Chosen:
    widths = {la.name: _widths(la, _own(of)[la.name]) for la in of.layers}
    if all(len(w) == 1 for w in widths.values()):
        return _Chosen({name: w[0] for name, w in widths.items()})
    macs = within.macs(of) if options.cost is not None else {}
    room = Room(
        None if options.size is None else _bytes(options.size, of),
        None if options.cost is None else within.allowed(macs, options.cost),
    )
    fitted, held = _parts(data)
    with partial.workers(None) as run_all:
        judge = of.run(held, run_all)
        made = alone.forms(of, widths, fitted, input_means(judge, of.layers), seed)
        lost = alone.losses(judge, of.layers, made)
        choices: within.Choices = {la.name: alone.choices(la, lost[la.name], macs.get(la.name, 0)) for la in of.layers}
        if room.open:
            picks, said = within.drop(of, made, choices, str(options.drop), data, run_all)
        else:
            asked = [f"{k}={v}" for k, v in (("size", options.size), ("cost", options.cost)) if v]
            counted = [] if room.bytes is None else [f"{room.bytes:,} bytes"]
            counted += [f"{options.cost} of the bit operations of 8 bits"] if macs else []
            said = f"{' and '.join(counted)} allowed"
            picks, choices, room = within.fitting(choices, room, " and ".join(asked))
        settled = staged.Settled(picks, {}, ())
        if options.gate:
            settled = staged.settle(judge, of.layers, made, choices, picks, room)
    if macs:
        counts = sum(m * limits.operations(settled.bits[name]) for name, m in macs.items())
        taken = counts / within.whole_operations(macs)
        said += f", {taken:.3f}x taken"
    return _told(of, choices, settled, said, len(held))


def _widths(la: Weighted, own: Options) -> tuple[int, ...]:
    """What one layer may take: what the recipe says, else its choices."""
    if own.weights:
        return (own.weights,)
    found = limits.widths(own.widths)
    if not is_depthwise(la.node):
        return found
    return tuple(w for w in found if w >= own.depthwise) or (own.depthwise,)


def _own(of: Subject) -> Mapping[str, Options]:
    return of.options  # type: ignore[return-value]  # made from options of `mixed`


def _parts(data: Dataset) -> tuple[Dataset, Dataset]:
    """Samples that roundings are fitted to, and others that they are judged by; all for both where there are few."""
    if len(data) < 2 * _EVERY:
        return data, data
    aside = np.arange(_EVERY - 1, len(data), _EVERY)
    if len(aside) > _HELD:
        aside = aside[np.linspace(0, len(aside) - 1, _HELD).astype(int)]
    return dataset.take(data, np.setdiff1d(np.arange(len(data)), aside)), dataset.take(data, aside)


def _bytes(text: str, of: Subject) -> int:
    """The limit of `size` for this model."""
    value, unit = limits.size(text)
    if unit == "x":
        return int(value * sum(4 * la.elements for la in of.layers))
    if unit == "bits":
        each = sum(sizes.stored_bytes(la.elements, la.channels, value) for la in of.layers)
        return each + sizes.shared_bytes(math.floor(value))
    return int(value)


def _told(of: Subject, choices: Mapping[str, Sequence[Choice]], settled: Settled, said: str, n: int) -> _Chosen:
    """Why each layer has its bits, and what all of them take and lose."""
    picked = {name: next(c for c in row if c.bits == settled.bits[name]) for name, row in choices.items()}
    why = {}
    for name, row in choices.items():
        parts = [f"{limits.decibels(picked[name].loss)} alone"] if picked[name].bits < FLOAT else []
        narrower = [c for c in row if c.bits < picked[name].bits]
        parts += [f"{limits.decibels(c.loss)} with {word(c.bits)}" for c in narrower[-1:]]
        if name in settled.back:
            parts.append(f"with {word(settled.back[name])} errors more than add up")
        why[name] = ", ".join(parts)
    size, whole = sum(c.bytes for c in picked.values()), sum(4 * la.elements for la in of.layers)
    expected = math.fsum(c.loss for c in picked.values())
    notes = [
        f"{said}; weights take {size:,} bytes, {size / whole:.3f}x; {limits.decibels(expected)} expected of {n} samples"
    ]
    notes += [
        f"{s.name}: {s.layers} settled, {limits.decibels(s.measured)} measured, {limits.decibels(s.expected)} expected"
        for s in settled.stages
    ]
    return _Chosen(settled.bits, why, tuple(Note("model", True, text) for text in notes))


def _write(model: Model, of: Subject, chosen: _Chosen, options: Options, context: Context) -> Applied:
    """By `int8`, with an override for each layer; float16 for those of 16 bits."""
    bits = {name: chosen.bits[la.name] for la in of.layers for name in of.names[la.name]}
    why = {name: chosen.why.get(la.name, "") for la in of.layers for name in of.names[la.name]}
    levels = {name: of.options[la.name].levels for la in of.layers for name in of.names[la.name]}
    overrides: dict[str, dict[str, Any]] = {
        pattern: {k: v for k, v in values.items() if k in _SHARED} for pattern, values in context.overrides.items()
    }
    for name, width in bits.items():
        own = {"skip": True} if width > 8 else {"weights": width, "depthwise": width, "levels": levels[name]}
        overrides.setdefault(glob.escape(name), {}).update(own)
    if halves := [name for name, width in bits.items() if width == HALF]:
        only = {"*": {"skip": True}} | {glob.escape(name): {"skip": False} for name in halves}
        model = fp16.apply(model, fp16.Options("float"), Context(overrides=only)).model
    plain = int8.Options(**{f.name: getattr(options, f.name) for f in dataclasses.fields(int8.Options)})
    applied = int8.apply(
        model, replace(plain, weights=8, depthwise=8, levels="auto"), replace(context, overrides=overrides)
    )
    notes = list(applied.notes)
    for at in {n.layer: i for i, n in enumerate(notes) if n.layer in bits}.values():  # the last word on each layer
        name = notes[at].layer
        what = notes[at].what if bits[name] <= 8 else word(bits[name])
        notes[at] = Note(name, bits[name] < FLOAT, "; ".join(filter(None, (what, why[name]))))
    return replace(applied, notes=tuple(notes), chosen={name: {"weights": width} for name, width in bits.items()})


_SHARED = frozenset(f.name for f in dataclasses.fields(int8.Options)) - {"weights", "depthwise"} | {"skip"}


SPEC = StepSpec(
    "integers with bits chosen for each layer, by what they cost at the output",
    Options,
    apply,
    needs=frozenset({"data"}),
    after=("fold",),
    resolve=resolve,
    ops=LINEAR | qplan.MATH,
    final=True,
    float32=True,
)
