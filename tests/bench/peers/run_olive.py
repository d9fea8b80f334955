"""Olive's OnnxStaticQuantization pass. Options are those of the pass."""

import shutil

from olive.data.component.dataset import BaseDataset
from olive.data.config import DataConfig
from olive.data.registry import Registry
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxStaticQuantization
from protocol import Job, main


def quantize(job: Job) -> None:
    rows = [{job.input: x} for x in job.samples]
    Registry.register_dataset("bench_samples")(lambda **_: BaseDataset(rows))
    data = DataConfig(name="calib", load_dataset_config={"type": "bench_samples"})
    settings = {"data_config": data, **job.options}
    made = create_pass_from_dict(OnnxStaticQuantization, settings, disable_search=True).run(
        ONNXModelHandler(model_path=str(job.model)), job.scratch("olive")
    )
    shutil.copyfile(made.model_path, job.out)


main("olive-ai", quantize)
