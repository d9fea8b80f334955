"""A model as a value: its format, its bytes, its signature."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgelathe.core.signature import Signature
    from edgelathe.model.external import External

Format = Literal["onnx", "tflite"]


@dataclass(frozen=True)
class Model:
    """A model file in memory. Equal bytes are the same model; transforms return a new one.

    Attributes:
        format: `onnx` or `tflite`.
        data: the bytes of the file (weights inside, but for those that are `external`).
        name: the stem of the file that it came from, for messages.
        signature: inputs and outputs, initializers left out.
        external: the large weights of an ONNX model that no protobuf holds, 2 GB and more; None: all are in `data`.
    """

    format: Format
    data: bytes
    name: str
    signature: Signature
    external: External | None = None

    @cached_property
    def manifest(self) -> bytes:
        """The file as devices get it: it names what lies beside it by hash."""
        if self.external is None:
            return self.data
        from edgelathe.model import external

        return external.located(self.data, self.external, self.external.sha256)

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, and so of all that it names: its identity on device and in results."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the file, and of the one beside it."""
        return len(self.data) + (len(self.external) if self.external else 0)
