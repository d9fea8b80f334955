"""Model files: read and proved to run, made from bytes, written whole."""

from __future__ import annotations

from pathlib import Path

from edgelathe.core import files
from edgelathe.core.errors import UserError
from edgelathe.model.types import Format, Model

_AT_ONCE = 1 << 24  # bytes


def load(path: str | Path, *, large: bool = False) -> Model:
    """A model file, by its content, proved to load in the host's runtime. Raises UserError naming what is wrong.

    `large`: also one whose weights no protobuf holds (`Model.external`).
    """
    from edgelathe.model import check

    path = Path(path)
    data = _read(path)
    model = check.onnx_file(path, data) if _format(path, data) == "onnx" else check.tflite_file(path, data)
    if model.external and not large:
        what = f"{model.bytes / 1e9:.1f} GB: models of 2 GB and more are for inspect, compress, bench and eval"
        raise UserError(path, what, "compress it below 2 GB first, e.g. with int4 or fp16")
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
    """Write the model whole: under temporary names, then renamed. Raises UserError.

    External weights go into PATH.data. Whoever finds the model's file finds that of its weights: the one is renamed
    last, an earlier model goes before its weights do, and of several who write there each finishes before the next.
    """
    if model.external is None:
        files.write(path, model.data)
        return
    from edgelathe.model import external

    path = Path(path)
    beside = path.with_name(path.name + ".data")
    data = external.located(model.data, model.external, beside.name)
    with files.in_turn(path.parent), files.replacing(path) as whole, files.replacing(beside) as weights:
        if beside.is_file() and not path.exists():
            what = f"is there without {path.name}, and may hold the weights of another model"
            raise UserError(beside, what, "remove it, or choose another name for the result")
        whole.write_bytes(data)
        with weights.open("wb") as f:
            for at in range(0, len(model.external), _AT_ONCE):
                f.write(model.external[at : at + _AT_ONCE])
        if beside.exists():
            path.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    from edgelathe.model.external import LARGEST

    if path.is_dir():
        raise UserError(path, "is a folder", "name the .onnx or .tflite file in it")
    try:
        size = path.stat().st_size
        if size > LARGEST:
            what = f"{size / 1e9:.1f} GB in one file, more than ONNX and TFLite files can have"
            raise UserError(path, what, "export it with its weights in a file beside it (external data)")
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
