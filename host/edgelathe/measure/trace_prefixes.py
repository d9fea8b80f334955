"""Time per part of a TFLite model, from the differences of its beginnings.

No released wheel of TFLite's interpreters lets Python hear its profiler. The model is cut off after an operator, each
beginning is timed, and the time of what lies between two cuts is the difference of theirs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgelathe.measure.trace_rows import Estimate, Rounds, Row, Trace, centre, main_layer, middle
from edgelathe.model import cut_tflite, graph, tflite

if TYPE_CHECKING:
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.device.session import Session, Timed
    from edgelathe.measure.trace_plan import TracePlan
    from edgelathe.model.graph import Layer
    from edgelathe.model.types import Model

Inputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class _Subject:
    """One model and after how many operators it is cut, the last being all."""

    name: str
    model: Model
    layers: tuple[Layer, ...]
    options: SessionOptions
    inputs: Inputs
    cuts: tuple[int, ...]


class _Window(NamedTuple):
    """Beginnings of one model that are timed in turns: `first` to `last` of its cuts; -1: nothing at all."""

    first: int
    last: int


def by_prefixes(
    device: Device,
    models: Sequence[tuple[str, Model]],
    options: Sequence[SessionOptions],
    inputs: Sequence[Inputs],
    plan: TracePlan,
    tick: Callable[[float], None],
) -> list[Trace]:
    """A trace of each TFLite model. Neighbouring beginnings of all models are timed in the same rounds, in turns.

    A second model is cut where the first one is, by the names of tensors. Raises ModelFailure where the device cannot
    run a model or a beginning of it.
    """
    subjects: list[_Subject] = []
    for (name, model), how, fed in zip(models, options, inputs, strict=True):
        preferred = _names(subjects[0]) if subjects else ()
        cuts = cut_tflite.borders(model, plan.parts, preferred)
        subjects.append(_Subject(name, model, graph.layers(model), how, fed, cuts))
    size = max(2, plan.together // len(subjects))
    windows = [_windows(len(s.cuts), size) for s in subjects]
    steps = max(map(len, windows))
    differences: list[list[Rounds]] = [[] for _ in subjects]
    totals: list[Estimate] = [Estimate(0.0, 0.0, 0.0)] * len(subjects)
    blocks: list[list[Timed]] = [[] for _ in subjects]
    warnings: list[tuple[str, ...]] = [()] * len(subjects)
    for step in range(steps):
        mine = [(i, s, w[step]) for i, (s, w) in enumerate(zip(subjects, windows, strict=True)) if step < len(w)]
        with ExitStack() as stack:
            sessions = [_open(stack, device, s, w, plan.require_provider) for _, s, w in mine]
            times = _timed(sessions, plan, lambda part, at=step: tick((at + part) / steps))  # type: ignore[misc]
        for (i, s, w), taken, opened in zip(mine, times, sessions, strict=True):
            differences[i] += _differences([np.array([middle(b.ns[1:]) for b in of]) for of in taken], w)
            blocks[i] += [b for of in taken for b in of]
            warnings[i] = tuple(dict.fromkeys((*warnings[i], *(t for o in opened for t in o.warnings))))
            if w.last == len(s.cuts) - 1:
                totals[i] = centre(np.array([middle(b.ns[1:]) for b in taken[-1]]))
    return [_trace(*of) for of in zip(subjects, differences, totals, blocks, warnings, strict=True)]


def monotone(values: Sequence[float]) -> list[float]:
    """The non-decreasing values nearest to these (pool adjacent violators; Barlow et al., 1972)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, n = pools.pop()
            mean, count = (mean * count + before * n) / (count + n), count + n
        pools.append((mean, count))
    return list(itertools.chain.from_iterable([mean] * count for mean, count in pools))


def _windows(cuts: int, size: int) -> list[_Window]:
    """Neighbours share one cut: a difference is always of beginnings that were timed in the same rounds."""
    first, out = -1, []
    while first < cuts - 1:
        last = min(cuts - 1, max(first, 0) + size - 1) if first >= 0 else min(cuts - 1, size - 1)
        out.append(_Window(first, last))
        first = last
    return out


def _open(stack: ExitStack, device: Device, s: _Subject, w: _Window, require: str | None) -> list[Session]:
    sessions = []
    for at in range(max(w.first, 0), w.last + 1):
        beginning = cut_tflite.prefix(s.model, s.cuts[at])
        session = stack.enter_context(device.open_session(beginning, s.options, require_provider=require))
        session.feed(s.inputs)
        sessions.append(session)
    return sessions


def _timed(
    sessions: Sequence[Sequence[Session]], plan: TracePlan, tick: Callable[[float], None]
) -> list[list[list[Timed]]]:
    """A block of each session in each round: of each model, of each of its sessions, in the order of the rounds."""
    chance, turns = random.Random(plan.seed), [(i, j) for i, of in enumerate(sessions) for j in range(len(of))]
    taken: list[list[list[Timed]]] = [[[] for _ in of] for of in sessions]
    for i, j in turns:
        sessions[i][j].time(2, plan.warm_ms / 3)
    for number in range(plan.rounds):
        chance.shuffle(turns)
        for i, j in turns:
            taken[i][j].append(sessions[i][j].time(2, plan.block_ms / 2, number))
        tick((number + 1) / plan.rounds)
    return taken


def _differences(times: Sequence[Rounds], w: _Window) -> list[Rounds]:
    """Of each beginning over the one before, made to be none below nothing over all rounds."""
    base = [np.zeros_like(times[0])] if w.first < 0 else []
    series = [*base, *times]
    level = [centre(t).ms for t in series]
    shift = [m - v for m, v in zip(monotone(level), level, strict=True)]
    return [(b + db) - (a + da) for (a, da), (b, db) in itertools.pairwise(zip(series, shift, strict=True))]


def _trace(
    s: _Subject, differences: Sequence[Rounds], total: Estimate, blocks: Sequence[Timed], warnings: tuple[str, ...]
) -> Trace:
    main_graph = tflite.parse(s.model.data).main
    operators = main_graph.operators
    names = [main_graph.tensors[op.outputs[0]].name if op.outputs else op.op for op in operators]
    place = {layer.name: i for i, layer in enumerate(s.layers)}
    rows = []
    for (start, end), rounds in zip(itertools.pairwise((0, *s.cuts)), differences, strict=True):
        covered = tuple(sorted(place[n] for n in names[start:end] if n in place))
        main = main_layer(s.layers, covered) if covered else None
        rows.append(
            Row(covered, main.op if main else operators[start].op, "", "", main.dtype if main else "",
                "operator" if covered else "runtime", rounds, 1.0)
        )  # fmt: skip
    sum_ms = sum(max(0.0, r.measured.ms) for r in rows)
    scale = total.ms / sum_ms if sum_ms > 0 else 1.0
    return Trace(
        s.name, s.model.format, s.layers, s.options, "prefixes", total, None, tuple(rows), scale=scale,
        blocks=tuple(blocks), warnings=warnings,
    )  # fmt: skip


def _names(s: _Subject) -> tuple[str, ...]:
    main = tflite.parse(s.model.data).main
    return tuple(
        main.tensors[main.operators[c - 1].outputs[0]].name for c in s.cuts[:-1] if main.operators[c - 1].outputs
    )
