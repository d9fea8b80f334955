"""`mixed` for TFLite files: `int8` with bits of its own for each layer's weights, by what they cost at the output.

TFLite stores 8 or 4 bits, float16 or float32. What each layer costs at each width is measured as `sensitivity` does;
`mixed.allocate` then chooses, and `int8` makes the file.
"""

from __future__ import annotations

import dataclasses
import glob
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgelathe.compress.forward import partial
from edgelathe.compress.mixed import allocate, dropped, limits, within
from edgelathe.compress.mixed.allocate import Choice, Room
from edgelathe.compress.mixed.limits import FLOAT, HALF, word
from edgelathe.compress.sensitivity.errors import EXACT_DB, Error
from edgelathe.compress.tflite import sensitivity, steps
from edgelathe.compress.tflite.sensitive import Scene
from edgelathe.compress.types import LINEAR_TFLITE, Applied, Context, Note, StepSpec, option
from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import run, tflite
from edgelathe.model.graph import layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.tflite.weighted import Weighted
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

_WIDTHS = (4, 8, HALF, FLOAT)
_FOUR = ("CONV_2D", "FULLY_CONNECTED")  # operators with a form of 4-bit weights
_SAMPLES = 128  # that layers are judged on


@dataclass(frozen=True)
class Options(steps.Int8Options):
    """Options of `mixed`: those of `int8`, but that bits are chosen; activations have 8."""

    activations: int = option(8, "bits of the activations", choices=(8,))
    weights: int = option(
        0, "bits of a layer's weights, for its overrides; 0: chosen, 16: float16, 32: float", choices=(0, *_WIDTHS)
    )
    size: str | None = option(None, "what the weights may take: 0.2x of float32, 5bits for each on average, or 80kB")
    drop: str | None = option(None, "what the metric may lose on the calibration samples; 1% where no other limit is")
    cost: str | None = option(None, "bit operations (MACs x weight bits x activation bits): 0.6x of those of 8 bits")
    widths: str = option("4/8", "the bits to choose from: 4, 8, 16 (float16) and float, as in 4/8/float")


