"""onnx/neural-compressor. Options are those of its StaticQuantConfig; types, format and method by their names."""

from onnx_neural_compressor.quantization import CalibrationMethod, QuantFormat, QuantType, config
from onnx_neural_compressor.quantization import quantize as run
from protocol import Job, Reader, main

_ENUMS = {
    "calibrate_method": CalibrationMethod,
    "quant_format": QuantFormat,
    "activation_type": QuantType,
    "weight_type": QuantType,
}


def quantize(job: Job) -> None:
    options = {k: _ENUMS[k][v] if k in _ENUMS else v for k, v in job.options.items()}
    settings = config.StaticQuantConfig(
        calibration_data_reader=Reader(job), calibration_sampling_size=len(job.samples),
        execution_provider="CPUExecutionProvider", **options,
    )  # fmt: skip
    run(str(job.model), str(job.out), settings)


main("onnx-neural-compressor", quantize)
