"""The tools that are compared, each with its pinned version and a small grid of settings, its default among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """One tool.

    Attributes:
        name: as shown; `runner` is the script that calls it.
        requires: what its environment holds, pinned; empty: the environment that runs this.
        grid: options by setting, for 8-bit weights and activations; the first one is the tool's default.
        four: the same for 4-bit weights; empty: the tool refuses, or cannot with convolutions.
        slow: settings left out for large models, where they take hours.
    """

    name: str
    runner: str
    requires: tuple[str, ...]
    grid: Mapping[str, Options]
    four: Mapping[str, Options]
    slow: frozenset[str] = frozenset()


_CHANNEL = {"per_channel": True}

OURS = Peer(
    "edgelathe", "run_edgelathe.py", (),
    {
        "int8": {"recipe": "int8"},
        "for this machine": {"recipe": "int8", "here": True},
        "without data": {"recipe": "int8", "data": False},
    },
    {"weights=4": {"recipe": "int8(weights=4)"}},
)  # fmt: skip

PEERS = (
    Peer(
        "ONNX Runtime", "run_onnxruntime.py", (),
        {
            "default": {},
            "channel": _CHANNEL,
            "channel, percentile": {**_CHANNEL, "method": "Percentile"},
            "channel, entropy": {**_CHANNEL, "method": "Entropy"},
            "channel, 7-bit": {**_CHANNEL, "reduce_range": True},
            "channel, U8": {**_CHANNEL, "activation_type": "QUInt8"},
        },
        {"channel": {**_CHANNEL, "weight_type": "QInt4"}},
    ),
    Peer(
        "NNCF", "run_nncf.py", ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
        {
            "default": {},
            "mixed": {"preset": "mixed"},
            "mixed, min-max": {"preset": "mixed", "range": "MINMAX"},
            "mixed, histogram": {"preset": "mixed", "range": "HISTOGRAM"},
            "mixed, min-max, slow bias": {"preset": "mixed", "range": "MINMAX", "fast": False},
            "mixed, no overflow fix": {"preset": "mixed", "overflow": "disable"},
        },
        {},
        frozenset({"mixed, histogram", "mixed, min-max, slow bias"}),
    ),
    Peer(
        "neural-compressor", "run_onnx_neural_compressor.py", ("onnx-neural-compressor==1.0", "prettytable", "scipy"),
        {
            "default": {},
            "QDQ, channel": {**_CHANNEL, "quant_format": "QDQ"},
            "QDQ, channel, S8": {**_CHANNEL, "quant_format": "QDQ", "activation_type": "QInt8"},
            "QDQ, channel, percentile": {**_CHANNEL, "quant_format": "QDQ", "calibrate_method": "Percentile"},
            "QDQ, channel, 7-bit": {**_CHANNEL, "quant_format": "QDQ", "reduce_range": True},
        },
        {},
        frozenset({"QDQ, channel, percentile"}),
    ),
    Peer(
        "Quark", "run_quark.py", ("torch", "amd-quark==0.13", "onnxruntime==1.32.0"),
        {
            "default": {},
            "channel, min-max": {**_CHANNEL, "method": "MinMax", "symmetric": False},
            "channel, min-max, bias": {**_CHANNEL, "method": "MinMax", "symmetric": False, "bias": True},
            "channel, percentile, bias": {**_CHANNEL, "method": "Percentile", "symmetric": False, "bias": True},
            "channel, min-max, cle, bias": {
                **_CHANNEL, "method": "MinMax", "symmetric": False, "bias": True, "cle": 1,
            },
            "channel, min-max, adaround": {
                **_CHANNEL, "method": "MinMax", "symmetric": False, "adaround": 1000,
            },
        },
        {},
        frozenset({"channel, percentile, bias", "channel, min-max, adaround"}),
    ),
    Peer(
        "AIMET", "run_aimet.py", ("aimet-onnx==2.42.0", "onnxruntime==1.32.0"),
        {
            "default": {},
            "signed": {"as": "signed"},
            "tf-enhanced": {"scheme": "tf_enhanced"},
            "cle": {"equalize": True},
            "seq-mse": {"seq_mse": True},
        },
        {
            "seq-mse": {"param_type": "int4", "seq_mse": True},
            "seq-mse, adaround": {"param_type": "int4", "seq_mse": True, "adaround": 500},
            "cle, seq-mse": {"param_type": "int4", "seq_mse": True, "equalize": True},
        },
        frozenset({"seq-mse", "seq-mse, adaround", "cle, seq-mse"}),
    ),
    Peer(
        "ModelOpt", "run_modelopt.py", ("nvidia-modelopt[onnx]==0.47.0",),
        {"default": {"method": "entropy"}, "max": {"method": "max"}},
        {},
        frozenset(),
    ),
    Peer(
        "Olive", "run_olive.py", ("olive-ai==0.13.0", "onnxruntime==1.32.0", "requests"),
        {
            "default": {},
            "channel": _CHANNEL,
            "channel, percentile": {**_CHANNEL, "calibrate_method": "Percentile"},
            "channel, U8": {**_CHANNEL, "activation_type": "uint8"},
        },
        {},
    ),
)  # fmt: skip
