"""Weights in blocks: few bits each, a scale (and a zero point) for every few inputs of an output.

A row of weights [f] is cut into blocks of inputs; real weights are (code - zero) * scale of their block. Where moments
of the inputs are known, codes follow by second order, one input after the other, each made up for the errors of those
before (`second_order`; Frantar and Alistarh, GPTQ, 2023), and each block's scale is chosen when its turn comes, for its
weights as they have been moved by then: of several that clip more or less, the one that loses least after rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edgelathe.compress.weights.second_order import Array

# Fractions of the range that the largest weight asks for. Few bits want to clip; 8 bits do not.
_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_SHIFTS = (0, -1, 1)  # of the zero point that the range asks for
_ENTRIES = 1 << 22  # errors of all candidates that are held at once
_NEAR = 1 << 16  # weights rounded at once: what is made of them stays in the cache, and is not paged in anew


@dataclass(frozen=True)
class Form:
    """How weights are stored.

    Attributes:
        bits: of a code, 4 or 8.
        block: inputs that share a scale.
        symmetric: zero points are 2**(bits - 1), and not stored.
        negative: scales may be, so that the largest weight of either sign takes the code that has no opposite.
        half: scales are rounded to float16.
    """

    bits: int
    block: int
    symmetric: bool
    negative: bool
    half: bool

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point where none is stored."""
        return 1 << (self.bits - 1)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Weights of one layer.

    Attributes:
        codes: uint8 [rows, inputs].
        scale: float32 [rows, blocks].
        zero: uint8 [rows, blocks].
        form: what they are stored in.
    """

    codes: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero: NDArray[np.uint8]
    form: Form

    def real(self) -> NDArray[np.float32]:
        """The weights [rows, inputs] that they stand for, as runtimes compute them."""
        inputs = self.codes.shape[1]
        scale, zero = (np.repeat(v, self.form.block, axis=1)[:, :inputs] for v in (self.scale, self.zero))
        real = (self.codes.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
        return np.asarray(real, np.float32)

    def padded(self) -> NDArray[np.uint8]:
        """Codes uint8 [rows, blocks, block]; what is added to fill the last block stands for 0."""
        rows, inputs = self.codes.shape
        out = np.repeat(self.zero[:, :, None], self.form.block, axis=2)
        out.reshape(rows, -1)[:, :inputs] = self.codes
        return out


def nearest(rows: Array, form: Form) -> Blocks:
    """Codes next to the weights [rows, inputs], with the scales of least squared error of each block."""
    at_once = max(1, _NEAR // rows.shape[1])
    parts = [_nearest(rows[i : i + at_once], form) for i in range(0, len(rows), at_once)]
    codes, scale, zero = (np.concatenate(v) for v in zip(*parts, strict=True))
    return Blocks(codes, scale, zero, form)


def _nearest(rows: Array, form: Form) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    count, inputs = rows.shape
    blocks = -(-inputs // form.block)
    whole = np.zeros((count, blocks * form.block))
    whole[:, :inputs] = rows
    cut = whole.reshape(count, blocks, form.block)
    best = np.full((count, blocks), np.inf)
    scale, zero = np.ones((count, blocks), np.float32), np.full((count, blocks), form.middle, np.uint8)
    codes = np.zeros(cut.shape, np.uint8)
    for s, z in _candidates(cut, form):
        q = _codes(cut, s[..., None], z[..., None], form)
        loss = np.square((q - z[..., None]) * s[..., None].astype(np.float64) - cut).sum(axis=2)
        wins = loss < best
        best[wins], scale[wins], zero[wins], codes[wins] = loss[wins], s[wins], z[wins], q[wins]
    return codes.reshape(count, -1)[:, :inputs], scale, zero


def compensated(wanted: Array, hessian: Array, form: Form) -> Blocks:
    """Codes for real weights [g, o, f] that lose least under moments [g, f, f] of their inputs, positive definite."""
    groups, outputs, inputs = wanted.shape
    turned = np.linalg.cholesky(hessian[:, ::-1, ::-1])
    factor = np.swapaxes(turned[:, ::-1, ::-1], 1, 2)  # lower triangular V with H = V'V
    at_once = max(1, _ENTRIES // (groups * form.block * len(_RATIOS) * len(_SHIFTS)))
    parts = [_walk(wanted[:, i : i + at_once], factor, form) for i in range(0, outputs, at_once)]
    codes, scale, zero = (np.concatenate(v, axis=1) for v in zip(*parts, strict=True))
    rows = groups * outputs
    return Blocks(codes.reshape(rows, inputs), scale.reshape(rows, -1), zero.reshape(rows, -1), form)


def _walk(wanted: Array, factor: Array, form: Form) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Codes [g, o, f], scales and zero points [g, o, blocks], block after block."""
    groups, outputs, inputs = wanted.shape
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    ratio = factor / diagonal[:, :, None]
    blocks = -(-inputs // form.block)
    errors = np.zeros(wanted.shape)
    codes = np.zeros(wanted.shape, np.uint8)
    scale, zero = np.ones((groups, outputs, blocks), np.float32), np.zeros((groups, outputs, blocks), np.uint8)
    for b, start in enumerate(range(0, inputs, form.block)):
        stop = min(start + form.block, inputs)
        real = wanted[:, :, start:stop]
        moved = real + errors[:, :, :start] @ np.swapaxes(ratio[:, start:stop, :start], 1, 2)
        found = list(_candidates(moved, form))
        s, z = (np.stack(v, axis=2) for v in zip(*found, strict=True))  # [g, o, candidates]
        q, e, loss = _inside(real, moved, ratio[:, start:stop, start:stop], diagonal[:, start:stop], s, z, form)
        at = np.argmin(loss, axis=2)[:, :, None]  # the first of equals: the one that clips least
        scale[:, :, b], zero[:, :, b] = (np.take_along_axis(v, at, axis=2)[:, :, 0] for v in (s, z))
        codes[:, :, start:stop], errors[:, :, start:stop] = (
            np.take_along_axis(v, at[..., None], axis=2)[:, :, 0] for v in (q, e)
        )
    return codes, scale, zero


def _inside(
    real: Array, moved: Array, ratio: Array, diagonal: Array, scale: NDArray[Any], zero: NDArray[Any], form: Form
) -> tuple[NDArray[np.uint8], Array, Array]:
    """One block under each candidate: codes and errors [g, o, k, b], and what is lost [g, o, k].

    `real` [g, o, b]: the weights, `moved` the same made up for the errors of earlier blocks; scale, zero [g, o, k].
    """
    shape = (len(scale), real.shape[2], *scale.shape[1:])  # inputs second: what was lost so far lies in a row
    codes, errors, loss = np.empty(shape, np.uint8), np.empty(shape), np.zeros(scale.shape)
    flat = errors.reshape(*shape[:2], scale[0].size)
    step, from_zero = scale.astype(np.float64), zero.astype(np.float64)
    for i in range(shape[1]):
        before = ratio[:, i, None, :i] @ flat[:, :i]
        w = moved[:, :, i, None] + before.reshape(scale.shape)
        q = _codes(w, step, from_zero, form)
        made = (q - from_zero) * step
        codes[:, i] = q
        errors[:, i] = real[:, :, i, None] - made
        loss += np.square((w - made) * diagonal[:, None, None, i])
    return np.moveaxis(codes, 1, 3), np.moveaxis(errors, 1, 3), loss


def _codes(w: Array, scale: NDArray[Any], zero: NDArray[Any], form: Form) -> Array:
    return np.asarray(np.clip(np.rint(w / scale) + zero, 0, form.top), np.float64)


def _candidates(w: Array, form: Form) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Scales and zero points [...] that blocks of weights [..., b] may have, those that clip least first."""
    high, low = np.maximum(w.max(axis=-1), 0), np.minimum(w.min(axis=-1), 0)
    if form.symmetric:
        middle = np.full(high.shape, form.middle, np.uint8)
        up = np.maximum(high / (form.top - form.middle), -low / form.middle)
        down = np.maximum(-low / (form.top - form.middle), high / form.middle)
        for ratio in _RATIOS if form.bits < 8 else _RATIOS[:1]:
            yield _stored(up * ratio, form), middle
            if form.negative:
                yield _stored(-down * ratio, form), middle
        return
    step = (high - low) / form.top
    exact = np.rint(np.divide(-low, step, out=np.zeros_like(step), where=step > 0))
    for ratio in _RATIOS if form.bits < 8 else _RATIOS[:1]:
        scale = _stored(step * ratio, form)
        for shift in _SHIFTS:
            yield scale, np.clip(exact + shift, 0, form.top).astype(np.uint8)


def _stored(scale: Array, form: Form) -> NDArray[np.float32]:
    """Scales as the file has them; 1 where all weights of a block are 0."""
    out = scale.astype(np.float16 if form.half else np.float32).astype(np.float32)
    return np.where(out == 0, np.float32(1), out)
