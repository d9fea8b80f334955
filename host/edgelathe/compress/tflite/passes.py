"""What a TFLite model answers when the weights of one layer change: only what hangs on the layer is run.

One pass of the float model leaves the values behind that the suffixes start from, a block of runs at a time.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.sensitivity import screening
from edgelathe.compress.sensitivity.errors import Answer, each
from edgelathe.compress.tflite import suffix as cuts
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import feeds, interpreter
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgelathe.compress.tflite.sensitive import Scene, Values
    from edgelathe.compress.tflite.suffix import Suffix
    from edgelathe.compress.tflite.weighted import Weighted

Call = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]
BLOCK_BYTES = 64_000_000  # of inner values that are held at a time
SESSION_BYTES = 256_000_000  # about what interpreters may hold that stay open for the next block


@dataclass(frozen=True, eq=False)
class Change:
    """Constants by tensor in place of the model's own, and what is done to the layer's input first."""

    constants: Mapping[int, NDArray[np.float32]]
    source: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One change of one layer, by its number; `rows`: which samples of the block are run, None: all."""

    layer: Weighted
    cut: Suffix
    number: int
    change: Change
    rows: NDArray[np.intp] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The layer's name, and the number of the change."""
        return self.layer.name, self.number


@dataclass(frozen=True, eq=False)
class Block:
    """Some runs: the inner values of each, by tensor, and the float model's `want`ed values, [n, ...].

    `open`: interpreters by layer and number of the change that stay so for the next block. `file`: the model, that
    suffixes are cut from by one thread at a time, `cutting`.
    """

    of: Scene
    start: int
    runs: Sequence[Values]
    want: Values
    open: dict[tuple[str, int], tuple[Call, tuple[int, ...]]]
    file: File
    cutting: threading.Lock

    @functools.cached_property
    def count(self) -> int:
        """How many samples."""
        return len(self.want[self.of.judged[0]])

    def settle(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """What the model gives on these samples with each change, in order; changes run beside each other."""
        return self.of.map.lazily(self._settled, jobs)

    def _settled(self, job: Job) -> Answer:
        first, scene, batch = self.of.graph.outputs[0], self.of, self.of.batch
        have = {t: v.copy() if t in job.cut.outputs else v for t, v in self.want.items()}
        rows = range(len(self.runs)) if job.rows is None else job.rows
        source = job.change.source
        if len(rows):
            call, inputs = self._opened(job)
            for r in rows:
                values = self.runs[r]
                given = [values[t] for t in (inputs[:-1] if source else inputs)]
                given += [source(values[job.layer.layer.source])] if source else []
                for t, got in zip(job.cut.outputs, call(given), strict=True):
                    at = int(r) * batch
                    have[t][at : at + batch] = got[: self.count - at]
        errors = scene.compared(self.want, have) if job.rows is None else {}
        some = slice(None) if job.rows is None else job.rows
        scores = scene.scores
        if scores is None:
            return Answer(have[first], errors)
        noise = {scene.graph.tensors[t].name: each(self.want[t][some], have[t][some]) for t in scene.judged}
        return Answer(have[first], errors, screening.gains(self.want[scores][some], have[scores][some]), noise)

    def _opened(self, job: Job) -> tuple[Call, tuple[int, ...]]:
        """The suffix with the change inside, and the numbers of its inputs."""
        if job.key in self.open:
            return self.open[job.key]
        place = (job.layer.positions, job.layer.layer.source) if job.change.source else None
        with self.cutting:  # it changes the file for as long as that takes
            data, inputs = cuts.changed(self.file, job.cut, job.change.constants, place)
        made = interpreter(data, inputs, job.cut.outputs, plain=False), inputs
        held = 2 * len(self.of.model.data) + 2 * sum(v.nbytes for v in self.runs[0].values())
        if (len(self.open) + 1) * held <= SESSION_BYTES:
            self.open[job.key] = made
        return made


def blocks(scene: Scene, boundary: Sequence[int], begin: int) -> Iterator[Block]:
    """The values that suffixes start from, for as many runs at a time as `BLOCK_BYTES` hold, at first `begin` samples.

    Raises UserError where a value is not finite, or outputs have no row a sample.
    """
    graph, batch, n = scene.graph, scene.batch, len(scene.data)
    wanted = tuple(dict.fromkeys((*boundary, *scene.judged)))
    made = tuple(t for t in wanted if t not in graph.inputs)
    call = scene.reading({}, made)
    runs: list[Values] = []
    open_: dict[tuple[str, int], tuple[Call, tuple[int, ...]]] = {}
    file, cutting = File(scene.model.data), threading.Lock()
    start, size, fresh = 0, 0, not scene.known
    for i, x in enumerate(feeds(scene.model, scene.data), 1):
        values = {t: x[t] for t in wanted if t in x} | dict(zip(made, call([x[t] for t in graph.inputs]), strict=True))
        for t in scene.judged:
            name = graph.tensors[t].name
            if len(values[t]) != batch:
                raise UserError(
                    scene.model.name, f"'{name}' has no row a sample", "give a model whose outputs have one"
                )
            if values[t].dtype.kind == "f" and not np.isfinite(values[t]).all():
                raise UserError(scene.model.name, f"'{name}' is not finite on these samples", "check the preprocessing")
        runs.append(values)
        size += sum(v.nbytes for v in values.values())
        last = i * batch >= n
        if last or (size >= BLOCK_BYTES if start else len(runs) * batch >= begin or size >= BLOCK_BYTES):
            count = min(len(runs) * batch, n - start)
            want = {t: np.concatenate([v[t] for v in runs])[:count] for t in scene.judged}
            if fresh:
                scene.known.append(want)
            yield Block(scene, start, runs, want, open_, file, cutting)
            start, size, runs = start + count, 0, []
