"""ONNX Runtime's own static quantizer. Options are its arguments; types and methods by their names."""

from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from protocol import Job, Reader, main


def quantize(job: Job) -> None:
    options = dict(job.options)
    method = CalibrationMethod[options.pop("method", "MinMax")]
    kinds = {k: QuantType[options.pop(k, "QInt8")] for k in ("activation_type", "weight_type")}
    quant_pre_process(str(job.model), job.scratch("pre.onnx"))
    quantize_static(job.scratch("pre.onnx"), str(job.out), Reader(job), calibrate_method=method, **kinds, **options)


main("onnxruntime", quantize)
