"""What a model answers when the weights of one layer change: only what hangs on the layer is run.

One pass of the float model leaves the values behind that the suffixes start from, a block of samples at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity import screening
from edgelathe.core.errors import UserError
from edgelathe.model import cut_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Arrays, Chunks, Map, Run
    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.model.cut_onnx import Suffix

BLOCK_BYTES = 64_000_000  # of inner values that are held at a time
SESSION_BYTES = 256_000_000  # about what sessions may hold, for one change a layer, that stay open for the next block
_HIDING = ("Softmax", "LogSoftmax", "Sigmoid")  # closing operators: the values before them tell more
EXACT_DB = 200.0  # stands for "no difference"


@dataclass(frozen=True)
class Error:
    """Summed squares of values and of their errors."""

    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: Error) -> Error:
        return Error(self.signal + other.signal, self.noise + other.noise)

    @classmethod
    def of(cls, want: NDArray[Any], have: NDArray[Any]) -> Error:
        """Of one array against another of its shape, summed in float64."""
        a, b = want.astype(np.float64), have.astype(np.float64)
        return cls(float(np.vdot(a, a)), float(np.vdot(a - b, a - b)))

    @property
    def db(self) -> float:
        """Signal to noise in dB, within ±`EXACT_DB`; values that are not finite are as bad as can be."""
        if self.noise == 0:
            return EXACT_DB
        if not math.isfinite(self.noise) or self.signal == 0:
            return -EXACT_DB
        return max(-EXACT_DB, min(EXACT_DB, 10 * math.log10(self.signal / self.noise)))


@dataclass(frozen=True, eq=False)
class Answer:
    """What a changed model gives on some samples: its first output [n, ...], and errors by name, chunk by chunk.

    `gain`: the most that a class gained on the float model's answer (`screening`); 0 where there are no classes.
    """

    first: NDArray[Any]
    errors: Mapping[str, tuple[Error, ...]]
    gain: float = 0.0

    def db(self, names: Sequence[str]) -> float | None:
        """The worst of these values; None for none."""
        return min((sum(self.errors[n], Error()).db for n in names), default=None)

    def reach_db(self, names: Sequence[str]) -> float:
        """How far the worst `db` may be off at 95%, the chunks taken for a sample of such; infinite for one chunk.

        Ratio estimator, its variance by linearization (Cochran, Sampling Techniques, 6.3).
        """
        name = min(names, key=lambda n: sum(self.errors[n], Error()).db)
        parts, total = self.errors[name], sum(self.errors[name], Error())
        if len(parts) < 2 or not math.isfinite(total.noise):
            return math.inf
        if total.noise == 0 or total.signal == 0:
            return 0.0
        ratio = total.noise / total.signal
        squares = sum((p.noise - ratio * p.signal) ** 2 for p in parts)
        error = math.sqrt(squares * len(parts) / (len(parts) - 1)) / total.signal
        return 1.96 * error / ratio * 10 / math.log(10)


@dataclass(frozen=True, eq=False)
class Change:
    """Constants by name in place of the model's own, and what is done to the layer's input first."""

    constants: Mapping[str, NDArray[np.float32]]
    source: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None


@dataclass(frozen=True, eq=False)
class Float:
    """The uncompressed model on the samples.

    Attributes:
        proto: the graph, all of whose nodes lead to its outputs; the values `hidden` are outputs too.
        name: for messages.
        chunks: the samples.
        map: runs a function on several threads.
        outputs: names of the model's outputs of real numbers.
        hidden: names of what goes into closing operators (Softmax, Sigmoid).
        run: the graph on a chunk.
        values: outputs and hidden values by name, chunk by chunk; None where they have not been computed yet.
    """

    proto: onnx.ModelProto
    name: str
    chunks: Chunks
    map: Map
    outputs: tuple[str, ...]
    hidden: tuple[str, ...]
    run: Run
    values: list[Arrays | None] = field(repr=False)

    @classmethod
    def of(cls, proto: onnx.ModelProto, name: str, chunks: Chunks, run_all: Map) -> Float:
        """The model, run on the first chunk; others follow when they are asked for.

        Raises UserError where an output is not finite.
        """
        import onnx

        given = [o.name for o in proto.graph.output]
        hidden = tuple(
            dict.fromkeys(n.input[0] for n in proto.graph.node if n.op_type in _HIDING and n.output[0] in given)
        )
        proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in hidden if n not in given)
        run = partial.session(partial.serialized(proto), name)
        got = dict(zip((o.name for o in proto.graph.output), run(chunks.feed(0)), strict=True))
        outputs = tuple(n for n in given if got[n].dtype.kind == "f")
        found = cls(proto, name, chunks, run_all, outputs, hidden, run, [None] * len(chunks))
        found.put(0, got)
        return found

    @property
    def names(self) -> list[str]:
        """Of all outputs of the graph, hidden values among them."""
        return [o.name for o in self.proto.graph.output]

    def put(self, at: int, got: Arrays) -> None:
        """Take in the outputs of one chunk. Raises UserError where one is not finite."""
        for key in self.names:
            if got[key].dtype.kind == "f" and not np.isfinite(got[key]).all():
                raise UserError(self.name, f"'{key}' is not finite on these samples", "check the preprocessing")
        self.values[at] = {key: got[key] for key in self.names}

    def complete(self) -> list[Arrays]:
        """The values of all chunks. Raises UserError where one is not finite."""
        missing = [at for at, known in enumerate(self.values) if known is None]
        for at, got in zip(missing, self.map(lambda at: self.run(self.chunks.feed(at)), missing), strict=True):
            self.put(at, dict(zip(self.names, got, strict=True)))
        return [v for v in self.values if v is not None]

    @property
    def first(self) -> NDArray[Any]:
        """The first output of all samples [n, ...]."""
        self.complete()
        return self.head(self.chunks.samples)

    def head(self, samples: int) -> NDArray[Any]:
        """The first output of the first so many samples, of chunks that have been computed."""
        name, size = self.proto.graph.output[0].name, self.chunks.size
        known = [v[name] for v in self.values[: math.ceil(samples / size)] if v is not None]
        return np.concatenate(known)[:samples]

    def answer(self, at: int, got: Mapping[str, NDArray[Any]]) -> Answer:
        """Values of one chunk against the float model's, which are known; those that are not given are equal."""
        want, n = self.values[at], self.chunks.count(at)
        assert want is not None
        have = {**want, **got}
        return self.compared(want, have, n)

    def compared(self, want: Mapping[str, NDArray[Any]], have: Mapping[str, NDArray[Any]], n: int) -> Answer:
        """The first n samples of a changed model's values against the float model's."""
        errors = {k: (Error.of(want[k][:n], have[k][:n]),) for k in (*self.outputs, *self.hidden)}
        scores = self.scores
        gain = screening.gain(want[scores][:n], have[scores][:n]) if scores else 0.0
        return Answer(have[self.names[0]][:n], errors, gain)

    @property
    def scores(self) -> str | None:
        """The value that tells classes, and by how much: the only output, [n, classes], or what its Softmax reads."""
        known = self.values[0]
        if known is None or len(self.outputs) != 1 or len(self.hidden) > 1 or len(self.names) - len(self.hidden) > 1:
            return None
        name = self.hidden[0] if self.hidden else self.outputs[0]
        return name if known[name].ndim == 2 and known[name].shape[1] > 1 else None


