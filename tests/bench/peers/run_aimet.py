"""AIMET-ONNX, exported as Q/DQ. Options: `scheme`, `param_type`, `as`, and `equalize`, `seq_mse`, `adaround` steps."""

import onnx
from aimet_onnx import QuantizationSimModel, apply_adaround, apply_seq_mse
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
from aimet_onnx.cross_layer_equalization import equalize_model
from protocol import Job, main


def quantize(job: Job) -> None:
    o, model, feeds = job.options, onnx.load(str(job.model)), job.feeds()
    if o.get("equalize"):
        equalize_model(model)
    else:
        fold_all_batch_norms_to_weight(model)
    sim = QuantizationSimModel(
        model, param_type=o.get("param_type", "int8"), activation_type="int8", quant_scheme=o.get("scheme", "min_max")
    )
    if o.get("seq_mse"):
        apply_seq_mse(sim, feeds)
    if o.get("adaround"):
        apply_adaround(sim, feeds, num_iterations=o["adaround"])
    sim.compute_encodings(feeds)
    made = sim.to_onnx_qdq(
        export_int32_bias=True, prequantize_constants=True, force_activation_as=o.get("as", "unsigned")
    )
    onnx.save(made, str(job.out))


main("aimet-onnx", quantize)
