"""How much each layer's bit width costs the model: the error at its output, and its accuracy, layer by layer.

Each layer's weights alone are rounded, as `int8` would store them, to each width in turn; all else stays float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph.moves import array
from edgelathe.compress.sensitivity import changes as changing
from edgelathe.compress.sensitivity import passes, rounds, screening
from edgelathe.compress.sensitivity.known import Found, store
from edgelathe.compress.sensitivity.passes import Job
from edgelathe.compress.sensitivity.reference import Change
from edgelathe.compress.sensitivity.strata import Known
from edgelathe.compress.sensitivity.table import Sensitivity
from edgelathe.compress.types import Note
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.passes import Block
    from edgelathe.compress.sensitivity.scene import Scene
    from edgelathe.model.cut_onnx import Suffix

WIDTHS = (16, 8, 4)
Tick = Callable[[str, float], None]


def measure(
    scene: Scene, widths: Sequence[int], activations: int | None = None, *, early: bool = False,
    tick: Tick = lambda what, part: None,
) -> Sensitivity:  # fmt: skip
    """Round each layer alone to each width.

    Of classes not all samples are run, but answers are known of all of them (`screening`, `strata`).

    Args:
        scene: the float model on its samples, in random order.
        widths: bits of the weights, 2 to 16.
        activations: bits that the layer's input is rounded to as well, 2 to 16; None: it stays float.
        early: leave a width of a layer alone once it is settled.
        tick: told of progress.

    Raises:
        UserError: outputs or labels do not fit the metric.
    """
    cuts = {la.name: cut for la in scene.layers if (cut := passes.cut(scene.float.proto.graph, la))}
    alive = [layer for layer in scene.layers if layer.name in cuts]
    held = store(len(alive) * len(widths), scene.float.chunks.samples, scene.float.head(1), passes.BLOCK_BYTES)
    keys = [(la.name, j) for la in alive for j in range(len(widths))]
    found = {key: Found(scene, row, early) for key, row in zip(keys, held, strict=True)}
    changes: dict[str, list[Change]] = {}
    todo = set(keys)
    while todo:
        for block, known, jobs in _work(scene, cuts, found, todo, changes, (widths, activations), early=early):
            before, n = block.which.start * block.of.chunks.size, block.count

            def done(job: Job, part: float, before: int = before, n: int = n) -> None:
                samples = scene.float.chunks.samples
                tick(f"layer {alive.index(job.layer) + 1} of {len(alive)}", min((before + n * part) / samples, 1.0))

            rounds.take_in(block.settle, jobs, found, widths, known, done)
        todo = rounds.doubted(found, todo, _margins(scene))
    baseline = metrics.evaluate(scene.metric, scene.float.first, scene.labels)
    rows = []
    for layer in alive:
        w = array(layer.node.inputs[1])
        assert w is not None
        made = [change.constants[layer.weight] for change in changes[layer.name]]
        how = widths, activations
        rows.append(rounds.entry(layer.name, layer.op, w, made, layer.bytes, scene.macs, found, how))
    dead = tuple(Note(la.name, False, "no output hangs on it") for la in scene.layers if la.name not in cuts)
    rows.sort(key=lambda la: la.mean_db)
    return Sensitivity(tuple(rows), baseline, scene.labels is not None, (*scene.skipped, *dead))


def _work(
    scene: Scene, cuts: Mapping[str, Suffix], found: Mapping[tuple[str, int], Found], todo: set[tuple[str, int]],
    changes: dict[str, list[Change]], how: tuple[Sequence[int], int | None], *, early: bool,
) -> Iterator[tuple[Block, Known | None, list[Job]]]:  # fmt: skip
    """Block after block, what is to be run on it; `changes` are made from the first one."""
    scores = scene.float.scores if scene.metric.name == "top1" else None
    layers = [la for la in scene.layers if any(name == la.name for name, _ in todo)]
    most = screening.LEAST if early else None
    for block in passes.blocks(scene.float, {la.name: cuts[la.name] for la in layers}, most, begin=screening.LEAST):
        fresh = [la for la in layers if la.name not in changes]
        made = scene.float.map(lambda la: changing.changes(scene, la, block, *how), fresh)  # noqa: B023  # runs now
        changes |= zip((la.name for la in fresh), made, strict=True)
        if not block.which.start:
            _check(scene, block)
        known = Known.of(block.known, scores) if scores and block.apart else None
        jobs = [
            Job(la, cuts[la.name], j, change, found[la.name, j].rows(known))
            for la in layers
            for j, change in enumerate(changes[la.name])
            if (la.name, j) in todo and not found[la.name, j].settled
        ]
        if not jobs:
            break
        yield block, known, jobs


def _margins(scene: Scene) -> NDArray[np.float32] | None:
    """Of all samples that were looked at; None where answers have none."""
    scores, known = scene.float.scores, [v for v in scene.float.values if v is not None]
    if scores is None or scene.metric.name != "top1":
        return None
    return screening.margins(np.concatenate([v[scores] for v in known]))


def _check(scene: Scene, block: Block) -> None:
    """Whether outputs and labels fit the metric, before the work: on the first block, or on all where it is small."""
    first = scene.float.head(block.count) if block.count >= screening.LEAST else scene.float.first
    metrics.evaluate(scene.metric, first, None if scene.labels is None else scene.labels[: len(first)])
