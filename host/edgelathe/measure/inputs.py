"""Inputs for models that no data were given for, and the lengths of their open axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.dataset_bind import check_numbers
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.signature import Signature, TensorInfo
from edgelathe.model import tables
from edgelathe.model.types import Model

#: Lengths of all axes by input, samples first; the one under "" is that of a model's only input.
Shapes = Mapping[str, tuple[int, ...]]

WHOLE = 128  # integers are drawn below it

_FORM = "write NAME=1,3,224,224 (axis 0 is samples)"


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,224,224` texts by input; without NAME under "". Raises UserError."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, lengths = text.rpartition("=")  # a name may have a `=` in it
        parts = [part.strip() for part in lengths.replace("x", ",").split(",")]
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            raise UserError("--shape", f"'{lengths}' is not a list of lengths above 0", _FORM)
        if name in found:
            raise UserError("--shape", f"{name or 'the only input'} is given twice", "leave one of them out")
        found[name] = tuple(map(int, parts))
    return found


def generated(
    models: Sequence[tuple[str, Model]], wanted: Shapes, seed: int, samples: int = 4
) -> list[tuple[dict[str, NDArray[np.generic]], tuple[str, ...]]]:
    """Random inputs of each model, and what is to be said of axes that nobody gave a length for.

    Inputs of one name are equal where they have one shape: whole numbers fit the smallest table that any of the models
    looks them up in.

    Raises UserError for an input that no model has, and for a shape that does not fit one.
    """
    known = [t.name for _, model in models for t in model.signature.inputs]
    for name in filter(None, wanted):
        if name not in known:
            raise UserError("--shape", f"no input '{name}'", nearest(name, known))
    for name, model in models:
        for tensor in model.signature.inputs:
            check_numbers(tensor, name)
    full = [_sized(name, model.signature, wanted) for name, model in models]
    below: dict[str, int] = {}
    for _, model in models:
        below |= {name: min(count, below.get(name, count)) for name, count in tables.rows(model).items()}
    return [(random_inputs(signature, seed, samples, below), tuple(guessed(signature))) for signature in full]


def _sized(model: str, signature: Signature, wanted: Shapes) -> Signature:
    """With what is given in the place of open axes; axis 0 stays as it is: it counts samples."""
    if "" in wanted and len(signature.inputs) > 1:
        names = ", ".join(t.name for t in signature.inputs)
        raise UserError("--shape", f"{model} has several inputs: {names}", "write NAME=1,3,224,224, once for each")
    tensors = []
    for tensor in signature.inputs:
        shape = wanted.get(tensor.name, wanted.get(""))
        tensors.append(tensor if shape is None else _of(tensor, shape, model))
    return Signature(tuple(tensors), signature.outputs)


def _of(tensor: TensorInfo, shape: tuple[int, ...], model: str) -> TensorInfo:
    fits = len(shape) == len(tensor.shape) and all(
        n in (None, given) for n, given in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        given = ",".join(map(str, shape))
        raise UserError("--shape", f"{given} does not fit input '{tensor.name}' of {model}, {spelled(tensor)}", _FORM)
    if shape and tensor.shape[0] is None and shape[0] != 1:
        raise UserError("--shape", f"axis 0 of '{tensor.name}' is samples, not {shape[0]}", "write 1; --batch sets it")
    return TensorInfo(tensor.name, (*tensor.shape[:1], *shape[1:]), tensor.dtype, tensor.scale, tensor.zero_point)


def guessed(signature: Signature) -> list[str]:
    """What is to be said of each input with open axes, which random inputs take as 1."""
    out = []
    for t in signature.inputs:
        axes = [str(i) for i, n in enumerate(t.shape) if i and n is None]
        if axes:
            which = f"axes {', '.join(axes)} are" if len(axes) > 1 else f"axis {axes[0]} is"
            example = ",".join(str(n or "N") if i else "1" for i, n in enumerate(t.shape))
            out.append(
                f"input '{t.name}' is {spelled(t)}: {which} of any length and taken as 1; "
                f"say --shape {t.name}={example}, or give --data"
            )
    return out


def spelled(tensor: TensorInfo) -> str:
    """`?x3x?x?`."""
    return "x".join("?" if n is None else str(n) for n in tensor.shape) or "a scalar"


def random_inputs(
    signature: Signature, seed: int, samples: int = 4, below: Mapping[str, int] = MappingProxyType({})
) -> dict[str, NDArray[np.generic]]:
    """Arrays [samples, ...] for every input: floats in 0..1, integers in 0..127, open axes taken as 1.

    `below`: by input, what its integers are to be less than, as the rows of a table that they pick from.
    """
    rng = np.random.default_rng(seed)
    return {t.name: _random(t, rng, samples, min(WHOLE, below.get(t.name, WHOLE))) for t in signature.inputs}


def _random(tensor: TensorInfo, rng: np.random.Generator, samples: int, below: int) -> NDArray[np.generic]:
    batch = (tensor.shape[0] or 1) if tensor.shape else 1
    shape = (samples * batch, *(n or 1 for n in tensor.shape[1:]))
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else below, shape).astype(dtype)
