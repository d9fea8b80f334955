"""`prune`: whole channels go, with everything that depends on them; the layers that read them are refitted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph import fold
from edgelathe.compress.graph import moves as g
from edgelathe.compress.pruning import channels, elimination, moments, refit, trial
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.core import dataset
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.pruning.channels import Group, Map
    from edgelathe.compress.pruning.elimination import Order
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.profile import Hardware
    from edgelathe.model.types import Model


_MACS = 10_000_000_000
_FEWEST = 32


@dataclass(frozen=True)
class Options:
    """Options of `prune`."""

    channels: float = option(0.3, "share of the channels to remove", low=0.0, high=0.95)
    multiple: int | None = option(None, "widths that are kept are multiples of this", low=1, high=256)
    repair: bool = option(True, "refit the layers behind by least squares, where calibration data are given")
    allocate: str = option(
        "sensitivity", "where channels go: where they cost least, or the same share everywhere",
        choices=("sensitivity", "uniform"),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Candidate:
    """A group that may shrink: the order in which its units go and what that costs and saves.

    Attributes:
        options: those that hold for its layers.
        order: of its units, by their place in `group.units`.
        keep: widths in units that it may have, widest first.
        count: channels of all its layers that one unit stands for.
        saving: multiplications that one unit less saves.
    """

    group: Group
    options: Options
    order: Order
    keep: tuple[int, ...]
    count: int
    saving: float


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Cut channels; channels that are left keep their order.

    With calibration data the order of removal follows from the error that a least-squares refit of the readers leaves
    (He, Zhang and Sun, "Channel pruning", 2017; elimination as in `elimination`), else from weights alone. Never cuts
    the model's own inputs and outputs, nor what an operator without a rule touches.

    Raises UserError for a model that is quantized already: its constants would be folded back to float.
    """
    g.refuse_quantized(onnx_model.to_ir(model).graph, model.name)
    if context.data is not None:
        context = replace(context, data=affordable(model, context.data))
    before, after = prepared(model), prepared(model)
    found = channels.analyse(after)
    if not found.layers:
        return Applied(model, (Note("model", False, "no layer whose channels can be told apart"),))
    probe = None
    if context.data is not None and options.repair and options.allocate == "sensitivity":
        probe = trial.Probe.of(prepared(model), trial.held_out(context.data))
    candidates, notes = _candidates(found, after, options, context, probe)
    widths = allocate(candidates, options)
    gone = [c.group.units[c.order.units[: len(c.group) - w]] for c, w in zip(candidates, widths, strict=True)]
    units = np.concatenate([*gone, np.empty(0, np.int64)])
    if not len(units):
        return Applied(model, (*notes, *_width_notes(candidates, widths)))
    kept = {layer.node: ~np.isin(found.unit[layer.ids], units) for layer in found.layers}
    channels.cut(after.graph, found, units)
    notes += _width_notes(candidates, widths)
    if options.repair and context.data is not None:
        skip = {i for i, n in enumerate(after.graph) if g.options_for(options, n, context.overrides) is None}
        notes += refit.refit(before, after, kept, context, skip)
    return Applied(onnx_model.from_ir(after, model.name), tuple(notes))


