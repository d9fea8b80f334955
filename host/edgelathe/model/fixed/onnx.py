"""ONNX models in fixed point: QDQ and QOperator files as they are, float models with any bit widths.

Layers with integers on both sides are computed in integers, by the formulas of ONNX Runtime's kernels; what has no
integer kernel is computed in float between a DequantizeLinear and a QuantizeLinear, as the file says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.core.signature import NOT_NUMBERS
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from edgelathe.model.fixed import onnx_linear
from edgelathe.model.fixed.onnx_expand import expand
from edgelathe.model.fixed.onnx_graph import Graph, captured, read
from edgelathe.model.fixed.onnx_narrow import Saturation
from edgelathe.model.fixed.onnx_rescale import Target
from edgelathe.model.fixed.onnx_units import Unit, fold, units
from edgelathe.model.fixed.onnx_walk import Ears, Walk
from edgelathe.model.fixed.types import Grid, Outputs, Value, Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.core.signature import Signature
    from edgelathe.model.types import Model

_ONE_WAY = frozenset(("If", "Loop"))


class OnnxProgram:
    """A model made ready; see `types.Program`.

    Attributes:
        floats: layers that are computed in float, with the operator; known after the first run.
        inputs: the grid that each input of a float model is put on; None: it stays real.
        reference: the float model whose outputs are the exact ones; None: those of the same graph without rounding.
            Layers are always judged by the latter: steps before the rounding may have rescaled them.
        saturation: what became of 16-bit sums, by layer, where the target is narrow.
    """

    def __init__(
        self,
        graph: Graph,
        steps: Sequence[Unit],
        target: Target,
        grids: Mapping[str, Grid],
        model: Model,
        reference: OnnxProgram | None = None,
    ) -> None:
        self._graph, self._units, self._target = graph, steps, target
        self.inputs = {name: grids.get(name) for name in graph.inputs}
        self._signature, self._name = model.signature, model.name
        self._real_outputs = {o.name for o in model.signature.outputs if o.dtype.startswith("float")}
        self._layers: dict[int, onnx_linear.Linear | None] = {}
        self._reals: dict[str, NDArray[Any]] = {}
        self._last = _last_uses(graph, steps)
        self.reference = reference
        self.floats: dict[str, str] = {}
        self.saturation: dict[str, Saturation] = {}

    @cached_property
    def batch(self) -> int | None:
        """The fixed batch of the model; 1 where samples would not stay apart; None: any number goes together."""
        if run.has_fixed_batch(self._signature):
            return run.batch_size(self._signature)
        counted = dict(self.saturation)
        together = apart(self)
        self.saturation = counted  # a trial is no sample
        return None if together else 1

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        watch: Watch = lambda _: None,
        *,
        exact: bool = True,
        given: Mapping[str, NDArray[Any]] | None = None,
        hear: Callable[[str, Value], None] = lambda _, __: None,
    ) -> Outputs:
        """One chunk of n samples.

        Args:
            inputs: arrays [n, ...] by name.
            watch: hears every layer's answer, in order.
            exact: also compute without rounding; else `Outputs.exact` and `Answer.exact` are left out.
            given: tensors, as stored, to be taken instead of those computed, once their layer has answered: to compare
                layer by layer with another implementation.
            hear: is told every tensor as it is computed, by name.
        """
        walk = Walk(self, inputs, Ears(watch, hear), exact, given or {})
        for index, unit in enumerate(self._units):
            try:
                with np.errstate(all="ignore"):  # infinities and NaN are answers, as in a runtime
                    walk.step(unit)
            except (ValueError, TypeError, IndexError, ZeroDivisionError) as e:
                what = f"{unit.node.op} '{unit.node.name}' cannot be computed: {run.one_line(e)}"
                raise UserError(self._name, what, "check that the data are what the model takes") from e
            walk.forget(self._last.get(index, ()))
        values = [walk.value(name) for name in self._graph.outputs]
        plain = tuple(
            Value(v.real) if name in self._real_outputs else v
            for name, v in zip(self._graph.outputs, values, strict=True)
            if v is not None
        )
        if not exact:
            return Outputs(plain, ())
        if self.reference is not None:
            given_float = self.reference.run(inputs, exact=False).simulated
            return Outputs(plain, tuple(v.data for v in given_float))
        return Outputs(plain, tuple(walk.exact(name) for name in self._graph.outputs))

    def linear(self, unit: Unit, inputs: Sequence[Value | None]) -> onnx_linear.Linear | None:
        """A layer of products made ready; kept where its weights are constants."""
        node = unit.node
        key = id(node)
        if key in self._layers:
            return self._layers[key]
        bias = inputs[2] if len(inputs) > 2 else None
        constants = [not n or n in self._graph.constants for n in node.inputs[1:]]
        made = onnx_linear.prepare(node, inputs[0], inputs[1], bias, constant=constants[0])
        if all(constants):
            self._layers[key] = made
        return made

    def real(self, name: str) -> NDArray[Any] | None:
        """A constant as real numbers; None for other tensors."""
        if name not in self._graph.constants:
            return None
        if name not in self._reals:
            self._reals[name] = self._graph.constants[name].real
        return self._reals[name]

    @property
    def graph(self) -> Graph:
        """The folded graph."""
        return self._graph

    @property
    def units(self) -> Sequence[Unit]:
        """The steps, in order."""
        return self._units

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the model."""
        return self._signature

    @property
    def target(self) -> Target:
        """What it is computed by."""
        return self._target


