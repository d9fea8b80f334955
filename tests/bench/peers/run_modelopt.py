"""NVIDIA ModelOpt for ONNX, other layers kept in float32 (its default, float16, is for GPUs). Option: `method`."""

from modelopt.onnx.quantization import quantize as run
from protocol import Job, main


def quantize(job: Job) -> None:
    run(
        str(job.model), quantize_mode="int8", calibration_data={job.input: job.samples},
        calibration_method=job.options["method"], calibration_eps=["cpu"], output_path=str(job.out),
        high_precision_dtype="fp32", log_level="WARNING",
    )  # fmt: skip


main("nvidia-modelopt", quantize)