def affordable(model: Model, data: Dataset) -> Dataset:
    """As many samples, spread over all, as `_MACS` multiplications run once; `_FEWEST` at least.

    Orders, trials and refits run parts of the model a few hundred times.
    """
    macs = sum(layer.macs or 0 for layer in layers(model))
    most = max(_FEWEST, _MACS // max(1, macs))
    return data if len(data) <= most else dataset.take(data, np.linspace(0, len(data) - 1, most).astype(np.int64))


def prepared(model: Model) -> ir.Model:
    """A graph whose constants are initializers and whose inner shapes are known."""
    import onnx_ir.passes.common as passes

    out = onnx_model.to_ir(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(out)
    fold.infer_shapes(out)
    return out


def allocate(candidates: list[Candidate], options: Options) -> list[int]:
    """The width of each candidate, in units.

    `uniform` takes the nearest allowed width to the same share of each. `sensitivity` goes down the widths where the
    added error is least for the multiplications that it saves, over several widths at once where that is better, until
    the share of all their channels is gone.
    """
    out = []
    steps: list[tuple[float, int, int]] = []  # error per multiplication saved, candidate, width to go to
    target = 0.0
    for i, c in enumerate(candidates):
        share = c.options.channels
        if share != options.channels or options.allocate == "uniform":
            want = len(c.group) * (1 - share)
            out.append(_nearest(list(c.keep), want))
            continue
        out.append(c.keep[0])
        steps += [(price, i, width) for price, width in _descent(c)]
        target += c.count * len(c.group) * share if len(c.keep) > 1 else 0.0
    for _, i, width in sorted(steps, key=lambda step: step[0]):
        c = candidates[i]
        reach = [w for w in c.keep if width <= w <= out[i]]
        best = _nearest(reach, out[i] - target / c.count)
        target -= c.count * (out[i] - best)
        out[i] = best
    return out


def _nearest(widths: list[int], wanted: float) -> int:
    """The width nearest to the wanted one; of two that are as near, the narrow one."""
    return min(widths, key=lambda w: (abs(w - wanted), w))


def _descent(c: Candidate) -> list[tuple[float, int]]:
    """The lower convex hull of error over width: (error per multiplication saved, width), from wide to narrow."""
    keep = np.array(c.keep)
    error = c.order.error[len(c.group) - keep]
    out, at = [], 0
    while at < len(keep) - 1:
        price = (error[at + 1 :] - error[at]) / ((keep[at] - keep[at + 1 :]) * c.saving)
        best = int(np.flatnonzero(price == price.min())[-1])
        at += best + 1
        out.append((float(price[best]), int(keep[at])))
    return out


def widths(units: int, multiple: int, copies: int) -> tuple[int, ...]:
    """Numbers of units that a group may keep, widest first: all, then those whose channels are a multiple.

    A multiple that would leave no choice is halved until two of it fit, so that small models can be pruned too.
    """
    while multiple > 1 and multiple > units * copies // 2:
        multiple //= 2
    step = multiple // math.gcd(multiple, copies)
    return (units, *range((units - 1) // step * step, 0, -step))


def _candidates(
    found: Map, model: ir.Model, options: Options, context: Context, probe: trial.Probe | None
) -> tuple[list[Candidate], list[Note]]:
    chosen: list[tuple[Group, Options]] = []
    notes = []
    for group in found.groups:
        held = [g.options_for(options, n, context.overrides) for n in group.layers]
        names = [g.layer(n) for n in group.layers]
        if group.why:
            notes += [Note(name, False, f"{len(group)} channels stay: {group.why}") for name in names]
        elif None in held:
            notes += [Note(name, False, "skipped by the recipe") for name in names]
        elif found.readers(group) and len(group) > 1:
            chosen.append((group, next((h for h in held if h and h != options), options)))
        else:
            notes += [Note(name, False, "no layer reads its channels, or there is one only") for name in names]
    orders = _orders(found, model, [c[0] for c in chosen], options, context, probe)
    saving = _savings(found)
    counts = np.bincount(np.concatenate([found.unit[layer.ids] for layer in found.layers]), minlength=len(found.unit))
    out = []
    for (group, own), order in zip(chosen, orders, strict=True):
        keep = widths(len(group), own.multiple or 1, group.copies)
        out.append(Candidate(group, own, order, keep, int(counts[group.units[0]]), float(saving[group.units].mean())))
    return out, notes


def _orders(
    found: Map, model: ir.Model, groups: list[Group], options: Options, context: Context, probe: trial.Probe | None
) -> list[Order]:
    """The order of removal of each group's units."""
    if context.data is None:
        return [elimination.without_refit(moments.unmeasured(found, group), len(group)) for group in groups]
    out = []
    place = {n: i for i, n in enumerate(model.graph)}
    probed = list(probe.model.graph) if probe else []
    seen = replace(context, data=trial.the_others(context.data)) if probe else context
    measured = moments.measured(found, model, groups, seen, centred=options.repair)
    for group, readers in zip(groups, measured, strict=True):
        if not options.repair or any(r.few for r in readers):
            out.append(elimination.without_refit(readers, len(group)))
            continue
        last = widths(len(group), options.multiple or 1, group.copies)[-1]
        order = elimination.with_refit(readers, len(group), last)
        if probe:
            nodes = [probed[place[s.node]] for s in found.readers(group)]
            order = trial.rescaled(order, readers, nodes, probe)
        out.append(order)
    return out


def _savings(found: Map) -> NDArray[np.float64]:
    """Multiplications that each unit stands for: its share of every layer that makes, passes or reads it."""
    out = np.zeros(len(found.unit))
    for s in found.slices:
        data = g.array(s.node.inputs[s.index])
        if s.index != 1 or data is None or s.node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        shape = s.node.outputs[0].shape
        space = [d for d in shape[2:] if isinstance(d, int)] if shape is not None and data.ndim > 2 else []
        np.add.at(out, found.unit[s.ids], data.size * math.prod(space) / len(s.ids))
    return out


def _width_notes(candidates: list[Candidate], widths: list[int]) -> list[Note]:
    out = []
    for c, width in zip(candidates, widths, strict=True):
        n, copies = len(c.group), c.group.copies
        what = f"{n * copies} -> {width * copies} channels" if width < n else f"keeps its {n * copies} channels"
        out += [Note(g.layer(node), width < n, what) for node in c.group.layers]
    return out


def _resolve(options: Options, hardware: Hardware) -> Options:
    return replace(options, multiple=options.multiple or hardware.channel_multiple)


SPEC = StepSpec(
    "whole channels removed, the layers behind them refitted",
    Options,
    apply,
    after=("fold",),
    resolve=_resolve,
    ops=LINEAR,
    float32=True,
)
