"""Ours, as `edgelathe compress` does it. Options: `recipe`, `data` (false: made up), `here` (for this machine)."""

import json
import os

os.environ["EDGELATHE_CACHE"] = "off"  # every run pays for its own calibration

import onnx  # noqa: F401  # loaded before memory is looked at
import onnx_ir.passes.common  # noqa: F401
import onnxruntime  # noqa: F401
from protocol import Job, main

from edgelathe.calibrate import synthetic
from edgelathe.core import profile as profiles
from edgelathe.core.dataset import Dataset
from edgelathe.device.open import LOCAL, open_device
from edgelathe.model import io
from edgelathe.recipes import read, ready, run


def quantize(job: Job) -> None:
    model, text = io.load(job.model), job.options["recipe"]
    probe = None
    if job.options.get("here"):
        with open_device(LOCAL) as device:
            probe = device.probe
    profile = profiles.choose(None if probe else "arm-cpu", probe)
    session = ready.choose_session(profile, model.format, probe)
    recipe = ready.ready(read.read(text), model, profiles.hardware(profile, probe), session, text)
    given = job.options.get("data", True)
    data = Dataset("calib", {job.input: job.samples}) if given else synthetic.make(model)
    built = run.run(recipe, model, data, text)
    io.save(built.model, job.out)
    job.out.with_suffix(".session.json").write_text(json.dumps(dict(built.config)))


main("edgelathe", quantize)
