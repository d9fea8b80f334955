"""What ai-edge-quantizer is told: a form for each operator, and the ranges to use in place of its own.

It decides which operators have which form, puts QUANTIZE and DEQUANTIZE where forms meet, and writes the file.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.tflite import ranges as tflite_ranges
from edgelathe.compress.tflite.file import File
from edgelathe.core.errors import HostError, UserError
from edgelathe.model import tflite
from edgelathe.model.run import hushed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgelathe.model.types import Model

# Operators with weights: which axis of the weights (input 1) has a scale per channel.
WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "EMBEDDING_LOOKUP": 0}


@dataclass(frozen=True)
class Form:
    """What the numbers of one operator become. `activations` None: they stay float32.

    `kind`: `static` computes in integers, `dynamic` quantizes activations while it runs, `stored` computes in float32
    from small weights. `per_channel` false: one scale for the whole weights. `weights` 16 of a `stored` form: float16.
    """

    kind: str
    weights: int
    activations: int | None = None
    scale: str = "auto"
    per_channel: bool = True

    @property
    def rule(self) -> str:
        """The range rule of the weights, `auto` decided: at 8 bits the largest weights matter more than rounding."""
        if self.scale in ("mse", "octav", "minmax"):
            return self.scale
        return "mse" if self.weights == 4 else "minmax"


Rule = tuple[str, Form]  # operator name of the schema, or "*"; the later rule wins where both fit and are supported
Ranges = dict[str, tuple[float, float]]


def quantize(model: Model, usual: Sequence[Rule], special: Mapping[int, Sequence[Rule]], activations: Ranges) -> bytes:
    """The quantized file.

    Args:
        model: float.
        usual: the rules of all operators.
        special: those of single operators, by index, in their place; no rule leaves one as it is.
        activations: (low, high) by tensor name; empty where no form is static.

    Raises:
        UserError: the quantizer refuses the model.
    """
    from ai_edge_quantizer import quantizer

    graph = tflite.parse(model.data)
    with _quiet():
        work = quantizer.Quantizer(model.data)
        _tell(work, graph.main, usual, special)
        constant = {t.name for t in graph.main.tensors if t.constant}
        ranges: dict[str, Any] = {
            k: {"min": np.array([a]), "max": np.array([b])} for k, (a, b) in activations.items() if k not in constant
        }
        for index, op in enumerate(graph.main.operators):
            ranges |= _weight_range(graph, op, special.get(index, usual), work._recipe_manager, activations)
        try:
            with hushed():
                result = work.quantize(ranges or None, enable_progress_bar=False, enable_progress_report=False)
        except (RuntimeError, ValueError, KeyError, IndexError) as e:
            what = f"ai-edge-quantizer refuses it ({' '.join(str(e).split())[:160]})"
            raise UserError(model.name, what, "skip that layer in the recipe") from e
    if result.quantized_model is None:
        raise HostError(model.name, "ai-edge-quantizer gave no model", "report it")
    return _names_kept(bytes(result.quantized_model), graph.main)


def _tell(work: Any, graph: tflite.Subgraph, usual: Sequence[Rule], special: Mapping[int, Sequence[Rule]]) -> None:
    """Give the quantizer its recipe."""
    from ai_edge_quantizer import quantizer

    keep = quantizer.AlgorithmName.NO_QUANTIZE
    scopes = [(".*", usual)]
    for index, rules in special.items():
        names = "".join(graph.tensors[t].name + ";" for t in graph.operators[index].outputs if t >= 0)
        scopes.append((f"^{re.escape(names)}$", rules))
    for scope, rules in scopes:
        if not rules:
            work.update_quantization_recipe(scope, "*", algorithm_key=keep)
        for i, (name, form) in enumerate(rules):  # one scope holds one rule for "*": repeats differ by an empty group
            work.update_quantization_recipe(f"(?:){{{i}}}{scope}", _operation(name), **_config(form))
    for end in ("INPUT", "OUTPUT"):
        work.update_quantization_recipe("(?:){99}.*", _operation(end), algorithm_key=keep)


def _weight_range(
    graph: tflite.Parsed, op: tflite.Operator, rules: Sequence[Rule], manager: Any, activations: Ranges
) -> dict[str, Any]:
    """The range of one operator's weights by tensor name, where its rule is other than the quantizer's own."""
    if op.op not in WEIGHTED or len(op.inputs) < 2 or op.inputs[1] < 0:
        return {}
    weight = graph.main.tensors[op.inputs[1]]
    if not weight.constant or weight.dtype != "float32":
        return {}
    names = "".join(graph.main.tensors[t].name + ";" for t in op.outputs if t >= 0)
    _, config = manager.get_quantization_configs(_operation(op.op), names)
    bits = config.weight_tensor_config.num_bits if config.weight_tensor_config else None
    form = next((f for name, f in reversed(rules) if name in ("*", op.op) and f.weights == bits), None)
    if form is None or form.weights == 16:
        return {}
    w = graph.buffers[weight.buffer].view("<f4").reshape([d or 1 for d in weight.shape])
    axes = tuple(a for a in range(w.ndim) if not (form.per_channel and a == WEIGHTED[op.op]))
    least = _least(graph, op, form, activations)
    limit = tflite_ranges.weight_limit(w, axes, form.weights, form.rule, least)
    return {weight.name: {"min": -limit, "max": limit}}


def _least(graph: tflite.Parsed, op: tflite.Operator, form: Form, activations: Ranges) -> Any:
    """What each channel's weights must reach at least so that its bias fits 32 bits with room for the sum; or None."""
    place = 3 if op.op == "TRANSPOSE_CONV" else 2
    bias = graph.main.tensors[op.inputs[place]] if len(op.inputs) > place and op.inputs[place] >= 0 else None
    source = graph.main.tensors[op.inputs[2 if op.op == "TRANSPOSE_CONV" else 0]].name
    if form.kind != "static" or form.activations != 8 or bias is None or not bias.constant or source not in activations:
        return None
    low, high = activations[source]
    real = np.abs(graph.buffers[bias.buffer].view("<f4").astype(np.float64))
    least = real / ((high - low) / 255) / 2.0**30 * (2 ** (form.weights - 1) - 1)
    return (least if form.per_channel else least.max()).astype(np.float32)


