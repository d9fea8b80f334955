"""NNCF. Options: `preset`, `range` (a name of RangeEstimatorParametersSet), `fast` bias correction, `overflow` fix."""

import nncf
import onnx
from nncf import AdvancedQuantizationParameters, OverflowFix, QuantizationPreset
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from protocol import Job, main


def quantize(job: Job) -> None:
    o, advanced = job.options, AdvancedQuantizationParameters()
    if "range" in o:
        advanced.activations_range_estimator_params = getattr(RangeEstimatorParametersSet, o["range"])
    if "overflow" in o:
        advanced.overflow_fix = OverflowFix(o["overflow"])
    made = nncf.quantize(
        onnx.load(str(job.model)), nncf.Dataset(job.feeds()), subset_size=len(job.samples),
        preset=QuantizationPreset(o["preset"]) if "preset" in o else None,
        fast_bias_correction=o.get("fast", True), advanced_parameters=advanced,
    )  # fmt: skip
    onnx.save(made, str(job.out))


main("nncf", quantize)
