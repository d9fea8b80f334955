"""int8 against ONNX Runtime's own quantizer: the same calibration samples, the same images, integer products exact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgelathe.compress.graph import fold
from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.profile import Hardware
from edgelathe.model import io, run

if TYPE_CHECKING:
    from edgelathe.model.types import Model

pytestmark = pytest.mark.bench

EXACT = SessionOptions("onnxruntime", "CPUExecutionProvider", config={"session.x64quantprecision": "1"})
# folder, model, calibration samples, calibration and evaluation files, channels first
MODELS = {
    "ResNet8": ("cifar10_resnet8", "model.onnx", 256, "cifar10_resnet8", "eval_jpeg.npz", None),
    "MobileNetV2 CIFAR": ("cifar10_mobilenetv2", "model.onnx", 128, "cifar10_resnet8", "eval_jpeg.npz", True),
    "unbalanced": ("cifar10_mobilenetv2", "model_unbalanced.onnx", 128, "cifar10_resnet8", "eval_jpeg.npz", True),
    "MobileNetV2 224": ("imagenet_mobilenetv2", "model.onnx", 64, "imagenet_mobilenetv2", "eval.npz", False),
}


def prepared(x, channels_first):
    if channels_first is None:
        return x.astype(np.float32)
    x = (x.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if channels_first else x


def theirs(path, x, name, folder):
    """The model that `quantize_static` makes (QDQ, S8S8, per channel, min-max), and its seconds."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    rows = iter([{name: x[i : i + 1]} for i in range(len(x))])
    reader = type("Reader", (), {"get_next": lambda _: next(rows, None)})()
    start = time.perf_counter()
    quant_pre_process(str(path), str(folder / "pre.onnx"))
    quantize_static(
        str(folder / "pre.onnx"), str(folder / "q.onnx"), reader, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return io.from_bytes((folder / "q.onnx").read_bytes(), "onnx", "theirs"), time.perf_counter() - start


def ours(model: Model, x, name):
    start = time.perf_counter()
    options = int8.resolve(int8.Options(), Hardware("aarch64", frozenset()))
    folded = fold.apply(model, fold.Options(), Context()).model
    result = int8.apply(folded, options, Context(data=Dataset("calib", {name: x}))).model
    return result, time.perf_counter() - start


def test_against_onnx_runtime(data_dir, tmp_path):
    print(f"\n{'model':18} {'by':12} {'right':>6} {'changed':>8} {'bytes':>10} {'s':>6}")
    for title, (folder, file, count, images, held, layout) in MODELS.items():
        path = data_dir / folder / file
        model = io.load(path)
        name = model.signature.inputs[0].name
        calib = prepared(np.load(data_dir / images / "calib.npz")["x"][:count], layout)
        test = np.load(data_dir / images / held)
        x, y = prepared(test["x"], layout), test["y"]
        float_answers = run.outputs(model, {name: x})[0].reshape(len(x), -1).argmax(1)
        print(f"{title:18} {'float':12} {(float_answers == y).sum():6} {0:8} {model.bytes:10,}")
        changed = {}
        both = {"ours": ours(model, calib, name), "ONNX Runtime": theirs(path, calib, name, tmp_path)}
        for by, (made, seconds) in both.items():
            answers = run.outputs(made, {name: x}, EXACT)[0].reshape(len(x), -1).argmax(1)
            changed[by] = int((answers != float_answers).sum())
            print(f"{'':18} {by:12} {(answers == y).sum():6} {changed[by]:8} {made.bytes:10,} {seconds:6.2f}")
        noise = 2 * np.sqrt(sum(changed.values()))  # two standard errors of the difference of two counts
        assert changed["ours"] <= changed["ONNX Runtime"] + noise
