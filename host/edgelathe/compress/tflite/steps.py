"""The steps for TFLite models: integer and float16 forms, written by ai-edge-quantizer from ranges found here.

Names and types of inputs and outputs stay as they are. Operators are named by their first output tensor.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.tflite import equalize as tflite_equalize
from edgelathe.compress.tflite import pool as tflite_pool
from edgelathe.compress.tflite import quantizer as tflite_quantizer
from edgelathe.compress.tflite import ranges as tflite_ranges
from edgelathe.compress.tflite import rounding as tflite_rounding
from edgelathe.compress.tflite.quantizer import WEIGHTED, Form, Rule
from edgelathe.compress.types import LINEAR_TFLITE, Applied, Context, Note, StepSpec, option
from edgelathe.core.errors import UserError
from edgelathe.model import io, tflite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Set

    from edgelathe.model.types import Model

_SCALES = ("auto", "minmax", "mse", "octav")
_SCALE_TEXT = "range of the weights; auto: minmax for those of 8 bits, mse for those of 4"
_EQUALIZE = ("auto", "always", "never")


@dataclass(frozen=True)
class Int8Options:
    """Options of `int8`."""

    activations: int = option(8, "bits of the activations", choices=(8, 16))
    weights: int = option(8, "bits of the weights, one scale per output channel", choices=(4, 8))
    scale: str = option(
        "auto",
        "range rule; auto: of activations the least error where they are read, of weights minmax (8 bits) or mse (4)",
        choices=("auto", "minmax", "percentile", "mse", "entropy", "octav"),
    )
    percentile: float = option(99.99, "share of values inside the range, for scale=percentile, in %", low=50, high=100)
    correct: bool = option(True, "take the mean error of rounding out of the biases")
    equalize: str = option("auto", "rescale channels that differ first", choices=_EQUALIZE)
    rounding: str = option(
        "auto", "how weights are rounded; auto: second-order below 8 bits", choices=("auto", "nearest", "second-order")
    )


@dataclass(frozen=True)
class ScaleOptions:
    """Options of `int8-dynamic` and `int16x8`."""

    scale: str = option("auto", _SCALE_TEXT, choices=_SCALES)
    equalize: str = option("auto", "rescale channels that differ first", choices=_EQUALIZE)


@dataclass(frozen=True)
class Int4Options:
    """Options of `int4`."""

    scale: str = option("auto", _SCALE_TEXT, choices=_SCALES)
    equalize: str = option("auto", "rescale channels that differ first", choices=_EQUALIZE)
    rounding: str = option(
        "auto",
        "how weights are rounded; auto: second-order where there are samples",
        choices=("auto", "nearest", "second-order"),
    )


@dataclass(frozen=True)
class NoOptions:
    """A step without options."""


def int8(model: Model, options: Int8Options, context: Context) -> Applied:
    """Integer weights and activations; ranges of the activations from the samples in `context.data`.

    Sources: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference" (2018); TFLite's 8-bit quantization specification. Raises UserError for a model that is not float32.
    """

    def rules(o: Int8Options) -> list[Rule]:
        if o.weights == 16:  # an override of `mixed`: float16, computed in float
            return [("*", Form("stored", 16))]
        return [("*", Form("static", w, o.activations, o.scale)) for w in sorted({8, o.weights}, reverse=True)]

    return _apply(model, options, context, rules)


def int16x8(model: Model, options: ScaleOptions, context: Context) -> Applied:
    """16-bit activations, 8-bit weights. Raises UserError for a model that is not float32."""
    return int8(model, Int8Options(activations=16, scale=options.scale, equalize=options.equalize), context)


def int8_dynamic(model: Model, options: ScaleOptions, context: Context) -> Applied:
    """8-bit weights; activations are quantized as they come. Raises UserError for a model that is not float32.

    FULLY_CONNECTED gets one scale: tflite-runtime 2.14 answers wrongly, without a word, for one per channel.
    """

    def rules(o: ScaleOptions) -> list[Rule]:
        dense = Form("dynamic", 8, None, o.scale, per_channel=False)
        return [("*", Form("dynamic", 8, None, o.scale)), ("FULLY_CONNECTED", dense), ("BATCH_MATMUL", dense)]

    return _apply(model, options, context, rules)


def int4(model: Model, options: Int4Options, context: Context) -> Applied:
    """4-bit weights, arithmetic in float32; operators without a 4-bit form get 8 bits. Raises UserError as `int8`.

    With samples in `context.data` weights are rounded by second order, else to nearest.
    """
    if options.rounding == "second-order" and context.data is None:
        raise UserError("int4", "rounding=second-order needs calibration data", "give them with --data")

    def rules(o: Int4Options) -> list[Rule]:
        return [("*", Form("stored", 8, None, o.scale)), ("*", Form("stored", 4, None, o.scale))]

    return _apply(model, options, context, rules)


def fp16(model: Model, options: NoOptions, context: Context) -> Applied:
    """float16 weights, expanded to float32 when the model loads. Raises UserError for a model that is not float32."""
    return _apply(model, options, context, lambda _: [("*", Form("stored", 16))])


def _apply(model: Model, options: Any, context: Context, rules: Callable[[Any], list[Rule]]) -> Applied:
    parsed = tflite.parse(model.data)
    must_be_float(model, parsed)
    graph, usual = parsed.main, rules(options)
    chosen = {i: options_of(options, _layer(graph, op), context.overrides) for i, op in enumerate(graph.operators)}
    by_name = {_layer(graph, op): chosen[i] for i, op in enumerate(graph.operators)}
    plan = {i: rules(o) if o is not None else [] for i, o in chosen.items()}
    static = next((form for _, form in usual if form.kind == "static"), None)
    if static is not None:
        _must_have_samples(model, parsed, context)

    def allowed(name: str) -> bool:
        return by_name.get(name) is not None

    before, notes = tflite_equalize.balance(model, getattr(options, "equalize", "never"), allowed)
    ranges: tflite_quantizer.Ranges = {}
    if static is not None and context.data is not None:
        if static.activations == 8:
            before = tflite_pool.global_means(before, allowed)
        own = {n: _rule(o) for n, o in by_name.items() if o is not None}
        bits = static.activations or 8
        ranges = tflite_ranges.activations(before, context.data, bits, _rule(options), own)
    special = {i: p for i, p in plan.items() if p != usual}
    data = tflite_quantizer.quantize(before, usual, special, ranges)
    wishes = {n: _wish(o) for n, o in by_name.items() if o is not None}
    learned: Set[str] = frozenset()
    if context.data is not None and any(w.learn or w.correct for w in wishes.values()):
        data, learned = tflite_rounding.settle(before, data, wishes, context.data, context.seed)
    out = io.from_bytes(data, "tflite", model.name)
    after = tflite.parse(out.data).main
    return Applied(out, (*notes, *_notes(graph, after, chosen, learned, whole=static is not None)))


def _rule(options: Any) -> tflite_ranges.Rule:
    """Of the activations that a layer makes; `octav` is a rule of weights."""
    name = "auto" if options.scale == "octav" else options.scale
    return tflite_ranges.Rule(name, getattr(options, "percentile", 99.99))


def _wish(options: Any) -> tflite_rounding.Wish:
    rounding, weights = getattr(options, "rounding", "nearest"), getattr(options, "weights", 4)
    learn = rounding == "second-order" or (rounding == "auto" and weights < 8)
    return tflite_rounding.Wish(learn and weights <= 8, getattr(options, "correct", False))


def _notes(
    before: tflite.Subgraph, after: tflite.Subgraph, options: Mapping[int, Any], learned: Set[str], *, whole: bool
) -> Iterator[Note]:
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
            how = ", second-order" if name in learned else ""
            yield Note(name, True, f"{op.op}: weights {stored}, output {made}{how}")
        elif made.startswith("int") and before.tensors[op.outputs[0]].dtype == "float32":
            yield Note(name, True, f"{op.op}: output {made}")
        elif before.tensors[op.outputs[0]].dtype == "float32":
            yield Note(name, False, f"{op.op} stays float32: the quantizer has no such form of it")
    if any(t.dtype == "int4" for t in after.tensors):
        yield Note("model", True, "4-bit weights: runs in ai-edge-litert 2.x; tflite-runtime 2.14 refuses them")


def must_be_float(model: Model, parsed: tflite.Parsed) -> None:
    """Raises UserError for a model whose weights are not float32, or not finite."""
    graph = parsed.main
    weights = [graph.tensors[o.inputs[1]] for o in graph.operators if o.op in WEIGHTED and len(o.inputs) > 1]
    kinds = {w.dtype for w in weights}
    stored = {t.dtype for t in graph.tensors if t.constant and len(t.shape) > 1}
    if "float32" in stored and kinds <= {"float32"}:
        for w in weights:
            if w.constant and not np.isfinite(parsed.buffers[w.buffer].view("<f4")).all():
                raise UserError(model.name, f"weights '{w.name}' are not finite", "export the trained model again")
        return
    small = sorted(k for k in kinds | stored if k in ("int4", "int8", "uint8", "int16", "float16"))
    if small:
        raise UserError(
            model.name, f"its weights are {small[0]} already, there is nothing to quantize", "give the float32 model"
        )
    raise UserError(
        model.name, "it has no float32 weights, there is nothing to quantize", "give a trained float32 model"
    )


def _must_have_samples(model: Model, parsed: tflite.Parsed, context: Context) -> None:
    if context.data is None or not len(context.data):
        raise UserError(model.name, "static integer steps need calibration data", "give them with --data")
    if len(parsed.subgraphs) > 1:
        raise UserError(model.name, "has control flow (several subgraphs)", "use int8-dynamic or fp16")


def _layer(graph: tflite.Subgraph, op: tflite.Operator) -> str:
    return graph.tensors[op.outputs[0]].name if op.outputs else op.op


def options_of(options: Any, layer: str, overrides: Mapping[str, Mapping[str, Any]]) -> Any:
    """The options of one layer, None where it is skipped; of several patterns that fit the last one counts."""
    for pattern, values in overrides.items():
        if options is not None and fnmatch.fnmatchcase(layer, pattern):
            rest = {k: v for k, v in values.items() if k != "skip"}
            options = None if values.get("skip") else replace(options, **rest)
    return options


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
INT4 = StepSpec("4-bit weights, float arithmetic", Int4Options, int4, ops=LINEAR_TFLITE, final=True)
FP16 = StepSpec("float16 weights, float arithmetic", NoOptions, fp16, ops=LINEAR_TFLITE, final=True)
