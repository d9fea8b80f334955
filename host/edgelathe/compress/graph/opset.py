"""Raise a model's opset where a step writes operators that its own does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.compress.types import Note
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from edgelathe.model.types import Model

LOWEST = 13  # quantization per channel


def at_least(model: Model, version: int = LOWEST) -> tuple[Model, tuple[Note, ...]]:
    """The model with ONNX's own operators at `version` or above, and a note where that was a change.

    Raises UserError where an operator cannot be carried over, and for a model with external data.
    """
    import onnx

    proto = onnx_model.skeleton(model)
    current = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    if current >= version:
        return model, ()
    if model.external is not None:
        what = f"too old, {version} is needed, and a model of 2 GB and more cannot be raised"
        raise UserError(f"{model.name}: opset {current}", what, f"export it with opset {version}")
    try:
        raised = onnx.version_converter.convert_version(proto, version)
    except Exception as e:  # the converter raises RuntimeError and its own ConvertError
        text = " ".join(str(e).split())[:160]
        raise UserError(
            f"{model.name}: opset {current}",
            f"cannot be raised to {version}: {text}",
            f"export it with opset {version}",
        ) from None
    raised.ir_version = max(raised.ir_version, 7)
    return onnx_model.from_proto(raised, model.name), (Note("model", True, f"opset {current} raised to {version}"),)