def apart(program: OnnxProgram) -> bool:
    """Whether two samples that go together give what each gives alone: tried out on noise."""
    if any(node.op.startswith("Dynamic") or node.op in _ONE_WAY for node in program.graph.nodes):
        return False  # one range for all of them, or one branch, which noise may take by luck
    inputs = program.signature.inputs
    if any(o.dtype in NOT_NUMBERS for o in program.signature.outputs):
        return False
    if any(None in i.shape[1:] or not i.dtype.startswith("float") for i in inputs):
        return False
    rng = np.random.default_rng(0)
    shapes = [tuple(d or 1 for d in i.shape[1:]) for i in inputs]
    feed = {i.name: rng.normal(size=(2, *s)).astype(i.dtype) for i, s in zip(inputs, shapes, strict=True)}
    try:
        both, *each = (
            program.run({k: v[rows] for k, v in feed.items()}, exact=False).simulated
            for rows in (slice(0, 2), slice(0, 1), slice(1, 2))
        )
    except UserError:
        return False
    together = zip(both, *each, strict=True)
    return all(
        len(t.data) == 2 and np.allclose(t.real, np.concatenate([a.real, b.real]), rtol=1e-3, atol=1e-4)
        for t, a, b in together
    )


def program(
    model: Model,
    *,
    target: Target | None = None,
    grids: Mapping[str, Grid] | None = None,
    reference: Model | None = None,
) -> OnnxProgram:
    """A model made ready to be simulated as it is.

    Args:
        model: a QDQ or QOperator file, or a float model.
        target: what it is computed by; None: as ONNX Runtime computes where products are exact.
        grids: puts tensors of a float model on grids, by name; `onnx_assign` chooses them, and integer weights.
        reference: the float model that it was made from, where that is known.

    Raises UserError for an opset or a layout that cannot be simulated; unknown operators are refused when they run.
    """
    compared = None if reference is None else program(reference)
    return ready(prepared(model), model, target or Target(), grids or {}, compared)


def prepared(model: Model) -> Graph:
    """The model's graph: scales written out, constants folded."""
    return fold(expand(read(onnx_model.to_proto(model), model.name)))


def ready(
    graph: Graph, model: Model, target: Target, grids: Mapping[str, Grid], reference: OnnxProgram | None = None
) -> OnnxProgram:
    """A prepared graph as a program."""
    return OnnxProgram(graph, units(graph, grids), target, grids, model, reference)


def _last_uses(graph: Graph, steps: Sequence[Unit]) -> dict[int, list[str]]:
    """Which tensors can go after which unit."""
    last: dict[str, int] = {}
    for index, unit in enumerate(steps):
        for name in (*unit.node.inputs, *captured(unit.node.proto), unit.output, *unit.node.outputs[1:]):
            if name:
                last[name] = index
    found: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in graph.outputs:
            found.setdefault(index, []).append(name)
    return found
