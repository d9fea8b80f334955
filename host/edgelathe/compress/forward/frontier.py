"""A graph run forward over the samples, stretch by stretch: what lies behind is never run again.

Steps that settle a graph layer by layer want each layer's inputs as the layers before it, already settled, make them.
A frontier keeps, per chunk of samples, the values that the rest of the graph still reads, and moves on to the values
asked for. Nodes ahead of it may be changed between two moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import name_of
from edgelathe.core.errors import UserError
from edgelathe.model.run import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Chunk = Mapping[str, NDArray[Any]]

_WIDER = 2.0  # times as much: below it is kept
_KEEPS = 32_000_000  # bytes more of all samples that are kept in any case
_THREADS = 2  # always, so that every machine adds in the same order


class Frontier:
    """One graph on one set of samples, run up to some place.

    Integers are computed as the floats that they stand for, so no kernel saturates; between a QuantizeLinear and its
    DequantizeLinear a value is kept in one byte.
    """

    def __init__(self, model: ir.Model, chunks: Sequence[Chunk], where: str, *, narrow: bool = False) -> None:
        """`chunks`: inputs of the model by name, for samples that run at once; `where`: the data's name in errors.

        `narrow`: stay where less is kept, and compute the wider values again when they are asked for (of mobile
        networks' inverted bottlenecks a sixth; Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016). Then
        what has been asked for has to be settled: `shift` is refused.
        """
        self._model, self._where, self._narrow = model, where, narrow
        inputs = {str(v.name): v for v in model.graph.inputs}
        self._values = {n: inputs[n] for n in chunks[0]}
        self._live: list[Chunk] = [dict(c) for c in chunks]
        self._done: set[ir.Node] = set()
        self._outer = {inner: node for node in model.graph for inner in _inner(node)}

    def advance(self, values: Sequence[ir.Value]) -> Iterator[Chunk]:
        """Run to `values` and give them by name, for chunk after chunk; all chunks have to be taken.

        Raises UserError where the model does not run, or a value is not finite.
        """
        stretch, before = self._stretch(values), (self._values, frozenset(self._done))
        self._done.update(n for n in stretch if not _restores(n))
        made = [v for n in stretch if not _restores(n) for v in n.outputs if v.name and self._is_read(v)]
        kept = {n: v for n, v in self._values.items() if self._is_read(v)} | {name_of(v): v for v in made}
        wanted = {name_of(v): v for v in values}
        new = [n for n in {**wanted, **kept} if n not in self._values]
        call = self._session(stretch, new) if new else None
        self._values = kept
        stays = False
        for i, live in enumerate(self._live):
            have = {**live, **(call(live) if call else {})}
            for name in wanted:
                if have[name].dtype.kind == "f" and not np.isfinite(have[name]).all():
                    what = f"value '{name}' is not finite on these samples"
                    raise UserError(self._where, what, "check the preprocessing and the float model")
            if not i and self._narrow and new and self._is_wider(kept, live, have):
                stays, (self._values, done) = True, before
                self._done = set(done)
            if not stays:
                self._live[i] = {n: have[n] for n in kept}
            yield {n: have[n] for n in wanted}

    def _is_wider(self, kept: Iterable[str], live: Chunk, have: Chunk) -> bool:
        """Whether the values that are to be kept take much more than those that they are made of."""
        much, little = (sum(c[n].nbytes for n in names) for c, names in ((have, kept), (live, live)))
        return much > _WIDER * little and (much - little) * len(self._live) > _KEEPS

    def shift(self, value: ir.Value, by: NDArray[Any], axis: int, scale: NDArray[Any] | None = None) -> None:
        """Add `by` [channels] along `axis`, times `scale` [channels] before, to a value that nodes ahead read.

        For a change of what lies behind the frontier. Raises RuntimeError on a `narrow` one, which would compute the
        value again without it.
        """
        if self._narrow:
            raise RuntimeError("a narrow frontier computes values again, and would lose the shift")
        name = name_of(value)
        for i, live in enumerate(self._live):
            if name in live:
                old = live[name]
                shape = [-1 if a == axis % old.ndim else 1 for a in range(old.ndim)]
                scaled = old if scale is None else old * scale.reshape(shape)
                self._live[i] = {**live, name: (scaled + by.reshape(shape)).astype(old.dtype)}

    def _stretch(self, values: Sequence[ir.Value]) -> list[ir.Node]:
        """The nodes between what is there and `values`, in the graph's order."""
        found: set[ir.Node] = set()
        todo = list(values)
        while todo:
            value = todo.pop()
            node = None if value.name in self._values else value.producer()
            if node is not None and (node := self._outer.get(node, node)) not in found:
                found.add(node)
                todo += _reads(node)
        return [n for n in self._model.graph if n in found]

    def _is_read(self, value: ir.Value) -> bool:
        """Whether a node ahead reads the value, be it through a DequantizeLinear."""
        return any(self._is_ahead(self._outer.get(use.node, use.node)) for use in value.uses())

    def _is_ahead(self, node: ir.Node) -> bool:
        return self._is_read(node.outputs[0]) if _restores(node) else node not in self._done

    def _session(self, stretch: list[ir.Node], made: list[str]) -> Callable[[Chunk], dict[str, NDArray[Any]]]:
        """A function that runs these nodes."""
        import onnx
        import onnx_ir as ir
        import onnxruntime as ort

        inner = {v for n in stretch for v in n.outputs}
        outside = {name_of(v): v for n in stretch for v in _reads(n) if v not in inner and v.graph is self._model.graph}
        inputs = [n for n in outside if n in self._values]
        example = self._live[0]
        graph = onnx.helper.make_graph(
            [ir.serde.serialize_node(n) for n in stretch],
            "stretch",
            [
                onnx.helper.make_tensor_value_info(
                    n, onnx.helper.np_dtype_to_tensor_dtype(example[n].dtype), [None] * example[n].ndim
                )
                for n in inputs
            ],
            [onnx.helper.make_empty_tensor_value_info(n) for n in made],
            [_tensor(v) for n, v in outside.items() if n not in self._values and v.const_value is not None],
        )
        opsets = [onnx.helper.make_opsetid(d, v) for d, v in self._model.opset_imports.items()]
        part = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=self._model.ir_version)
        part.functions.extend(ir.serde.serialize_function(f) for f in self._model.functions.values())
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = _THREADS, 1, 4
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # many short calls: it would only wait
        try:
            session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime raises a dozen of its own kinds
            raise UserError(self._where, f"the model does not load: {one_line(e)}", "check it with `inspect`") from e

        def call(live: Chunk) -> dict[str, NDArray[Any]]:
            try:
                found = session.run(made, {n: live[n] for n in inputs})
            except Exception as e:
                what = f"the model does not run on it: {one_line(e)}"
                raise UserError(self._where, what, "check the samples") from e
            return dict(zip(made, found, strict=True))

        return call


def _restores(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear"


def _reads(node: ir.Node) -> list[ir.Value]:
    """What the node and the branches in it read."""
    return [v for n in (node, *_inner(node)) for v in n.inputs if v is not None]


def _inner(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of the branches of a node, at any depth."""
    import onnx_ir as ir

    for attribute in node.attributes.values():
        graphs = {ir.AttributeType.GRAPH: [attribute.value], ir.AttributeType.GRAPHS: attribute.value}
        for graph in graphs.get(attribute.type, ()):
            for inner in graph:
                yield inner
                yield from _inner(inner)


def _tensor(value: ir.Value) -> Any:
    import onnx_ir as ir

    assert value.const_value is not None
    proto = ir.serde.serialize_tensor(value.const_value)
    proto.name = name_of(value)
    return proto
