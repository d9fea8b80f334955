"""What goes into a model and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

#: What no array of numbers is.
NOT_NUMBERS = frozenset(("str", "undefined", "sequence", "optional", "map", "sparse_tensor"))


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. `shape` has None for an axis of any length; `dtype` is numpy's name, or of NOT_NUMBERS.

    `scale` and `zero_point` are those of a quantized TFLite tensor: real = scale * (stored - zero_point).
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs in the file's order; initializers are no inputs."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
