"""The files that an ONNX model on the disk names for its weights: found, checked, and mapped."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError
from edgelathe.model import external
from edgelathe.model.external import External

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx


def take_in(path: Path, proto: onnx.ModelProto, found: Sequence[onnx.TensorProto], inside: int) -> External | None:
    """Read the external tensors `found` of the model at `path`, in place.

    They become part of the protobuf where a protobuf, with the `inside` bytes that it has, holds them; else the large
    ones of the main graph stay on the disk, mapped, and are given back. Raises UserError naming what is wrong.
    """
    files: dict[str, memoryview] = {}
    views = [_view(path, tensor, files) for tensor in found]
    outside = set[int]()
    if inside + sum(map(len, views)) > external.LARGEST:
        outside = {id(t) for t in external.tensors(proto) if external.goes_out(t.data_type, external.nbytes(t))}
    kept = []
    for tensor, view in zip(found, views, strict=True):
        if id(tensor) in outside:
            kept.append(view)
            continue
        tensor.raw_data = bytes(view)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    if not kept:
        return None
    external.check(proto, str(path))
    return External(tuple(kept))


def _view(path: Path, tensor: onnx.TensorProto, files: dict[str, memoryview]) -> memoryview:
    """The bytes of one tensor."""
    given = {e.key: e.value for e in tensor.external_data}
    location = given.get("location", "")
    name = f"weights '{tensor.name}' lie in {location}"
    again = "copy it whole, or export the model again"
    try:
        start, length = int(given.get("offset") or 0), int(given.get("length") or -1)
    except ValueError:
        start = length = -1
    want = external.nbytes(tensor)
    if not external.itemsize(tensor.data_type):
        raise UserError(path, f"{name}, which holds no values of type {tensor.data_type}", again)
    if start < 0 or length not in (-1, want):
        what = f"at {given.get('offset')}, {given.get('length')} bytes, where their shape takes {want}"
        raise UserError(path, f"{name} {what}", again)
    if location not in files:
        files[location] = _mapped(path, location, name)
    have = len(files[location])
    if have < start + want:
        raise UserError(path, f"{name}, which has {have} bytes of {start + want}", again)
    return files[location][start : start + want]


def _mapped(path: Path, location: str, name: str) -> memoryview:
    file, beside = path.parent / location, "put them beside the model and export it again"
    if not location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise UserError(path, f"{name}, outside of the model's folder", beside)
    if not file.is_file():
        raise UserError(path, f"{name}, which is missing", f"copy it beside {path.name}")
    if not file.resolve().is_relative_to(path.parent.resolve()):
        what = f"{name}, a link to what is outside of the model's folder"
        raise UserError(path, what, f"copy the file itself beside {path.name}")
    try:
        with file.open("rb") as f:
            if not file.stat().st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as e:
        what = f"{name}, which cannot be read ({(e.strerror or str(e)).lower()})"
        raise UserError(path, what, "check its permissions") from e