def resolve(options: Options, _: Hardware) -> Options:
    """Fill the limit. Raises UserError for what is no size, drop, cost or width."""
    _widths(options.widths)
    return replace(options, drop=limits.held(options.size, options.drop, options.cost))


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Choose the bits of each layer, then quantize by `int8` with them.

    Raises UserError where there are no calibration samples, the model is not float32, or no bits keep the limit.
    """
    data = context.samples("mixed")
    options = resolve(options, Hardware(None, frozenset()))
    steps.must_be_float(model, tflite.parse(model.data))
    with partial.workers(None) as run_all:
        judged = dataset.take(data, dataset.spread(len(data), _SAMPLES))
        scene = Scene.of(model, judged, run_all, {la.name: la.macs for la in layers(model)})
        subject = _Subject(model, options, context, scene)
        widths = subject.widths()
        if all(len(w) == 1 for w in widths.values()):
            made, notes = subject.made({name: w[0] for name, w in widths.items()}), tuple[Note, ...]()
        else:
            made, notes = subject.chosen(widths, data)
    return replace(made, notes=(*notes, *made.notes))


@dataclass(frozen=True, eq=False)
class _Subject:
    """The model, what the recipe says of it, and its layers on samples."""

    model: Model
    options: Options
    context: Context
    scene: Scene

    def widths(self) -> dict[str, tuple[int, ...]]:
        """What each layer that is not skipped may take: what the recipe says, else its choices."""
        found = {}
        for la in self.scene.layers:
            own = steps.options_of(self.options, la.name, self.context.overrides)
            if own is not None:
                found[la.name] = _may(la, own)
        return found

    def chosen(self, widths: Mapping[str, Sequence[int]], data: Dataset) -> tuple[Applied, tuple[Note, ...]]:
        """The model of the best bits, and what is to be said of all layers."""
        macs = self._macs(widths) if self.options.cost is not None else {}
        rows = self._rows(widths)
        names, table = tuple(rows), tuple(rows.values())
        if self.options.drop is None:
            room, said = self._room(rows, macs)
            picks = allocate.best(table, room)
            if picks is None:
                raise _refusal(table, room, macs)
            made = self.made(_picked(names, table, picks))
        else:
            ways, some = allocate.path(table), dropped.counted(data)
            built: dict[int, Applied] = {}

            def answers(way: int) -> NDArray[Any]:
                built[way] = self.made(_picked(names, table, ways[way]))
                return run.outputs(built[way].model, some.inputs)[0]

            limit = dropped.Drop.of(self.options.drop, some, run.outputs(self.model, some.inputs)[0], "integers")
            found, said = limit.fewest(len(ways), answers)
            picks, made = ways[found], built[found]
        total, whole = allocate.total(table, picks), sum(la.bytes(None) for la in self.scene.layers if la.name in rows)
        said += (
            f"; weights take {total.bytes:,} bytes, {total.bytes / whole:.3f}x; {limits.decibels(total.loss)} expected"
        )
        if macs:
            said += f"; {total.operations / within.whole_operations(macs):.3f}x of the bit operations"
        alone = {n: _alone(row, i) for n, row, i in zip(names, table, picks, strict=True)}
        notes = (
            Note(n.layer, n.done, f"{n.what}; {alone[n.layer]}" if alone.get(n.layer) else n.what) for n in made.notes
        )
        return replace(made, notes=tuple(notes)), (Note("model", True, said), self._answers(made.model))

    def made(self, bits: Mapping[str, int]) -> Applied:
        """By `int8`, with an override for each operator."""
        by_operator = {
            self.scene.graph.tensors[self.scene.graph.operators[i].outputs[0]].name: bits[la.name]
            for la in self.scene.layers
            if la.name in bits
            for i in la.positions
        }
        known = {f.name for f in dataclasses.fields(steps.Int8Options)} - {"weights"} | {"skip"}
        overrides: dict[str, dict[str, Any]] = {
            pattern: {k: v for k, v in values.items() if k in known}
            for pattern, values in self.context.overrides.items()
        }
        for name, width in by_operator.items():
            overrides.setdefault(glob.escape(name), {}).update({"skip": True} if width == FLOAT else {"weights": width})
        plain = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(steps.Int8Options)}
        made = steps.int8(
            self.model, steps.Int8Options(**{**plain, "weights": 8}), replace(self.context, overrides=overrides)
        )
        notes = (Note(n.layer, False, word(FLOAT)) if by_operator.get(n.layer) == FLOAT else n for n in made.notes)
        return replace(
            made, notes=tuple(notes), chosen={name: {"weights": width} for name, width in by_operator.items()}
        )

    def _rows(self, widths: Mapping[str, Sequence[int]]) -> dict[str, tuple[Choice, ...]]:
        """What each form of each layer takes and loses; one that no output hangs on loses nothing."""
        integers = sorted({w for row in widths.values() for w in row if w <= 8})
        table = {la.layer: la for la in sensitivity.measure(self.scene, integers or (8,)).layers}
        out = {}
        for la in self.scene.layers:
            row = []
            for bits in widths.get(la.name, ()):
                db = EXACT_DB
                if bits <= 8 and la.name in table:
                    at = table[la.name].at(bits)
                    db = at.sqnr_db if at.hidden_db is None else at.hidden_db
                size = la.bytes(bits) if bits <= 8 else la.weights.size * bits // 8
                row.append(
                    Choice(bits, size, 10 ** (-db / 10), (self.scene.macs.get(la.name) or 0) * limits.operations(bits))
                )
            if row:
                out[la.name] = tuple(row)
        return out

    def _macs(self, names: Iterable[str]) -> dict[str, int]:
        """Multiply-accumulates of each layer. Raises UserError where they are not known."""
        found = {}
        for name in names:
            macs = self.scene.macs.get(name)
            if not macs:
                what = f"the multiply-accumulates of '{name}' are not known"
                raise UserError("mixed: cost", what, "give size or drop")
            found[name] = macs
        return found

    def _room(self, rows: Mapping[str, Sequence[Choice]], macs: Mapping[str, int]) -> tuple[Room, str]:
        size, cost = self.options.size, self.options.cost
        of = [la for la in self.scene.layers if la.name in rows]
        most = None
        if size is not None:
            value, unit = limits.size(size)
            if unit == "x":
                most = int(value * sum(la.bytes(None) for la in of))
            elif unit == "bits":
                most = sum(math.ceil(value * la.weights.size / 8) + 4 * la.layer.outputs for la in of)
            else:
                most = int(value)
        operations = None if cost is None else within.allowed(macs, cost)
        said = [] if most is None else [f"{most:,} bytes"]
        said += [] if cost is None else [f"{cost} of the bit operations of 8 bits"]
        return Room(most, operations), f"{' and '.join(said)} allowed"

    def _answers(self, made: Model) -> Note:
        """What the result is worth on the samples that widths were judged by."""
        want, have = self.scene.head(len(self.scene.data)), run.outputs(made, self.scene.data.inputs)[0]
        changed = self.scene.changed(have)
        text = f"in integers: {Error.of(want, have).db:.1f} dB at the output"
        return Note("model", True, text if changed is None else f"{text}, {changed} of {len(want)} answers changed")


def _widths(text: str) -> tuple[int, ...]:
    found = limits.widths(text)
    for width in found:
        if width not in _WIDTHS:
            raise UserError("mixed: widths", f"TFLite has no {word(width)}", "choose from 4, 8, 16 and float")
    return found


def _may(la: Weighted, own: Options) -> tuple[int, ...]:
    if own.weights:
        return (own.weights,)
    found = _widths(own.widths)
    return found if la.layer.op in _FOUR else tuple(w for w in found if w >= 8) or (8,)


def _picked(names: Sequence[str], table: Sequence[Sequence[Choice]], picks: Sequence[int]) -> dict[str, int]:
    return {name: row[i].bits for name, row, i in zip(names, table, picks, strict=True)}


def _refusal(table: Sequence[Sequence[Choice]], room: Room, macs: Mapping[str, int]) -> UserError:
    """Which limit the fewest bits do not keep; they are the fewest bytes and the fewest operations."""
    mend = "raise it, or allow fewer bits in `widths`"
    least = allocate.total(table, (0,) * len(table))
    if room.bytes is not None and least.bytes > room.bytes:
        return UserError("mixed: size", f"{room.bytes:,} bytes of weights, the fewest bits take {least.bytes:,}", mend)
    share = limits.share(least.operations / within.whole_operations(macs))
    return UserError("mixed: cost", f"the fewest bits take {share} of the bit operations", mend)


def _alone(row: Sequence[Choice], at: int) -> str:
    """What a form loses alone, and what the next narrower one would."""
    parts = [f"{limits.decibels(row[at].loss)} alone"] if row[at].bits <= 8 else []
    return ", ".join([*parts, *(f"{limits.decibels(c.loss)} with {word(c.bits)}" for c in row[:at][-1:])])


SPEC = StepSpec(
    "integers with bits chosen for each layer, by what they cost at the output",
    Options,
    apply,
    needs=frozenset({"data"}),
    resolve=resolve,
    ops=LINEAR_TFLITE,
    final=True,
)
