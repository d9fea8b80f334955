"""Inputs for models that no data were given for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.signature import Signature, TensorInfo


def random_inputs(signature: Signature, seed: int, samples: int = 4) -> dict[str, NDArray[np.generic]]:
    """Arrays [samples, ...] for every input: floats in 0..1, integers in 0..127, axes of any length taken as 1."""
    rng = np.random.default_rng(seed)
    return {t.name: _random(t, rng, samples) for t in signature.inputs}


def _random(tensor: TensorInfo, rng: np.random.Generator, samples: int) -> NDArray[np.generic]:
    batch = (tensor.shape[0] or 1) if tensor.shape else 1
    shape = (samples * batch, *(n or 1 for n in tensor.shape[1:]))
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else 128, shape).astype(dtype)