def _operation(op: str) -> Any:
    from ai_edge_quantizer import qtyping

    return qtyping.TFLOperationName({"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}.get(op, op))


def _config(form: Form) -> dict[str, Any]:
    """Arguments of the quantizer for a form."""
    from ai_edge_quantizer import qtyping, quantizer

    tensor = functools.partial(qtyping.TensorQuantizationConfig, symmetric=True)
    grain = qtyping.QuantGranularity.CHANNELWISE if form.per_channel else qtyping.QuantGranularity.TENSORWISE
    real = form.kind == "stored" and form.weights == 16
    weights = (
        tensor(num_bits=16, dtype=qtyping.TensorDataType.FLOAT) if real else tensor(form.weights, granularity=grain)
    )
    precision = qtyping.ComputePrecision.FLOAT if form.kind == "stored" else qtyping.ComputePrecision.INTEGER
    # 8-bit activations have a zero point, 16-bit ones are symmetric: what the kernels take.
    acts = None if form.activations is None else tensor(form.activations, symmetric=form.activations == 16)
    algorithm = quantizer.AlgorithmName.FLOAT_CASTING if real else quantizer.AlgorithmName.MIN_MAX_UNIFORM_QUANT
    config = qtyping.OpQuantizationConfig(acts, weights, precision, explicit_dequantize=form.kind == "stored")
    return {"op_config": config, "algorithm_key": algorithm}


def _names_kept(data: bytes, before: tflite.Subgraph) -> bytes:
    """The file with the model's outputs under their old names: the quantizer puts `..._dequant` behind an output."""
    file = File(data)
    for old, new in zip(before.outputs, file.graph.outputs, strict=True):
        want, have = before.tensors[old].name.encode(), file.graph.tensors[new]
        if have.name != want:
            for tensor in file.graph.tensors:
                if tensor.name == want:
                    tensor.name, have.shapeSignature = want + b"_q", tensor.shapeSignature
            have.name = want
    return file.data()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and no log lines from the quantizer; without a handler its first line would install one for good."""
    handler, before = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.removeHandler(handler)
