"""The steps for TFLite models: integer and float16 forms, written by ai-edge-quantizer from ranges found here.

Names and types of inputs and outputs stay as they are. Operators are named by their first output tensor.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import logging
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress import tflite_ranges
from edgelathe.compress.types import LINEAR_TFLITE, Applied, Context, Note, StepSpec, option
from edgelathe.core.errors import HostError, UserError
from edgelathe.model import io, tflite
from edgelathe.model.run import hushed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgelathe.model.types import Model

# Operators with weights: which axis of the weights (input 1) has a scale per channel.
WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "EMBEDDING_LOOKUP": 0}
_SCALES = ("auto", "minmax", "mse", "octav")
_SCALE_TEXT = "range rule; auto: minmax for weights of 8 bits, mse for those of 4 and for activations"


@dataclass(frozen=True)
class Int8Options:
    """Options of `int8`."""

    activations: int = option(8, "bits of the activations", choices=(8, 16))
    weights: int = option(8, "bits of the weights, one scale per output channel", choices=(4, 8))
    scale: str = option("auto", _SCALE_TEXT, choices=_SCALES)


@dataclass(frozen=True)
class ScaleOptions:
    """Options of the steps that differ in nothing but their range rule."""

    scale: str = option("auto", _SCALE_TEXT, choices=_SCALES)


@dataclass(frozen=True)
class NoOptions:
    """A step without options."""


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
        return ("mse" if self.weights == 4 else "minmax") if self.scale == "auto" else self.scale


Rule = tuple[str, Form]  # operator name of the schema, or "*"; the later rule wins where both fit and are supported


def int8(model: Model, options: Int8Options, context: Context) -> Applied:
    """Integer weights and activations; ranges of the activations from the samples in `context.data`.

    Sources: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference" (2018); TFLite's 8-bit quantization specification. Raises UserError for a model that is not float32.
    """

    def rules(o: Int8Options) -> list[Rule]:
        return [("*", Form("static", w, o.activations, o.scale)) for w in sorted({8, o.weights}, reverse=True)]

    return _apply(model, options, context, rules)


def int16x8(model: Model, options: ScaleOptions, context: Context) -> Applied:
    """16-bit activations, 8-bit weights. Raises UserError for a model that is not float32."""
    return int8(model, Int8Options(activations=16, scale=options.scale), context)


def int8_dynamic(model: Model, options: ScaleOptions, context: Context) -> Applied:
    """8-bit weights; activations are quantized as they come. Raises UserError for a model that is not float32.

    FULLY_CONNECTED gets one scale: tflite-runtime 2.14 answers wrongly, without a word, for one per channel.
    """

    def rules(o: ScaleOptions) -> list[Rule]:
        dense = Form("dynamic", 8, None, o.scale, per_channel=False)
        return [("*", Form("dynamic", 8, None, o.scale)), ("FULLY_CONNECTED", dense), ("BATCH_MATMUL", dense)]

    return _apply(model, options, context, rules)


def int4(model: Model, options: ScaleOptions, context: Context) -> Applied:
    """4-bit weights, arithmetic in float32; operators without a 4-bit form get 8 bits. Raises UserError as `int8`."""

    def rules(o: ScaleOptions) -> list[Rule]:
        return [("*", Form("stored", 8, None, o.scale)), ("*", Form("stored", 4, None, o.scale))]

    return _apply(model, options, context, rules)


def fp16(model: Model, options: NoOptions, context: Context) -> Applied:
    """float16 weights, expanded to float32 when the model loads. Raises UserError for a model that is not float32."""
    return _apply(model, options, context, lambda _: [("*", Form("stored", 16))])


def _apply(model: Model, options: Any, context: Context, rules: Callable[[Any], list[Rule]]) -> Applied:
    graph = tflite.parse(model.data)
    _must_be_float(model, graph)
    chosen = {
        i: _options(options, _layer(graph.main, op), context.overrides) for i, op in enumerate(graph.main.operators)
    }
    plan = {i: rules(o) if o is not None else [] for i, o in chosen.items()}
    usual = rules(options)
    with _quiet():
        data = _quantize(model, graph, usual, {i: p for i, p in plan.items() if p != usual}, context)
    out = io.from_bytes(_names_kept(data, graph.main), "tflite", model.name)
    whole = any(form.kind == "static" for _, form in usual)
    return Applied(out, tuple(_notes(graph.main, tflite.parse(out.data).main, chosen, whole)))


def _quantize(
    model: Model, graph: tflite.Parsed, usual: Sequence[Rule], special: Mapping[int, Sequence[Rule]], context: Context
) -> bytes:
    """The quantized file. `special` holds the rules of single operators, by index; no rule leaves one as it is."""
    from ai_edge_quantizer import quantizer

    work = quantizer.Quantizer(model.data)
    keep = quantizer.AlgorithmName.NO_QUANTIZE
    scopes = [(".*", usual)]
    for index, rules in special.items():
        names = "".join(graph.main.tensors[t].name + ";" for t in graph.main.operators[index].outputs if t >= 0)
        scopes.append((f"^{re.escape(names)}$", rules))
    for scope, rules in scopes:
        if not rules:
            work.update_quantization_recipe(scope, "*", algorithm_key=keep)
        for i, (name, form) in enumerate(rules):  # one scope holds one rule for "*": repeats differ by an empty group
            work.update_quantization_recipe(f"(?:){{{i}}}{scope}", _operation(name), **_config(form))
    for end in ("INPUT", "OUTPUT"):
        work.update_quantization_recipe("(?:){99}.*", _operation(end), algorithm_key=keep)
    ranges: dict[str, Any] = {}
    forms = [form for rules in (usual, *special.values()) for _, form in rules]
    static = next((f for f in forms if f.kind == "static"), None)
    if static:
        if context.data is None:
            raise UserError(model.name, "static integer steps need calibration data", "give them with --data")
        found = tflite_ranges.activations(model, context.data, static.activations or 8, static.scale)
        constant = {t.name for t in graph.main.tensors if t.constant}
        ranges = {k: {"min": np.array([a]), "max": np.array([b])} for k, (a, b) in found.items() if k not in constant}
    for index, op in enumerate(graph.main.operators):
        ranges |= _weight_ranges(graph, op, special.get(index, usual), work._recipe_manager)
    try:
        with hushed():
            result = work.quantize(ranges or None, enable_progress_bar=False, enable_progress_report=False)
    except (RuntimeError, ValueError, KeyError, IndexError) as e:
        raise UserError(
            model.name,
            f"ai-edge-quantizer refuses it ({' '.join(str(e).split())[:160]})",
            "skip that layer in the recipe",
        ) from e
    if result.quantized_model is None:
        raise HostError(model.name, "ai-edge-quantizer gave no model", "report it")
    return bytes(result.quantized_model)


def _weight_ranges(graph: tflite.Parsed, op: tflite.Operator, rules: Sequence[Rule], manager: Any) -> dict[str, Any]:
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
    if form is None or form.rule == "minmax" or form.weights == 16:
        return {}
    w = graph.buffers[weight.buffer].view("<f4").reshape([d or 1 for d in weight.shape])
    axes = tuple(a for a in range(w.ndim) if not (form.per_channel and a == WEIGHTED[op.op]))
    limit = tflite_ranges.weight_limit(w, axes, form.weights, form.rule)
    return {weight.name: {"min": -limit, "max": limit}}


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
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(data)
    graph = model.subgraphs[0]
    for old, new in zip(before.outputs, graph.outputs, strict=True):
        want, have = before.tensors[old].name.encode(), graph.tensors[new]
        if have.name != want:
            for tensor in graph.tensors:
                if tensor.name == want:
                    tensor.name, have.shapeSignature = want + b"_q", tensor.shapeSignature
            have.name = want
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _notes(before: tflite.Subgraph, after: tflite.Subgraph, options: Mapping[int, Any], whole: bool) -> Iterator[Note]:
    """A note per operator; where not the `whole` graph becomes integer, only per operator with weights."""
    kinds = {t.name: t.dtype for t in after.tensors}
    outputs = {before.tensors[i].name for i in before.outputs}
    for i, op in enumerate(before.operators):
        name = _layer(before, op)
        if not whole and op.op not in WEIGHTED:
            continue
        if options[i] is None:
            yield Note(name, False, "skipped by the recipe")
            continue
        made = kinds.get(name + "_q", kinds.get(name, "")) if name in outputs else kinds.get(name, "")
        weight = before.tensors[op.inputs[1]] if op.op in WEIGHTED and len(op.inputs) > 1 else None
        stored = kinds.get(weight.name) if weight and weight.constant else None
        if stored and stored != "float32":
            yield Note(name, True, f"{op.op}: weights {stored}, output {made}")
        elif made.startswith("int") and before.tensors[op.outputs[0]].dtype == "float32":
            yield Note(name, True, f"{op.op}: output {made}")
        elif before.tensors[op.outputs[0]].dtype == "float32":
            yield Note(name, False, f"{op.op} stays float32: the quantizer has no such form of it")
    if any(t.dtype == "int4" for t in after.tensors):
        yield Note("model", True, "4-bit weights: runs in ai-edge-litert 2.x; tflite-runtime 2.14 refuses them")


def _must_be_float(model: Model, graph: tflite.Parsed) -> None:
    kinds = {
        graph.main.tensors[o.inputs[1]].dtype for o in graph.main.operators if o.op in WEIGHTED and len(o.inputs) > 1
    }
    stored = {t.dtype for t in graph.main.tensors if t.constant and len(t.shape) > 1}
    if "float32" in stored and kinds <= {"float32"}:
        return
    small = sorted(k for k in kinds | stored if k in ("int4", "int8", "uint8", "int16", "float16"))
    if small:
        raise UserError(
            model.name, f"its weights are {small[0]} already, there is nothing to quantize", "give the float32 model"
        )
    raise UserError(
        model.name, "it has no float32 weights, there is nothing to quantize", "give a trained float32 model"
    )


def _layer(graph: tflite.Subgraph, op: tflite.Operator) -> str:
    return graph.tensors[op.outputs[0]].name if op.outputs else op.op


def _options(options: Any, layer: str, overrides: Mapping[str, Mapping[str, Any]]) -> Any:
    """The options of one layer, None where it is skipped; of several patterns that fit the last one counts."""
    from dataclasses import replace

    for pattern, values in overrides.items():
        if options is not None and fnmatch.fnmatchcase(layer, pattern):
            rest = {k: v for k, v in values.items() if k != "skip"}
            options = None if values.get("skip") else replace(options, **rest)
    return options


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


INT8 = StepSpec(
    "static integer weights and activations",
    Int8Options,
    int8,
    needs=frozenset({"data"}),
    ops=LINEAR_TFLITE,
    final=True,
)
INT16X8 = StepSpec(
    "16-bit activations, 8-bit weights", ScaleOptions, int16x8, needs=frozenset({"data"}), ops=LINEAR_TFLITE, final=True
)
INT8_DYNAMIC = StepSpec(
    "8-bit weights, activations quantized at run time", ScaleOptions, int8_dynamic, ops=LINEAR_TFLITE, final=True
)
INT4 = StepSpec("4-bit weights, float arithmetic", ScaleOptions, int4, ops=LINEAR_TFLITE, final=True)
FP16 = StepSpec("float16 weights, float arithmetic", NoOptions, fp16, ops=LINEAR_TFLITE, final=True)
