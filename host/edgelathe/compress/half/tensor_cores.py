"""Which layers NVIDIA's matrix units take as they are in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.compress.graph.moves import array, number
from edgelathe.compress.types import LINEAR

if TYPE_CHECKING:
    import onnx_ir as ir

#: Rows of 16 bytes: docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication, Tensor Core
#: requirements. cuBLAS before 11 and cuDNN before 7.6.3 leave tensor cores out otherwise, later ones are slower.
MULTIPLE = 8


def widths(node: ir.Node) -> tuple[int, int] | None:
    """Inputs and outputs of the matrix product of one group of a layer; None where it has no constant weights."""
    w = array(node.inputs[1]) if node.op_type in LINEAR and len(node.inputs) > 1 else None
    if w is None or w.ndim < 2:
        return None
    if node.op_type == "Conv":
        return w.shape[1], w.shape[0] // int(number(node, "group", 1))
    if node.op_type == "ConvTranspose":
        return w.shape[0] // int(number(node, "group", 1)), w.shape[1]
    inputs, outputs = w.shape[-2:]
    return (outputs, inputs) if node.op_type == "Gemm" and number(node, "transB", 0) else (inputs, outputs)


def obstacle(node: ir.Node) -> str:
    """Why tensor cores do not fit a layer, in words; "" where they do, or it is no matrix product."""
    found = widths(node)
    if found is None:
        return ""
    if found[0] == 1 and node.op_type.startswith("Conv"):
        return "depthwise, no work for tensor cores"
    odd = [f"{n} {what}" for n, what in zip(found, ("inputs", "outputs"), strict=True) if n % MULTIPLE]
    return f"{' and '.join(odd)}: no multiple of {MULTIPLE}, tensor cores are padded or left out" if odd else ""
