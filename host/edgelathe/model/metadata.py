"""Named texts inside a model file: ONNX `metadata_props`, TFLite `Metadata` buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model import io

if TYPE_CHECKING:
    from edgelathe.model.types import Model

#: How the model is to be run: `runtime=...;provider=...;threads=...;ENTRY=VALUE`.
SESSION = "edgelathe.session"
#: What ranges were calibrated on, where that was not real samples: `synthetic: ...`.
CALIBRATION = "edgelathe.calibration"


def read(model: Model, key: str) -> str | None:
    """The text under `key`, None where the file has none."""
    if model.format == "onnx":
        from edgelathe.model import onnx

        return next((p.value for p in onnx.skeleton(model).metadata_props if p.key == key), None)
    packed = _tflite().Model.GetRootAs(model.data)
    for i in range(packed.MetadataLength()):
        entry = packed.Metadata(i)
        if entry.Name() == key.encode():
            buffer = packed.Buffers(entry.Buffer())
            return bytes(buffer.DataAsNumpy()).decode() if buffer.DataLength() else ""
    return None


def write(model: Model, key: str, text: str) -> Model:
    """The same model with `text` under `key`, in place of what was there."""
    if model.format == "onnx":
        from edgelathe.model import onnx

        proto = onnx.skeleton(model)
        others = [p for p in proto.metadata_props if p.key != key]
        del proto.metadata_props[:]
        proto.metadata_props.extend(others)
        proto.metadata_props.add(key=key, value=text)
        return onnx.from_proto(proto, model.name, model.external)
    import flatbuffers

    schema = _tflite()
    unpacked = schema.ModelT.InitFromPackedBuf(model.data, 0)
    entries = unpacked.metadata or []
    entry = next((e for e in entries if e.name == key.encode()), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = key.encode(), len(unpacked.buffers)
        unpacked.buffers.append(schema.BufferT())
        unpacked.metadata = [*entries, entry]
    unpacked.buffers[entry.buffer].data = np.frombuffer(text.encode(), np.uint8)
    builder = flatbuffers.Builder(len(model.data) + 1024)
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return io.from_bytes(bytes(builder.Output()), "tflite", model.name)


def _tflite() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated
