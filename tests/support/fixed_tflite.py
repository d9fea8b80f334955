"""What tests of TFLite's fixed-point operators share: random integers, and the comparison with the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.model.fixed import tflite
from edgelathe.model.fixed.types import Arithmetic, Value
from edgelathe.model.types import Model
from support.tiny_tflite import DEFAULT, REFERENCE, answers

SAME, VALID = 0, 1


def drawn(*shape: int, dtype: str = "int8", seed: int = 0) -> NDArray[Any]:
    """Integers over the whole range of a type."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


def scales(count: int, low: float = 0.002, high: float = 0.03, seed: int = 0) -> NDArray[np.float32]:
    """Scales of so many channels."""
    return np.random.default_rng(seed).uniform(low, high, count).astype(np.float32)


def agree(model: Model, inputs: dict[str, NDArray[Any]], arithmetic: Arithmetic | None = None) -> tuple[Value, ...]:
    """All outputs of a whole batch at once equal those of single samples in the interpreter."""
    arithmetic = arithmetic or Arithmetic()
    got = tflite.program(model, arithmetic).run(inputs, lambda _: None).simulated
    want = answers(model, inputs, DEFAULT if arithmetic.kernels == "optimized" else REFERENCE)
    for g, w in zip(got, want, strict=True):
        assert g.data.dtype == w.dtype
        assert g.data.shape == w.shape
        np.testing.assert_array_equal(g.data, w)
    return got
