"""What a model answers when the weights of one layer change: only what hangs on the layer is run.

One pass of the float model leaves the values behind that the suffixes start from, a block of samples at a time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity.errors import Answer, joined
from edgelathe.compress.sensitivity.inner import Inner
from edgelathe.compress.sensitivity.reference import replace
from edgelathe.model import cut_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Arrays, Chunks, Run
    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.sensitivity.reference import Change, Float
    from edgelathe.model.cut_onnx import Suffix

BLOCK_BYTES = 96_000_000  # of inner values that are held at a time
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
    inner: Inner
    open: dict[tuple[str, int], Run]
    keep: bool
    apart: bool

    @property
    def count(self) -> int:
        """How many samples."""
        return sum(map(self.of.chunks.count, self.which))

    def real(self, name: str) -> NDArray[Any]:
        """One inner value [n, ...] of the block's samples."""
        return self.inner.real(name, [self.of.chunks.count(at) for at in self.which])

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

    @functools.cached_property
    def known(self) -> Arrays:
        """Outputs of the float model, and hidden values, on the block's samples [n, ...]."""
        of = self.of
        return {
            k: np.concatenate([(of.values[at] or {})[k][: of.chunks.count(at)] for at in self.which]) for k in of.names
        }

    def _some(self, job: Job, rows: NDArray[np.intp]) -> Answer:
        """The answer where only some samples are run, in chunks filled up with copies unless their size is open."""
        want, size = self.known, self.of.chunks.size
        first = want[self.of.names[0]].copy()
        if not len(rows):
            return Answer(first, {}, None, self.of.noise(want, want, 0))
        some, run = {k: v[rows] for k, v in want.items()}, self._run(job)
        parts: list[Sequence[NDArray[Any]]] = []
        read = {*job.cut.boundary, *([job.layer.source] if job.change.source else [])}
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            filled = chosen if self.of.chunks.open else np.pad(chosen, (0, size - len(chosen)), "edge")
            parts.append([v[: len(chosen)] for v in run(_inputs(job, self.inner.rows(read, filled)))])
        have = some | dict(zip(job.cut.outputs, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        first[rows] = have[self.of.names[0]]
        return Answer(first, {}, self.of.gains(some, have, len(rows)), self.of.noise(some, have, len(rows)))

    def _run(self, job: Job) -> Run:
        run = self.open.get(job.key) or self._session(job)
        if self.keep:
            self.open[job.key] = run
        return run

    def _settled(self, job: Job) -> Answer:
        if job.rows is not None:
            return self._some(job, job.rows)
        run, parts = self._run(job), []
        for chunk, values in zip(self.which, self.inner.chunks, strict=False):
            got = run(_inputs(job, values))
            parts.append(self.of.answer(chunk, dict(zip(job.cut.outputs, got, strict=True))))
        return joined(parts)

    def _session(self, job: Job) -> Run:
        part = cut_onnx.behind(self.of.proto, job.cut, _inputs(job, self.inner.chunks[0]), job.cut.outputs)
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

    One pass of the float model gives these and its outputs. A block's values are gone once the next one is asked for.
    `most`: samples a block holds at most, `begin`: the first.
    """
    graph, chunks = of.proto.graph, of.chunks
    given = {i.name for i in graph.input}
    names = list(dict.fromkeys(n for c in cuts.values() for n in c.boundary if n not in given))
    prefix = cut_onnx.upto(of.proto, list(dict.fromkeys([*names, *of.names])))
    read, made = [i.name for i in prefix.graph.input], [o.name for o in prefix.graph.output]
    run = partial.session(partial.serialized(prefix), of.name)

    def values(feed: Arrays) -> Arrays:
        return feed | dict(zip(made, run({k: feed[k] for k in read}), strict=True))

    def captured(at: int) -> Arrays:
        feed = chunks.feed(at)
        got = values(feed)
        of.put(at, got)
        return {k: got[k] for k in (*feed, *names)}

    first = captured(0)
    apart = _apart(chunks, first, values)
    size = sum(a.nbytes for a in first.values())
    sizes = {t.name: t.ByteSize() for t in graph.initializer}
    heavy = sum(sizes.get(i, 0) for c in cuts.values() for at in c.nodes for i in graph.node[at].input)
    held = heavy + len(cuts) * size  # a session keeps what it computed with
    begun, then = (
        max(1, min(BLOCK_BYTES // size, len(chunks), (limit or chunks.samples) // chunks.size))
        for limit in (begin or most, most)
    )
    inner, start = Inner(first, max(begun, then)), 0
    inner.put(0, first)
    open_: dict[tuple[str, int], Run] = {}
    while start < len(chunks):
        which = range(start, min(start + (then if start else begun), len(chunks)))
        fresh = which if start else which[1:]
        of.map(lambda at: inner.put(at - start, captured(at)), fresh)  # noqa: B023  # runs now
        keep = len(which) < len(chunks) and held <= SESSION_BYTES
        yield Block(of, which, inner, open_, keep, apart and inner.even)
        start = which.stop


def _apart(chunks: Chunks, first: Arrays, values: Callable[[Arrays], Arrays]) -> bool:
    """Whether samples in another order are inner values in that order; of one sample there is none.

    `first`: the values of the first chunk. Where the model takes chunks of any size, two samples tell.
    """
    if any(v.shape[:1] != (chunks.size,) for v in first.values()):
        return False
    order = np.arange(2 if chunks.open else chunks.size)[::-1]
    if chunks.size == 1 or len(order) == 1:
        return True
    turned = values({k: np.ascontiguousarray(v[order]) for k, v in chunks.feed(0).items()})
    return all(
        turned[k].shape == (len(order), *v.shape[1:]) and np.allclose(turned[k], v[order], atol=1e-4)
        for k, v in first.items()
    )


_ROUNDED = "layer:input:rounded"


def _inputs(job: Job, values: Arrays) -> Arrays:
    """What a suffix starts from."""
    out, source = {n: values[n] for n in job.cut.boundary}, job.change.source
    return out | {_ROUNDED: source(values[job.layer.source])} if source else out
