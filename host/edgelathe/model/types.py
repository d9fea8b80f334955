"""A model as a value: its format, its bytes, its signature."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgelathe.core.signature import Signature

Format = Literal["onnx", "tflite"]


@dataclass(frozen=True)
class Model:
    """A model file in memory. Equal bytes are the same model; transforms return a new one.

    Attributes:
        format: `onnx` or `tflite`.
        data: the bytes of the file (weights inside).
        name: the stem of the file that it came from, for messages.
        signature: inputs and outputs, initializers left out.
    """

    format: Format
    data: bytes
    name: str
    signature: Signature

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, its identity on device and in results."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self.data)
