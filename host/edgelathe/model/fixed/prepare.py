"""A model of either format made ready for the simulator, its bit widths and its target as asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgelathe.core.errors import UserError
from edgelathe.model.fixed.types import Arithmetic, Bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.model.fixed.types import Program
    from edgelathe.model.types import Model

_QUANTIZED = frozenset((
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "MatMulNBits",
))  # fmt: skip
USUAL = Bits(8, 8)  # of a float model where nothing is asked for


@dataclass(frozen=True)
class Wanted:
    """What is to be simulated.

    Attributes:
        bits: those asked for; None: the model's own. A float model gets 8 where none are asked for, and keeps real
            what is left out where only one is.
        arithmetic: accumulators, overflow, kernels and rounding of the target.
        narrow: products of uint8 and int8 are added in pairs in saturating 16 bits, as x86 without VNNI does.
    """

    bits: Bits = field(default_factory=Bits)
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    narrow: bool = False


def is_float(model: Model) -> bool:
    """Whether no tensor of the model is on a grid of integers."""
    if model.format == "tflite":
        from edgelathe.model import tflite
        from edgelathe.model.fixed.tflite_graph import grid_of

        return all(grid_of(t) is None for t in tflite.parse(model.data).main.tensors)
    from edgelathe.model import onnx

    return not any(n.op_type in _QUANTIZED for n in onnx.to_proto(model).graph.node)


def needs_samples(model: Model, wanted: Wanted) -> bool:
    """Whether ranges of activations must be found before it can be simulated."""
    return is_float(model) and (not wanted.bits.any or wanted.bits.activations is not None)


def check(bits: Bits) -> None:
    """Whether these widths can be simulated. Raises UserError."""
    for name, asked in (("weights", bits.weights), ("activations", bits.activations)):
        if asked is not None and not 2 <= asked <= 16:
            raise UserError(f"--{name}", f"{asked} bits cannot be simulated", "give 2 to 16")


def prepare(
    model: Model, wanted: Wanted, samples: Mapping[str, NDArray[Any]] | None = None, reference: Model | None = None
) -> Program:
    """The program to be simulated.

    Args:
        model: integer or float.
        wanted: bit widths and target.
        samples: arrays [n, ...] by input name whose ranges a float model's activations are to span.
        reference: the float model that it was made from, where that is known.

    Raises:
        UserError: an operator or a target that is not simulated.
    """
    check(wanted.bits)
    return (_tflite if model.format == "tflite" else _onnx)(model, wanted, samples, reference)


def _tflite(
    model: Model, wanted: Wanted, samples: Mapping[str, NDArray[Any]] | None, reference: Model | None
) -> Program:
    from edgelathe.model.fixed import tflite, tflite_assign

    if wanted.narrow:
        raise UserError("--kernels saturating", "TFLite has no such kernels", "give an ONNX model, or another choice")
    bits = USUAL if is_float(model) and not wanted.bits.any else wanted.bits
    if not bits.any:
        return tflite.program(model, wanted.arithmetic, reference=reference)
    grids = tflite_assign.grids(model, bits, samples)
    return tflite.program(model, wanted.arithmetic, grids, reference)


def _onnx(model: Model, wanted: Wanted, samples: Mapping[str, NDArray[Any]] | None, reference: Model | None) -> Program:
    if wanted.arithmetic.kernels == "optimized":
        what = "is TFLite's: ONNX Runtime's kernels compute what `reference` does"
        raise UserError("--kernels optimized", what, "leave it out, or try `saturating` for x86 without VNNI")
    from edgelathe.model.fixed import onnx, onnx_assign
    from edgelathe.model.fixed.onnx_rescale import Target

    target = Target(wanted.arithmetic, wanted.arithmetic.rounding or "float", wanted.narrow)
    if not is_float(model) and not wanted.bits.any:
        return onnx.program(model, target=target, reference=reference)
    bits = wanted.bits if wanted.bits.any else USUAL
    return onnx_assign.requantized(model, bits, samples or {}, target=target, reference=reference)
