"""AMD Quark. Options: `method`, `activations` (a spec), `symmetric`, `per_channel`, `bias`, `cle`, `adaround`."""

import quark.onnx as q
from protocol import Job, Reader, main

# Those of its own A8W8 preset.
_EXTRA = {"ForceQuantizeNoInputCheck": True, "AlignSlice": False, "FoldRelu": True, "AlignConcat": True}


def quantize(job: Job) -> None:
    o = job.options
    method = {"calibration_method": q.CalibMethod[o["method"]]} if "method" in o else {}
    activation = getattr(q, o.get("activations", "Int8Spec"))(
        **method, **({"symmetric": o["symmetric"]} if "symmetric" in o else {})
    )
    grain = q.QuantGranularity.Channel if o.get("per_channel") else q.QuantGranularity.Tensor
    weight = q.Int8Spec(calibration_method=q.CalibMethod.MinMax, quant_granularity=grain)
    algorithms = [q.CLEConfig(cle_steps=o["cle"])] if o.get("cle") else []
    algorithms += [q.BiasCorrectionConfig()] if o.get("bias") else []
    if o.get("adaround"):
        algorithms.append(q.AdaRoundConfig(learning_rate=0.1, num_iterations=o["adaround"], num_workers=0))
    settings = q.QConfig(q.QLayerConfig(activation=activation, weight=weight), algo_config=algorithms, **_EXTRA)
    q.ModelQuantizer(settings).quantize_model(str(job.model), str(job.out), Reader(job))


main("amd-quark", quantize)
