"""One graph view for ONNX and TFLite: layers with their parameters, multiply-accumulates and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgelathe.model.types import Model


@dataclass(frozen=True)
class Layer:
    """One operation that depends on the model's input. Constants that it alone or first uses are its own.

    Attributes:
        name: of the node; of its first output where the file names no nodes.
        op: as the format calls it.
        inputs: names of the tensors that flow in, constants left out.
        outputs: names of the tensors that flow out.
        parameters: weights, as numbers; scales, zero points, shapes and other settings are none.
        macs: multiply-accumulates of one sample; None where the shapes are not known.
        bytes: what its constants take in the file.
        dtype: of its largest constant, else of its output.
        shape: of its first output for one sample (batch 1); None for an axis or a tensor of unknown length.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int
    macs: int | None
    bytes: int
    dtype: str
    shape: tuple[int | None, ...] | None


def layers(model: Model) -> tuple[Layer, ...]:
    """The layers of a model in the order in which they run. An open batch axis counts as one sample."""
    if model.format == "onnx":
        from edgelathe.model import graph_onnx

        return tuple(graph_onnx.layers(model))
    from edgelathe.model import graph_tflite

    return tuple(graph_tflite.layers(model))
