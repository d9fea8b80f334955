"""What must hold before a file counts as a model; each check names what is wrong and the mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model import tflite
from edgelathe.model.run import one_line, session
from edgelathe.model.types import Model

if TYPE_CHECKING:
    from pathlib import Path

OLDEST_OPSET = 11


def onnx_file(path: Path, data: bytes) -> Model:
    """An ONNX file's bytes as a model, with external weights taken in. Raises UserError."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise UserError(path, "not an ONNX model, or cut off", "export the model again, or copy it whole") from None
    if not proto.graph.node:
        raise UserError(path, "an ONNX model without operations", "export the model again, or copy it whole")
    return Model("onnx", data, path.stem, onnx_model.signature(proto))


def tflite_file(path: Path, data: bytes) -> Model:
    """A TFLite file's bytes as a model. Raises UserError."""
    try:
        parsed = tflite.parse(data)
    except ValueError as e:
        raise UserError(path, f"a broken TFLite model: {e}", "export the model again, or copy it whole") from None
    return Model("tflite", data, path.stem, tflite.signature(parsed))


def runs(model: Model, path: Path) -> None:
    """Whether the host's runtime takes the model. Raises UserError with the runtime's own words."""
    try:
        session(model)
    except UserError as e:
        raise UserError(path, e.what, e.mend) from None
    except Exception as e:
        raise UserError(path, f"the runtime refuses the model: {one_line(e)}", "export the model again") from e
