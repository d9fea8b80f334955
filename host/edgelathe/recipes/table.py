"""The table of all steps, by name and model format. A new step is one module in `compress` and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from edgelathe.compress.corrections import bias_correct, output_affine
from edgelathe.compress.graph import equalize, fold
from edgelathe.compress.half import bf16, fp16
from edgelathe.compress.integer import int8, int8_dynamic
from edgelathe.compress.mixed import mixed
from edgelathe.compress.pruning import prune, sparse
from edgelathe.compress.tflite import bias_correct as bias_correct_tflite
from edgelathe.compress.tflite import mixed as mixed_tflite
from edgelathe.compress.tflite import output_affine as output_affine_tflite
from edgelathe.compress.tflite import steps as tflite
from edgelathe.compress.types import StepSpec
from edgelathe.compress.weight_only import codebook, int4
from edgelathe.model.types import Format

STEPS: Mapping[str, Mapping[Format, StepSpec]] = {
    "fold": {"onnx": fold.SPEC},
    "equalize": {"onnx": equalize.SPEC},
    "int8": {"onnx": int8.SPEC, "tflite": tflite.INT8},
    "mixed": {"onnx": mixed.SPEC, "tflite": mixed_tflite.SPEC},
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
