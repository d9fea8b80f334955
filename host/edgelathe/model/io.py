"""Model files: read and proved to run, made from bytes, written whole."""

from __future__ import annotations

from pathlib import Path

from edgelathe.core import files
from edgelathe.core.errors import UserError
from edgelathe.model.types import Format, Model


def load(path: str | Path) -> Model:
    """A model file, by its content, proved to load in the host's runtime. Raises UserError naming what is wrong."""
    from edgelathe.model import check

    path = Path(path)
    data = _read(path)
    model = check.onnx_file(path, data) if _format(path, data) == "onnx" else check.tflite_file(path, data)
    try:
        validate(model)
    except UserError as e:
        raise UserError(path, e.what, e.mend) from None
    return model


def from_bytes(data: bytes, format: Format, name: str) -> Model:
    """A model from bytes that are known to be one, as a transform makes them; only the signature is read."""
    if format == "tflite":
        from edgelathe.model import tflite

        return Model(format, data, name, tflite.signature(tflite.parse(data)))
    import onnx as onnx_package

    from edgelathe.model import onnx

    proto = onnx_package.ModelProto()
    proto.ParseFromString(data)
    return Model(format, data, name, onnx.signature(proto))


def validate(model: Model) -> None:
    """Whether the host's runtime takes the model. Raises UserError with the runtime's own words."""
    from edgelathe.model import run

    run.prove(model)


def save(model: Model, path: str | Path) -> None:
    """Write the model's bytes whole: under a temporary name, then renamed. Raises UserError."""
    files.write(path, model.data)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(path, "is a folder", "name the .onnx or .tflite file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(path, "no such file", "check the path") from None
    except OSError as e:
        raise UserError(
            path, f"cannot be read ({(e.strerror or str(e)).lower()})", "check the path and its permissions"
        ) from e
    if not data:
        raise UserError(path, "the file is empty", "export the model again, or copy it whole")
    return data


def _format(path: Path, data: bytes) -> Format:
    if data[4:8] == b"TFL3":
        return "tflite"
    if path.suffix.lower() == ".tflite":
        raise UserError(path, "not a TFLite model (no TFL3 mark at byte 4)", "export the model again, or copy it whole")
    return "onnx"
