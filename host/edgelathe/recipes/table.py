"""The table of all steps, by name and model format. A new step is one module in `compress` and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from edgelathe.compress import (
    bf16,
    bias_correct,
    bias_correct_tflite,
    codebook,
    equalize,
    fold,
    fp16,
    int4,
    int8,
    int8_dynamic,
    mixed,
    output_affine,
    output_affine_tflite,
    prune,
    sparse,
    tflite,
)
from edgelathe.compress.types import StepSpec
from edgelathe.model.types import Format

STEPS: Mapping[str, Mapping[Format, StepSpec]] = {
    "fold": {"onnx": fold.SPEC},
    "equalize": {"onnx": equalize.SPEC},
    "int8": {"onnx": int8.SPEC, "tflite": tflite.INT8},
    "mixed": {"onnx": mixed.SPEC},
    "int8-dynamic": {"onnx": int8_dynamic.SPEC, "tflite": tflite.INT8_DYNAMIC},
    "int16x8": {"tflite": tflite.INT16X8},
    "int4": {"onnx": int4.SPEC, "tflite": tflite.INT4},
    "fp16": {"onnx": fp16.SPEC, "tflite": tflite.FP16},
    "bf16": {"onnx": bf16.SPEC},
    "codebook": {"onnx": codebook.SPEC},
    "bias-correct": {"onnx": bias_correct.SPEC, "tflite": bias_correct_tflite.SPEC},
    "output-affine": {"onnx": output_affine.SPEC, "tflite": output_affine_tflite.SPEC},
    "prune": {"onnx": prune.SPEC},
    "sparse": {"onnx": sparse.SPEC},
}
