"""TFLite models in fixed point: integers and float side by side, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import tflite_graph
from edgelathe.model.fixed.elementwise import quantize
from edgelathe.model.fixed.tflite_batch import independent
from edgelathe.model.fixed.tflite_bind import Step, bind
from edgelathe.model.fixed.types import Answer, Arithmetic, Grid, Outputs, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_common import Result
    from edgelathe.model.fixed.tflite_graph import Graph, Site, Slot
    from edgelathe.model.fixed.types import Watch
    from edgelathe.model.types import Model

    Arrays = dict[int, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class TfliteProgram:
    """A model made ready.

    Attributes:
        steps: its operators in order.
        spent: by step, the tensors that nobody reads after it.
        batch: how many samples go together, None: as many as are given.
        reference: the float model, by whose tensors of the same name layers are judged; None: the same graph without
            rounding, its weights dequantized.
    """

    graph: Graph
    steps: tuple[Step, ...]
    spent: tuple[tuple[int, ...], ...]
    batch: int | None
    reference: TfliteProgram | None = None

    def run(self, inputs: Mapping[str, NDArray[Any]], watch: Watch) -> Outputs:
        """One chunk of n samples; see `types.Program`."""
        if self.reference is None:
            return self._beside(inputs, watch)
        same, outputs = _counterparts(self.graph), self.reference.outputs
        wanted = {*same.values(), *(s.name for s in outputs)}
        known = {s.name: values for s, values in self.reference.exact(inputs) if s.name in wanted}
        fixed = _inputs(self.graph, inputs, exact=False)
        for step, result in self._fixed(fixed):
            _tell(step.site, result, known.get(same[step.site.name]), watch)
        return Outputs(self._simulated(fixed), tuple(known[s.name] for s in self.reference.outputs))

    @property
    def outputs(self) -> tuple[Slot, ...]:
        """The model's outputs."""
        return self.graph.outputs

    def exact(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Slot, NDArray[Any]]]:
        """Every tensor without any rounding, as it is computed."""
        values = _inputs(self.graph, inputs, exact=True)
        yield from ((s, values[s.index]) for s in self.graph.inputs)
        for step, spent in zip(self.steps, self.spent, strict=True):
            made = step.exact([_operand(values, s, exact=True) for s in step.site.inputs if s])
            values.update(zip((s.index for s in step.site.outputs), made, strict=True))
            yield from zip(step.site.outputs, made, strict=True)
            _forget(values, spent)

    def _beside(self, inputs: Mapping[str, NDArray[Any]], watch: Watch) -> Outputs:
        """Integers and the same graph without rounding, in step."""
        fixed, exact = (_inputs(self.graph, inputs, exact=which) for which in (False, True))
        for (step, result), spent in zip(self._fixed(fixed), self.spent, strict=True):
            made = step.exact([_operand(exact, s, exact=True) for s in step.site.inputs if s])
            exact.update(zip((s.index for s in step.site.outputs), made, strict=True))
            _tell(step.site, result, made[0], watch)
            _forget(exact, spent)
        return Outputs(self._simulated(fixed), tuple(_operand(exact, s, exact=True) for s in self.graph.outputs))

    def _fixed(self, values: Arrays) -> Iterator[tuple[Step, Result]]:
        for step, spent in zip(self.steps, self.spent, strict=True):
            result = step.fixed([_operand(values, s, exact=False) for s in step.site.inputs if s])
            values.update(zip((s.index for s in step.site.outputs), result.outputs, strict=True))
            yield step, result
            _forget(values, spent)

    def _simulated(self, values: Arrays) -> tuple[Value, ...]:
        found = (Value(_operand(values, s, exact=False), s.grid) for s in self.graph.outputs)
        return tuple(Value(v.real) if s.assigned else v for v, s in zip(found, self.graph.outputs, strict=True))


def program(
    model: Model, arithmetic: Arithmetic, grids: Mapping[int, Grid] | None = None, reference: Model | None = None
) -> TfliteProgram:
    """The model made ready.

    Args:
        model: a TFLite model.
        arithmetic: accumulators and kernels of the target.
        grids: those to put in place of the file's, by tensor.
        reference: the float model that it was made from, where that is known.

    Raises:
        UserError: for an operator that is not simulated, naming the layer.
    """
    graph = tflite_graph.read(model, arithmetic, grids)
    batch = None if independent(graph) else graph.batch or 1
    compared = None if reference is None else program(reference, arithmetic)
    if compared is not None and compared.batch is not None:
        batch = batch or compared.batch
    return TfliteProgram(graph, tuple(bind(s) for s in graph.sites), _spent(graph), batch, compared)


def _inputs(graph: Graph, inputs: Mapping[str, NDArray[Any]], *, exact: bool) -> Arrays:
    if exact:
        return {s.index: Value(inputs[s.name], None if s.assigned else s.grid).real for s in graph.inputs}
    return {s.index: _entering(inputs[s.name], s) for s in graph.inputs}


def _entering(values: NDArray[Any], slot: Slot) -> NDArray[Any]:
    """A float input of the model goes on the grid that was assigned to it."""
    return quantize(values, slot.grid)[0] if slot.assigned and slot.grid else values


def _operand(values: Arrays, slot: Slot, *, exact: bool) -> NDArray[Any]:
    if slot.index in values:
        return values[slot.index]
    constant = slot.exact if exact else slot.constant
    if constant is None:
        raise UserError(slot.name, "is read before it is computed", "export the model again")
    return constant


def _tell(site: Site, done: Result, exact: NDArray[Any] | None, watch: Watch) -> None:
    """One answer a layer; those that compute indices or shapes are none."""
    slot, data = site.outputs[0], done.outputs[0]
    if slot.grid is None and data.dtype.kind != "f":
        return
    compared = exact if exact is not None and exact.shape == data.shape else None
    watch(Answer(site.name, site.op, Value(data, slot.grid), compared, done.clipped, done.overflows))


def _counterparts(graph: Graph) -> dict[str, str]:
    """Layer -> the name of its tensor in the float model: the same, or that on the other side of a change of type."""
    same = {site.name: site.name for site in graph.sites}
    for site in graph.sites:
        source = site.inputs[0] if site.inputs else None
        if source is None:
            continue
        if site.op == "QUANTIZE":
            same[site.name] = same.get(source.name, source.name)
        elif site.op == "DEQUANTIZE":
            same[source.name] = site.name
    return same


def _forget(values: Arrays, spent: tuple[int, ...]) -> None:
    for index in spent:
        values.pop(index, None)


def _spent(graph: Graph) -> tuple[tuple[int, ...], ...]:
    last = {s.index: i for i, site in enumerate(graph.sites) for s in (*site.inputs, *site.outputs) if s}
    kept = {s.index for s in graph.outputs}
    return tuple(tuple(t for t, at in last.items() if at == i and t not in kept) for i in range(len(graph.sites)))
