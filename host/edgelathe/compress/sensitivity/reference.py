"""The uncompressed model on its samples, and the same model with other constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity import screening
from edgelathe.compress.sensitivity.errors import Answer, Error, each, joined
from edgelathe.core.errors import UserError
from edgelathe.model import cut_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from edgelathe.compress.forward.partial import Arrays, Chunks, Map, Run
    from edgelathe.compress.integer.weighted import Weighted

Gains = NDArray[np.float32] | None
Noise = dict[str, NDArray[np.float64]] | None
_HIDING = ("Softmax", "LogSoftmax", "Sigmoid")  # closing operators: the values before them tell more


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

    @functools.cached_property
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
        return Answer(have[self.names[0]][:n], errors, self.gains(want, have, n), self.noise(want, have, n))

    def noise(self, want: Mapping[str, NDArray[Any]], have: Mapping[str, NDArray[Any]], n: int) -> Noise:
        """Squared errors of each of the first n samples, of outputs and hidden values; None without classes."""
        if self.scores is None:
            return None
        return {k: each(want[k][:n], have[k][:n]) for k in (*self.outputs, *self.hidden)}

    def gains(self, want: Mapping[str, NDArray[Any]], have: Mapping[str, NDArray[Any]], n: int) -> Gains:
        """What classes gained on the float model's answers to the first n samples; None without classes."""
        scores = self.scores
        return screening.gains(want[scores][:n], have[scores][:n]) if scores else None

    @property
    def scores(self) -> str | None:
        """The value that tells classes, and by how much: the only output, [n, classes], or what its Softmax reads."""
        known = self.values[0]
        if known is None or len(self.outputs) != 1 or len(self.hidden) > 1 or len(self.names) - len(self.hidden) > 1:
            return None
        name = self.hidden[0] if self.hidden else self.outputs[0]
        return name if known[name].ndim == 2 and known[name].shape[1] > 1 else None


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


def replace(proto: onnx.ModelProto, change: Change) -> None:
    """Put the constants of a change into a model, in place."""
    import onnx

    for tensor in proto.graph.initializer:
        if tensor.name in change.constants:
            tensor.CopyFrom(onnx.numpy_helper.from_array(change.constants[tensor.name], tensor.name))


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
