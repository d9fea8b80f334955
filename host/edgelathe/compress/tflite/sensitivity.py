"""`sensitivity` of TFLite models: the table of `compress.sensitivity`, by partial passes of the interpreter."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.sensitivity import rounds, screening
from edgelathe.compress.sensitivity import run as both
from edgelathe.compress.sensitivity.changes import rounding
from edgelathe.compress.sensitivity.errors import EXACT_DB
from edgelathe.compress.sensitivity.keep import Together
from edgelathe.compress.sensitivity.known import Found, Key, store
from edgelathe.compress.sensitivity.strata import Known
from edgelathe.compress.sensitivity.table import Sensitivity
from edgelathe.compress.tflite import passes
from edgelathe.compress.tflite.passes import Block, Change, Job
from edgelathe.compress.tflite.sensitive import Scene
from edgelathe.compress.tflite.suffix import Suffix, suffix
from edgelathe.compress.types import Note
from edgelathe.core.errors import UserError
from edgelathe.model.graph import layers as graph_layers
from edgelathe.model.run import one_line
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Map
    from edgelathe.compress.sensitivity.measure import Tick
    from edgelathe.compress.sensitivity.run import Plan, RunTogether
    from edgelathe.compress.tflite.weighted import Weighted
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model


def document(
    path: str, model: Model, data: Dataset, plan: Plan, tick: Tick = lambda what, part: None
) -> dict[str, Any]:
    """`sensitivity.run.document` of ONNX and TFLite models alike, arguments and errors as there."""
    return both.document(path, model, data, plan, tick, measured if model.format == "tflite" else both.measured)


def measured(model: Model, data: Dataset, plan: Plan, run_all: Map, tick: Tick) -> tuple[Sensitivity, RunTogether, int]:
    """Of a float TFLite model: the table, how it is run with several layers rounded, and the samples of a run."""
    try:
        scene = Scene.of(model, data, run_all, {la.name: la.macs for la in graph_layers(model)})
        found = measure(scene, plan.widths, plan.activations, early=plan.early, tick=tick)
    except (RuntimeError, ValueError) as e:
        what = f"does not run with inner tensors kept: {one_line(e)}"
        raise UserError(model.name, what, "give the ONNX model that it was converted from") from e
    return found, functools.partial(run_together, scene), scene.batch


def measure(
    scene: Scene, widths: Sequence[int], activations: int | None = None, *, early: bool = False,
    tick: Tick = lambda what, part: None,
) -> Sensitivity:  # fmt: skip
    """Round each layer alone to each width; arguments and errors as `sensitivity.measure.measure` has them."""
    cuts = {la.name: suffix(scene.graph, la.positions, scene.judged) for la in scene.layers}
    alive = [la for la in scene.layers if cuts[la.name].outputs]
    keys = [(la.name, j) for la in alive for j in range(len(widths))]
    found: dict[Key, Found] = {}
    changes: dict[str, list[Change]] = {}
    todo = set(keys)
    while todo:
        layers = [la for la in alive if any(name == la.name for name, _ in todo)]
        boundary = [t for la in layers for t in (*cuts[la.name].boundary, la.layer.source)]
        for block in passes.blocks(scene, boundary, screening.LEAST):
            if not found:
                _check(scene, block)
                held = store(len(keys), len(scene.data), scene.head(1), passes.BLOCK_BYTES)
                found = {key: Found(scene, row, early) for key, row in zip(keys, held, strict=True)}
                changes = {la.name: _changes(scene, block, la, widths, activations) for la in alive}
            known = _known(scene, block)
            jobs = list(_jobs(known, layers, cuts, changes, found, todo))
            if not jobs:
                break

            def done(job: Job, part: float, before: int = block.start, n: int = block.count) -> None:
                samples = len(scene.data)
                tick(f"layer {alive.index(job.layer) + 1} of {len(alive)}", min((before + n * part) / samples, 1.0))

            rounds.take_in(block.settle, jobs, found, widths, known, done)
        todo = rounds.doubted(found, todo, _margins(scene))
    return _table(scene, alive, widths, activations, changes, found)


def run_together(scene: Scene, bits: int, out: Sequence[str]) -> Together:
    """The model with all layers rounded but `out`, on all samples."""
    constants: dict[int, NDArray[np.float32]] = {}
    for la in scene.layers:
        if la.name not in out:
            constants |= la.rounded(bits, scene.means[la.name])
    size = sum(la.bytes(None if la.name in out else bits) for la in scene.layers)
    answer = scene.whole(constants)
    output = answer.db(scene.outputs)
    accuracy, changed = scene.accuracy(answer.first), scene.changed(answer.first)
    return Together(accuracy, changed, EXACT_DB if output is None else output, size)


def _check(scene: Scene, block: Block) -> None:
    """Whether outputs and labels fit the metric, before the work."""
    labels = scene.data.labels
    metrics.evaluate(scene.metric, scene.head(block.count), None if labels is None else labels[: block.count])


def _changes(scene: Scene, block: Block, la: Weighted, widths: Sequence[int], activations: int | None) -> list[Change]:
    """The layer's constants at each width, and its input's rounding, to the range that the first block has."""
    source = None
    if activations:
        source = rounding(np.concatenate([v[la.layer.source] for v in block.runs]), activations)
    return [Change(la.rounded(bits, scene.means[la.name]), source) for bits in widths]


def _known(scene: Scene, block: Block) -> Known | None:
    """What the float model tells of a block's samples; of a fixed batch no sample is left out."""
    scores, tensors = scene.scores if scene.batch == 1 else None, scene.graph.tensors
    if scores is None:
        return None
    return Known.of({tensors[t].name: block.want[t] for t in scene.judged}, tensors[scores].name)


def _jobs(
    known: Known | None, layers: Sequence[Weighted], cuts: Mapping[str, Suffix],
    changes: Mapping[str, Sequence[Change]], found: Mapping[Key, Found], todo: set[Key],
) -> Iterator[Job]:  # fmt: skip
    """What is to be run on a block."""
    for la in layers:
        for j, change in enumerate(changes[la.name]):
            one = found[la.name, j]
            if (la.name, j) in todo and not one.settled:
                yield Job(la, cuts[la.name], j, change, one.rows(known))


def _margins(scene: Scene) -> NDArray[np.float32] | None:
    """Of all samples that were looked at; None where none was left out."""
    scores = scene.scores if scene.batch == 1 else None
    return None if scores is None else screening.margins(np.concatenate([v[scores] for v in scene.known]))


def _table(
    scene: Scene, alive: Sequence[Weighted], widths: Sequence[int], activations: int | None,
    changes: Mapping[str, Sequence[Change]], found: Mapping[Key, Found],
) -> Sensitivity:  # fmt: skip
    rows = []
    for la in alive:
        made = [change.constants[la.layer.weight] for change in changes[la.name]]
        how = widths, activations
        rows.append(rounds.entry(la.name, la.layer.op, la.weights, made, la.bytes, scene.macs, found, how))
    dead = tuple(Note(la.name, False, "no output hangs on it") for la in scene.layers if la not in alive)
    rows.sort(key=lambda r: r.mean_db)
    labels = scene.data.labels
    known = scene.head(len(scene.data))
    baseline = metrics.evaluate(scene.metric, known, None if labels is None else labels[: len(known)])
    return Sensitivity(tuple(rows), baseline, labels is not None, (*scene.skipped, *dead))