def joined(parts: Sequence[Answer]) -> Answer:
    """One answer from those on parts of the samples."""
    errors = {n: tuple(e for p in parts for e in p.errors[n]) for n in parts[0].errors}
    return Answer(np.concatenate([p.first for p in parts]), errors, max(p.gain for p in parts))


def whole(of: Float, change: Change) -> Answer:
    """The whole model with changed constants."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(of.proto)
    replace(proto, change)
    of.complete()
    run, names = partial.session(partial.serialized(proto), of.name), of.names

    def one(at: int) -> Answer:
        return of.answer(at, dict(zip(names, run(of.chunks.feed(at)), strict=True)))

    return joined(of.map(one, range(len(of.chunks))))


def cut(graph: onnx.GraphProto, layer: Weighted) -> Suffix | None:
    """All that hangs on a layer, it included; None where no output does."""
    found = cut_onnx.suffix(graph, frozenset(layer.positions))
    return found if found.outputs else None


def input_means(of: Float, layers: Sequence[Weighted]) -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of what a layer reads, by that value's name, on the first chunk of samples."""
    graph = of.proto.graph
    given = {i.name for i in graph.input}
    names = list(dict.fromkeys(la.source for la in layers if la.source not in given))
    prefix = cut_onnx.upto(of.proto, names)
    feed, n = of.chunks.feed(0), of.chunks.count(0)
    values = dict(feed)
    if names:
        run = partial.session(partial.serialized(prefix), of.name)
        values |= zip(names, run({i.name: feed[i.name] for i in prefix.graph.input}), strict=True)
    return {la.source: channel_mean(la, values[la.source][:n]) for la in layers}


def channel_mean(layer: Weighted, source: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each channel of what a layer reads."""
    axis = 1 if layer.op == "Conv" else source.ndim - 1
    if not source.size:  # nothing of it occurs on the samples
        return np.zeros(source.shape[axis])
    return np.asarray(source.mean(axis=tuple(i for i in range(source.ndim) if i != axis), dtype=np.float64))


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
        some, run = {k: v[rows] for k, v in want.items()}, self._run(job) if len(rows) else _nothing
        parts: list[Sequence[NDArray[Any]]] = []
        read = {*job.cut.boundary, *([job.layer.source] if job.change.source else [])}
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            places = [divmod(int(r), size) for r in (chosen if self.of.chunks.open else np.resize(chosen, size))]
            values = {k: np.stack([self.values[chunk][k][i] for chunk, i in places]) for k in read}
            parts.append([v[: len(chosen)] for v in run(_inputs(job, values))])
        got = dict(zip(job.cut.outputs, map(np.concatenate, zip(*parts, strict=True)), strict=bool(parts)))
        found = self.of.compared(some, some | got, len(rows))
        first = want[self.of.names[0]]
        first[rows] = found.first
        return Answer(first, found.errors, found.gain)

    def _run(self, job: Job) -> Run:
        key = job.layer.name, job.number
        run = self.open.get(key) or self._session(job)
        if self.keep:
            self.open[key] = run
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


def _nothing(_: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """A suffix that no sample is run through."""
    return []


def _inputs(job: Job, values: Arrays) -> Arrays:
    """What a suffix starts from."""
    out, source = {n: values[n] for n in job.cut.boundary}, job.change.source
    return out | {_ROUNDED: source(values[job.layer.source])} if source else out


def replace(proto: onnx.ModelProto, change: Change) -> None:
    """Put the constants of a change into a model, in place."""
    import onnx

    for tensor in proto.graph.initializer:
        if tensor.name in change.constants:
            tensor.CopyFrom(onnx.numpy_helper.from_array(change.constants[tensor.name], tensor.name))
