"""Trains the bundled model and writes its four files beside this script, the same each time.

    pip install torch scikit-learn onnx ai-edge-litert
    python train_digits.py [FOLDER]

digits.onnx and digits.tflite hold the same network. Both take [batch, 8, 8, 1] float32 with the stored values
0..16 (the scaling is inside the first convolution) and give [batch, 10] probabilities.
"""

# torch and scikit-learn are no dependencies of the project, so their types are not at hand.
# mypy: ignore-errors

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as tfl
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F  # noqa: N812  # the name that torch's own documentation uses

SEED, EPOCHS, BATCH = 7, 120, 32
WIDTHS = (1, 24, 32, 40, 40)  # multiples of 8 fill vector units; 34 k parameters, 0.87 M MACs
CALIBRATION, EVALUATION = 256, 640  # the last five of the file's fourteen series
FULL_SCALE = 16.0  # largest stored value
BN = ("scale", "bias", "mean", "var")  # inputs of a BatchNormalization, in ONNX's order

Array = NDArray[np.generic]


class Digits(nn.Module):
    """Four 3x3 convolutions, each with BatchNorm and ReLU, halved once, averaged, one dense layer."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(WIDTHS))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in pairs)
        self.fc = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, 10] of images [n, 1, 8, 8] in 0..1."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), 1):
            x = F.relu(norm(conv(x)))
            x = F.max_pool2d(x, 2) if i == 2 else x
            x = F.dropout2d(x, 0.1, self.training)  # whole channels: none becomes indispensable
        return self.fc(x.mean((2, 3)))


def jitter(x: torch.Tensor) -> torch.Tensor:
    """Each image turned by up to 12 degrees, scaled by up to 10 % and shifted by up to 0.8 pixels."""
    n = len(x)
    turn, size = (torch.rand(n) - 0.5) * 0.42, 1 + (torch.rand(n) - 0.5) * 0.2
    shift = (torch.rand(n, 2, 1) - 0.5) * 0.4  # in half widths
    cos, sin = turn.cos() * size, turn.sin() * size
    affine = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([affine, shift], 2), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def train(x: Array, y: Array) -> Digits:
    """The trained network, in evaluation mode; x [n, 8, 8, 1] uint8 in 0..16."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order
    torch.use_deterministic_algorithms(True)
    images, labels = torch.tensor(x).permute(0, 3, 1, 2).float() / FULL_SCALE, torch.tensor(y)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))[: len(x) // BATCH * BATCH]
        for batch in order.split(BATCH):
            loss = F.cross_entropy(model(jitter(images[batch])), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def weights(model: Digits) -> dict[str, Array]:
    """Arrays by ONNX name. The input scaling goes into conv1, exactly: 16 is a power of two and the padding is zero."""
    out = {}
    for i, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True), 1):
        w = conv.weight.detach().numpy()
        out[f"conv{i}.weight"] = w / np.float32(FULL_SCALE) if i == 1 else w
        tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        out |= {f"bn{i}.{part}": tensor.detach().numpy() for part, tensor in zip(BN, tensors, strict=True)}
    out["fc.weight"], out["fc.bias"] = model.fc.weight.detach().numpy(), model.fc.bias.detach().numpy()
    return {k: np.ascontiguousarray(v) for k, v in out.items()}


def to_onnx(w: dict[str, Array]) -> bytes:
    """The file as a training framework would export it: BatchNorm is left for `fold`."""
    nodes, at = [helper.make_node("Transpose", ["input"], ["nchw"], "nchw", perm=[0, 3, 1, 2])], "nchw"

    def add(op: str, name: str, *extra: str, **attributes: object) -> None:
        nonlocal at
        nodes.append(helper.make_node(op, [at, *extra], [name], name, **attributes))
        at = name

    for i in range(1, len(WIDTHS)):
        add("Conv", f"conv{i}", f"conv{i}.weight", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        add("BatchNormalization", f"bn{i}", *(f"bn{i}.{part}" for part in BN))
        add("Relu", f"relu{i}")
        if i == 2:
            add("MaxPool", "pool", kernel_shape=[2, 2], strides=[2, 2])
    add("GlobalAveragePool", "mean")
    add("Flatten", "flat")
    add("Gemm", "fc", "fc.weight", "fc.bias", transB=1)
    add("Softmax", "softmax", axis=1)
    nodes[-1].output[0] = "output"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(v, k) for k, v in w.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opset, producer_name="edgelathe")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


