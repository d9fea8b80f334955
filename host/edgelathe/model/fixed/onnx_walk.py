"""One chunk of samples through an ONNX graph: every tensor in fixed point, and the same in float where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import onnx_contrib, onnx_float, onnx_kernels, onnx_linear
from edgelathe.model.fixed.limits import Limits
from edgelathe.model.fixed.onnx_graph import LOAD, STORE, Node, captured
from edgelathe.model.fixed.onnx_linear import Made
from edgelathe.model.fixed.onnx_narrow import Saturation
from edgelathe.model.fixed.onnx_rescale import limits, store
from edgelathe.model.fixed.onnx_units import Unit, stored_grid
from edgelathe.model.fixed.types import Answer, Grid, Value, Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.onnx import OnnxProgram


@dataclass(frozen=True)
class Ears:
    """Who is told what: `watch` of layers and their errors, `hear` of every tensor by name."""

    watch: Watch
    hear: Callable[[str, Value], None]


class Walk:
    """One chunk on its way: values in fixed point, and the same in float where they differ."""

    def __init__(
        self,
        program: OnnxProgram,
        inputs: Mapping[str, NDArray[Any]],
        ears: Ears,
        exact: bool,
        given: Mapping[str, NDArray[Any]],
    ) -> None:
        self._program, self._ears, self._both, self._given = program, ears, exact, given
        self._values: dict[str, Value] = {}
        self._exact: dict[str, NDArray[Any]] = {}
        self._raw: set[str] = set()  # tensors that the file itself holds as integers
        for name, grid in program.inputs.items():
            if grid is None:
                self._values[name] = Value(inputs[name])
                continue
            data, clipped = store(inputs[name], grid)
            self._values[name], self._exact[name] = Value(data, grid), inputs[name]
            ears.watch(Answer(name, STORE, self._values[name], inputs[name] if exact else None, clipped))

    def value(self, name: str) -> Value | None:
        """A tensor in fixed point; None for an input left out."""
        return self._program.graph.constants.get(name) or self._values[name] if name else None

    def exact(self, name: str) -> NDArray[Any]:
        """A tensor in float."""
        if name in self._exact:
            return self._exact[name]
        if name in self._program.graph.originals:
            return self._program.graph.originals[name]
        constant = self._program.real(name)
        return constant if constant is not None else self._values[name].real

    def forget(self, names: Sequence[str]) -> None:
        """Let go of tensors that nobody reads any more."""
        for name in names:
            self._values.pop(name, None)
            self._exact.pop(name, None)

    def step(self, unit: Unit) -> None:
        """Compute one unit."""
        node = unit.node
        inputs = [self.value(n) for n in node.inputs]
        if node.op in (STORE, LOAD):
            self._convert(unit, inputs)
            return
        moved = None
        if any(n in self._raw for n in node.inputs):
            moved = onnx_kernels.move(node, inputs)
            if moved is None:  # an operator on integers as they are, whatever they stand for
                inputs = [
                    Value(v.data) if v is not None and n in self._raw else v
                    for n, v in zip(node.inputs, inputs, strict=True)
                ]
            else:
                self._raw |= {o for o in node.outputs if o}
        made, others, whole = self._compute(unit, inputs)
        if unit.clips:
            self._raw.add(unit.output)
        self._values[unit.output] = made.value
        for name, value in zip(node.outputs[1:], others, strict=False):
            if name:
                self._values[name] = value
        floating = made.value.grid is not None or made.value.data.dtype.kind == "f"
        if self._both and (floating or node.op in onnx_contrib.UNROUNDED):
            self._follow(unit)
        if floating:
            if not whole:
                self._program.floats[node.name] = node.op
            self._answer(unit, made)
        self._ears.hear(unit.output, made.value)
        if unit.output in self._given:
            self._values[unit.output] = Value(self._given[unit.output], made.value.grid)

    def _convert(self, unit: Unit, inputs: list[Value | None]) -> None:
        """A QuantizeLinear or DequantizeLinear that stands alone."""
        node, first = unit.node, inputs[0]
        assert first is not None
        grid = stored_grid(self._program.graph, node, inputs)
        assert grid is not None
        name = node.outputs[0]
        if node.op == LOAD:
            self._values[name] = Value(first.data, grid)
            if self._both and node.inputs[0] in self._exact:
                self._exact[name] = self._exact[node.inputs[0]]
            return
        data, clipped = store(first.real, grid)
        self._values[name] = Value(data, grid)
        self._raw.add(name)
        if self._both:
            self._exact[name] = _clip(self.exact(node.inputs[0]), grid)
        exact = self._exact.get(name)
        self._ears.watch(Answer(node.inputs[0], node.op, self._values[name], exact, clipped))
        self._ears.hear(name, self._values[name])
        if name in self._given:
            self._values[name] = Value(self._given[name], grid)

    def _compute(self, unit: Unit, inputs: list[Value | None]) -> tuple[Made, list[Value], bool]:
        """The first output, the others, and whether integers were computed with."""
        node, program = unit.node, self._program
        within = None if unit.grid is None else limits(unit.grid, unit.low, unit.high)
        if node.op in onnx_linear.OPERATORS and not node.domain:
            layer = program.linear(unit, inputs)
            if layer is not None:
                assert inputs[0] is not None
                made = onnx_linear.run(layer, inputs[0], unit.grid, within, program.target)
                if made.saturation.answers:
                    program.saturation[node.name] = program.saturation.get(node.name, Saturation()) + made.saturation
                return (made if unit.grid is not None else _clamped(made, unit)), [], True
        moved = onnx_kernels.move(node, inputs)
        if moved is not None:
            first = moved[0]
            assert first.grid is not None
            if unit.grid is None and not unit.clamped:
                return Made(first), moved[1:], True
            if unit.grid is not None and onnx_kernels.same(first.grid, unit.grid):
                assert within is not None
                held = np.clip(first.data, within.low, within.high) if unit.clamped else first.data
                return Made(Value(held, unit.grid)), moved[1:], True
            return _stored(first.real, unit, within), moved[1:], False
        kernel = onnx_kernels.KERNELS.get(node.op)
        if kernel is not None and unit.grid is not None and within is not None:
            call = onnx_kernels.Call(node, inputs, unit.grid, within, program.target)
            integer = kernel(call)
            if integer is not None:
                return integer, [], True
        return self._in_float(unit, inputs, within)

    def _in_float(
        self, unit: Unit, inputs: list[Value | None], within: Limits | None
    ) -> tuple[Made, list[Value], bool]:
        node = unit.node
        arrays = [self._program.real(n) if v is not None and n in self._program.graph.constants else
                  None if v is None else v.real for n, v in zip(node.inputs, inputs, strict=True)]  # fmt: skip
        found = onnx_float.run(node, arrays, self._outside(node, exact=False))
        if not found:
            raise UserError(node.name, f"{node.op} has no output", "check the model")
        return _stored(found[0], unit, within), [Value(a) for a in found[1:]], False

    def _follow(self, unit: Unit) -> None:
        """The same unit in float."""
        node = unit.node
        arrays = [self.exact(n) if n else None for n in node.inputs]
        if node.op in onnx_contrib.UNROUNDED:
            found = onnx_contrib.UNROUNDED[node.op](arrays)
        else:
            found = onnx_float.run(node, arrays, self._outside(node, exact=True))
        first = _cut(found[0], unit)
        self._exact[unit.output] = _clip(first, unit.grid) if unit.clips and unit.grid is not None else first
        for name, array in zip(node.outputs[1:], found[1:], strict=False):
            if name:
                self._exact[name] = array

    def _outside(self, node: Node, *, exact: bool) -> dict[str, NDArray[Any]]:
        """Tensors that the branches of a node read."""
        names = [n for n in captured(node.proto) if n in self._values or n in self._program.graph.constants]
        if exact:
            return {n: self.exact(n) for n in names}
        return {n: v.real for n in names if (v := self.value(n)) is not None}

    def _answer(self, unit: Unit, made: Made) -> None:
        exact = self._exact.get(unit.output)
        self._ears.watch(
            Answer(
                unit.node.name, unit.node.op, made.value, exact, made.clipped, made.overflows + made.saturation.outputs
            )
        )


def _stored(real: NDArray[Any], unit: Unit, within: Limits | None) -> Made:
    """A real output on the unit's grid, if it has one."""
    if unit.grid is None:
        return Made(Value(_cut(real, unit)))
    data, clipped = store(real, unit.grid, within)
    return Made(Value(data, unit.grid), clipped)


def _clamped(made: Made, unit: Unit) -> Made:
    if not unit.clamped:
        return made
    return Made(Value(_cut(made.value.data, unit)), made.clipped, made.overflows, made.saturation)


def _cut(real: NDArray[Any], unit: Unit) -> NDArray[Any]:
    if not unit.clamped:
        return real
    return np.clip(real, *(None if b is None else real.dtype.type(b) for b in (unit.low, unit.high)))


def _clip(real: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Real numbers cut to what a grid reaches, without rounding."""
    scales, zeros = (grid.spread(a, real.shape) for a in (grid.scales, grid.zero_points))
    return np.clip(
        real, ((grid.low - zeros) * scales).astype(np.float32), ((grid.high - zeros) * scales).astype(np.float32)
    )
