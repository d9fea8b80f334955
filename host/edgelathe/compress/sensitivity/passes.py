"""What a model answers when the weights of one layer change: only what hangs on the layer is run.

One pass of the float model leaves the values behind that the suffixes start from, a block of samples at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity.errors import Answer, joined
from edgelathe.compress.sensitivity.reference import replace
from edgelathe.model import cut_onnx

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Arrays, Run
    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.sensitivity.reference import Change, Float
    from edgelathe.model.cut_onnx import Suffix

BLOCK_BYTES = 64_000_000  # of inner values that are held at a time
SESSION_BYTES = 256_000_000  # about what sessions may hold, for one change a layer, that stay open for the next block


def cut(graph: onnx.GraphProto, layer: Weighted) -> Suffix | None:
    """All that hangs on a layer, it included; None where no output does."""
    found = cut_onnx.suffix(graph, frozenset(layer.positions))
    return found if found.outputs else None


@dataclass(frozen=True, eq=False)
class Job:
    """One change of one layer: all that hangs on the layer, and the number of the change among its others.

    `rows`: which samples of the block are run, the others answer as the float model does; None: all.
    """

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
    """Some chunks with the float model's inner values on them.

    `open`: sessions by layer and number of the change; `keep`: they stay so for the next block. `apart`: samples lie
    along the first axis of all inner values, so that some of them can be run without the others.
    """

    of: Float
    which: range
    values: list[Arrays]
    open: dict[tuple[str, int], Run]
    keep: bool
    apart: bool

    @property
    def count(self) -> int:
        """How many samples."""
        return sum(map(self.of.chunks.count, self.which))

    def real(self, name: str) -> NDArray[Any]:
        """One inner value [n, ...] of the block's samples."""
        counts = [self.of.chunks.count(at) for at in self.which]
        return np.concatenate([v[name][:n] for v, n in zip(self.values, counts, strict=True)])

    def settle(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """What the model gives on these samples with each change, in order; changes run beside each other.

        A session for each change, with its constants inside: ONNX Runtime packs and fuses them, which 50 samples pay
        for. Where weights are inputs of one session its kernels are the slow ones. Each is opened, run and, unless the
        next block wants it too, closed on one thread.
        """
        return self.of.map.lazily(self._settled, jobs)

    def answers(self, layer: Weighted, at: Suffix, changes: Mapping[int, Change]) -> dict[int, Answer]:
        """The same for the changes of one layer, by their numbers."""
        return dict(zip(changes, self.settle([Job(layer, at, i, c) for i, c in changes.items()]), strict=True))

    def known(self, name: str) -> NDArray[Any]:
        """One output of the float model, or hidden value, on the block's samples [n, ...]."""
        parts = [(self.of.values[at] or {})[name][: self.of.chunks.count(at)] for at in self.which]
        return np.concatenate(parts)

    def _some(self, job: Job, rows: NDArray[np.intp]) -> Answer:
        """The answer where only some samples are run, in chunks filled up with copies unless their size is open."""
        want, size = {k: self.known(k) for k in self.of.names}, self.of.chunks.size
        first = want[self.of.names[0]]
        if not len(rows):
            return Answer(first, {}, None, self.of.noise(want, want, 0))
        some, run = {k: v[rows] for k, v in want.items()}, self._run(job)
        parts: list[Sequence[NDArray[Any]]] = []
        read = {*job.cut.boundary, *([job.layer.source] if job.change.source else [])}
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            filled = chosen if self.of.chunks.open else np.pad(chosen, (0, size - len(chosen)), "edge")
            parts.append([v[: len(chosen)] for v in run(_inputs(job, self._gathered(read, filled)))])
        have = some | dict(zip(job.cut.outputs, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        first[rows] = have[self.of.names[0]]
        return Answer(first, {}, self.of.gains(some, have, len(rows)), self.of.noise(some, have, len(rows)))

    def _gathered(self, names: Collection[str], rows: NDArray[np.intp]) -> Arrays:
        """Inner values of some samples, whose numbers ascend."""
        chunks, places = np.divmod(rows, self.of.chunks.size)
        held = [(self.values[at], places[chunks == at]) for at in np.unique(chunks)]
        return {k: np.concatenate([values[k][some] for values, some in held]) for k in names}

    def _run(self, job: Job) -> Run:
        run = self.open.get(job.key) or self._session(job)
        if self.keep:
            self.open[job.key] = run
        return run

    def _settled(self, job: Job) -> Answer:
        if job.rows is not None:
            return self._some(job, job.rows)
        run, parts = self._run(job), []
        for chunk, values in zip(self.which, self.values, strict=True):
            got = run(_inputs(job, values))
            parts.append(self.of.answer(chunk, dict(zip(job.cut.outputs, got, strict=True))))
        return joined(parts)

    def _session(self, job: Job) -> Run:
        part = cut_onnx.behind(self.of.proto, job.cut, _inputs(job, self.values[0]), job.cut.outputs)
        if job.change.source:
            for node, position in zip(part.graph.node, job.cut.nodes, strict=True):
                if position in job.layer.positions:
                    node.input[0] = _ROUNDED
        for given in part.graph.input if self.of.chunks.open and self.apart else ():
            given.type.tensor_type.shape.dim[0].dim_param = "samples"
        replace(part, job.change)
        return partial.session(partial.serialized(part), f"{self.of.name}: from layer '{job.layer.name}' on")


def blocks(
    of: Float, cuts: Mapping[str, Suffix], most: int | None = None, *, begin: int | None = None
) -> Iterator[Block]:
    """All that the suffixes start from, for as many samples at a time as `BLOCK_BYTES` hold, one chunk at least.

    One pass of the float model gives these and its outputs. `most`: samples a block holds at most, `begin`: the first.
    """
    graph, chunks = of.proto.graph, of.chunks
    given = {i.name for i in graph.input}
    inner = list(dict.fromkeys(n for c in cuts.values() for n in c.boundary if n not in given))
    names = list(dict.fromkeys([*inner, *of.names]))
    prefix = cut_onnx.upto(of.proto, names)
    read = [i.name for i in prefix.graph.input]
    run = partial.session(partial.serialized(prefix), of.name)

    def captured(at: int) -> Arrays:
        feed = chunks.feed(at)
        got = dict(zip(names, run({k: feed[k] for k in read}), strict=True))
        of.put(at, got)
        return feed | {n: got[n] for n in inner}

    def apart(values: Arrays) -> bool:
        """Whether samples in another order are inner values in that order; of one sample there is none."""
        if chunks.size == 1:
            return all(v.shape[:1] == (1,) for v in values.values())
        turned = {k: np.roll(v, 1, axis=0) for k, v in chunks.feed(0).items()}
        got = turned | dict(zip(names, run({k: turned[k] for k in read}), strict=True))
        return all(
            v.shape[:1] == (chunks.size,) and np.allclose(np.roll(v, 1, axis=0), got[k], atol=1e-4)
            for k, v in values.items()
        )

    sizes = {t.name: t.ByteSize() for t in graph.initializer}
    heavy = sum(sizes.get(i, 0) for c in cuts.values() for at in c.nodes for i in graph.node[at].input)
    open_: dict[tuple[str, int], Run] = {}
    start, separate = 0, False
    while start < len(chunks):
        first = captured(start)
        separate = separate if start else apart(first)
        limit = (most if start else begin or most) or len(chunks) * chunks.size
        count = max(1, min(BLOCK_BYTES // sum(a.nbytes for a in first.values()), limit // chunks.size))
        which = range(start, min(start + count, len(chunks)))
        held = heavy + len(cuts) * sum(a.nbytes for a in first.values())  # a session keeps what it computed with
        keep = which.stop - which.start < len(chunks) and held <= SESSION_BYTES
        yield Block(of, which, [first, *of.map(captured, which[1:])], open_, keep, separate)
        start += count


_ROUNDED = "layer:input:rounded"


def _inputs(job: Job, values: Arrays) -> Arrays:
    """What a suffix starts from."""
    out, source = {n: values[n] for n in job.cut.boundary}, job.change.source
    return out | {_ROUNDED: source(values[job.layer.source])} if source else out