class Flat:
    """A TFLite model under construction: one subgraph, constants as they are named, operators in order."""

    def __init__(self) -> None:
        self.buffers = [tfl.BufferT()]
        self.tensors: list[tfl.TensorT] = []
        self.operators: list[tfl.OperatorT] = []
        self.codes: list[int] = []

    def tensor(self, name: str, shape: list[int], kind: int = tfl.TensorType.FLOAT32, buffer: int = 0) -> int:
        """A float32 tensor that an operator computes (buffer 0 is empty); gives its index."""
        t = tfl.TensorT()
        t.name, t.shape, t.type, t.buffer = name, shape, kind, buffer
        self.tensors.append(t)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array) -> int:
        """A float32 or int32 constant; gives its index."""
        buffer = tfl.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self.buffers.append(buffer)
        kind = tfl.TensorType.INT32 if data.dtype == np.int32 else tfl.TensorType.FLOAT32
        return self.tensor(name, list(data.shape), kind, len(self.buffers) - 1)

    def operator(self, op: str, inputs: list[int], output: int, options: str, **values: object) -> int:
        """One builtin operator with its options table; gives `output`."""
        number = getattr(tfl.BuiltinOperator, op)
        if number not in self.codes:
            self.codes.append(number)
        o = tfl.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = self.codes.index(number), inputs, [output]
        o.builtinOptionsType = getattr(tfl.BuiltinOptions, options)
        o.builtinOptions = getattr(tfl, options + "T")()
        for key, value in values.items():
            setattr(o.builtinOptions, key, value)
        self.operators.append(o)
        return output

    def pack(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file, with the signature `serving_default`. Schema: tensorflow/lite/schema/schema.fbs, version 3."""
        graph, model, signature = tfl.SubGraphT(), tfl.ModelT(), tfl.SignatureDefT()
        graph.name, graph.tensors, graph.operators = "digits", self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = tensor_maps(inputs), tensor_maps(outputs)
        model.version, model.description, model.subgraphs, model.buffers = 3, "digits", [graph], self.buffers
        model.operatorCodes, model.signatureDefs = [], [signature]
        for number in self.codes:
            code = tfl.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, 1  # all are below 127
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1 << 18)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tensor_maps(names: dict[str, int]) -> list[tfl.TensorMapT]:
    """The signature's side of the tensors."""
    maps = []
    for name, index in names.items():
        m = tfl.TensorMapT()
        m.name, m.tensorIndex = name, index
        maps.append(m)
    return maps


def to_tflite(w: dict[str, Array]) -> bytes:
    """The same network as TensorFlow's converter writes it: BatchNorm and ReLU inside the convolutions, NHWC."""
    flat = Flat()
    start = at = flat.tensor("input", [1, 8, 8, 1])
    relu, same, valid = tfl.ActivationFunctionType.RELU, tfl.Padding.SAME, tfl.Padding.VALID
    for i, width in enumerate(WIDTHS[1:], 1):
        # w' = w * scale / sqrt(var + eps), b' = bias - mean * scale / sqrt(var + eps); eps as in Digits and ONNX
        gain = w[f"bn{i}.scale"] / np.sqrt(w[f"bn{i}.var"].astype(np.float64) + 1e-5)
        kernel = (w[f"conv{i}.weight"] * gain[:, None, None, None]).transpose(0, 2, 3, 1).astype(np.float32)
        bias = (w[f"bn{i}.bias"] - w[f"bn{i}.mean"] * gain).astype(np.float32)
        side = 8 if i <= 2 else 4
        constants = [flat.constant(f"conv{i}/weight", kernel), flat.constant(f"conv{i}/bias", bias)]
        at = flat.operator(
            "CONV_2D", [at, *constants], flat.tensor(f"conv{i}", [1, side, side, width]), "Conv2DOptions",
            padding=same, strideH=1, strideW=1, fusedActivationFunction=relu,
        )  # fmt: skip
        if i == 2:
            at = flat.operator(
                "MAX_POOL_2D", [at], flat.tensor("pool", [1, 4, 4, width]), "Pool2DOptions",
                padding=valid, strideH=2, strideW=2, filterHeight=2, filterWidth=2,
            )  # fmt: skip
    width = WIDTHS[-1]
    at = flat.operator(
        "AVERAGE_POOL_2D", [at], flat.tensor("mean", [1, 1, 1, width]), "Pool2DOptions",
        padding=valid, strideH=4, strideW=4, filterHeight=4, filterWidth=4,
    )  # fmt: skip
    shape = flat.constant("flat/shape", np.array([-1, width], np.int32))
    at = flat.operator("RESHAPE", [at, shape], flat.tensor("flat", [1, width]), "ReshapeOptions", newShape=[-1, width])
    constants = [flat.constant("fc/weight", w["fc.weight"]), flat.constant("fc/bias", w["fc.bias"])]
    at = flat.operator("FULLY_CONNECTED", [at, *constants], flat.tensor("fc", [1, 10]), "FullyConnectedOptions")
    at = flat.operator("SOFTMAX", [at], flat.tensor("output", [1, 10]), "SoftmaxOptions", beta=1.0)
    return flat.pack({"input": start}, {"output": at})


def split() -> tuple[Array, Array, Array, Array]:
    """x_train, x_eval [n, 8, 8, 1] uint8 in 0..16, y_train, y_eval [n] int64.

    The file holds fourteen series of about 130 images, each by one hand; the cut falls between two of them, so the
    model is judged on hands that training has not seen.
    """
    digits = load_digits()
    x, y = digits.images.astype(np.uint8)[..., None], digits.target.astype(np.int64)
    return x[:-EVALUATION], x[-EVALUATION:], y[:-EVALUATION], y[-EVALUATION:]


def main(folder: Path) -> None:
    """Trains, writes, and prints what was reached."""
    x, x_eval, y, y_eval = split()
    model = train(x, y)
    w = weights(model)
    (folder / "digits.onnx").write_bytes(to_onnx(w))
    (folder / "digits.tflite").write_bytes(to_tflite(w))
    x_calib, _, y_calib, _ = train_test_split(x, y, train_size=CALIBRATION, random_state=SEED, stratify=y)
    np.savez_compressed(folder / "calib.npz", x=x_calib, y=y_calib)
    np.savez_compressed(folder / "eval.npz", x=x_eval, y=y_eval)
    with torch.no_grad():
        answers = model(torch.tensor(x_eval).permute(0, 3, 1, 2).float() / FULL_SCALE).argmax(1).numpy()
    parameters = sum(v.size for v in w.values())
    print(f"{parameters} parameters; {(answers == y_eval).sum()} of {len(y_eval)} right")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
