"""Operators that only move values: the same for integers and reals, whatever their grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site

    Arrays = Sequence[NDArray[Any]]
    Move = Callable[[Arrays], tuple[NDArray[Any], ...]]


def reshape(site: Site, _fill: float) -> Move:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the shape of the output, its first axis scaled as the input's was."""
    shape = site.outputs[0].shape
    wanted = tuple(-1 if d is None else d for d in shape)
    computed = len(site.inputs) > 1 and site.op == "RESHAPE" and site.input(1).constant is None

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        if computed:
            return (x[0].reshape(x[1].tolist()),)
        if wanted.count(-1) <= 1 and (-1 in wanted or np.prod(wanted) == x[0].size):
            return (x[0].reshape(wanted),)
        return (x[0].reshape(-1, *wanted[1:]),)  # more samples than the model's own batch

    return run


def transpose(site: Site, _fill: float) -> Move:
    """TRANSPOSE."""
    order = site.setting(1).tolist()
    return lambda x: (x[0].transpose(order),)


def pad(site: Site, fill: float) -> Move:
    """PAD and PADV2. `fill` is what zero is stored as."""
    widths = site.setting(1).tolist()

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        value = x[2].reshape(-1)[0] if len(x) > 2 else fill
        return (np.pad(x[0], widths, constant_values=value),)

    return run


def mirror_pad(site: Site, _fill: float) -> Move:
    """MIRROR_PAD."""
    widths, mode = site.setting(1).tolist(), "reflect" if site.number(0) == 0 else "symmetric"
    return lambda x: (np.pad(x[0], widths, mode=mode),)  # type: ignore[call-overload]  # one of two modes


def concatenation(site: Site, _fill: float) -> Move:
    """CONCATENATION of tensors of one grid."""
    axis = site.number(0, "i")
    return lambda x: (np.concatenate(x, axis=axis),)


def pack(site: Site, _fill: float) -> Move:
    """PACK."""
    axis = site.number(1, "i")
    return lambda x: (np.stack(x, axis=axis),)


def unpack(site: Site, _fill: float) -> Move:
    """UNPACK."""
    axis = site.number(1, "i")
    return lambda x: tuple(np.moveaxis(x[0], axis, 0))


def split(site: Site, _fill: float) -> Move:
    """SPLIT: the axis comes first."""
    axis, parts = int(site.setting(0).reshape(-1)[0]), len(site.outputs)
    return lambda x: tuple(np.split(x[1], parts, axis=axis))


def split_v(site: Site, _fill: float) -> Move:
    """SPLIT_V: sizes and axis; one size may be -1."""
    sizes, axis = [int(v) for v in site.setting(1)], int(site.setting(2).reshape(-1)[0])

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        rest = x[0].shape[axis] - sum(s for s in sizes if s >= 0)
        ends = np.cumsum([rest if s < 0 else s for s in sizes])[:-1]
        return tuple(np.split(x[0], ends, axis=axis))

    return run


def slice_(_site: Site, _fill: float) -> Move:
    """SLICE: begin and size; -1: to the end."""

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        cuts = (slice(int(b), None if s < 0 else int(b + s)) for b, s in zip(x[1], x[2], strict=True))
        return (x[0][tuple(cuts)],)

    return run


def strided_slice(site: Site, _fill: float) -> Move:
    """STRIDED_SLICE with masks for begin, end and axes to drop."""
    begin, end, ellipsis, new, drop = (site.number(i, "i") for i in range(5))
    if ellipsis or new:
        raise site.refused("with an ellipsis or a new axis is not simulated")

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        cuts: list[slice | int] = []
        for axis, (b, e, s) in enumerate(zip(*(v.tolist() for v in x[1:4]), strict=True)):
            first, last = (None if begin >> axis & 1 else b), (None if end >> axis & 1 else e)
            cuts.append(b if drop >> axis & 1 else slice(first, last, s))
        return (np.asarray(x[0][tuple(cuts)]),)

    return run


def gather(site: Site, _fill: float) -> Move:
    """GATHER without batch axes."""
    axis = site.number(0, "i")
    if site.number(1, "i"):
        raise site.refused("with batch axes is not simulated")
    return lambda x: (np.take(x[0], x[1], axis=axis),)


def tile(_site: Site, _fill: float) -> Move:
    """TILE."""
    return lambda x: (np.tile(x[0], x[1].tolist()),)


def shape(site: Site, _fill: float) -> Move:
    """SHAPE."""
    return lambda x: (np.array(x[0].shape, site.outputs[0].dtype),)


def nearest(site: Site, _fill: float) -> Move:
    """RESIZE_NEAREST_NEIGHBOR."""
    corners, centers = bool(site.number(0)), bool(site.number(1))

    def index(size: int, want: int) -> NDArray[np.int64]:
        scale = np.float32((size - 1) / (want - 1) if corners and want > 1 else size / want)
        at = (np.arange(want, dtype=np.float32) + np.float32(0.5 if centers else 0)) * scale
        whole = np.floor(at + np.float32(0.5)) if corners else np.floor(at)
        return np.asarray(np.clip(whole.astype(np.int64), 0, size - 1))

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        height, width = (int(v) for v in x[1])
        rows, columns = index(x[0].shape[1], height), index(x[0].shape[2], width)
        return (x[0][:, rows][:, :, columns],)

    return run


def depth_to_space(site: Site, _fill: float) -> Move:
    """DEPTH_TO_SPACE."""
    block = site.number(0, "i")

    def run(x: Arrays) -> tuple[NDArray[Any], ...]:
        n, h, w, c = x[0].shape
        split_up = x[0].reshape(n, h, w, block, block, c // block**2).transpose(0, 1, 3, 2, 4, 5)
        return (split_up.reshape(n, h * block, w * block, c // block**2),)

    return run


#: What an operator does, from where it stands and what zero is stored as there.
MOVES: dict[str, Callable[[Site, float], Move]] = {
    "RESHAPE": reshape, "SQUEEZE": reshape, "EXPAND_DIMS": reshape, "TRANSPOSE": transpose, "PAD": pad, "PADV2": pad,
    "MIRROR_PAD": mirror_pad, "CONCATENATION": concatenation, "PACK": pack, "UNPACK": unpack, "SPLIT": split,
    "SPLIT_V": split_v, "SLICE": slice_, "STRIDED_SLICE": strided_slice, "GATHER": gather, "TILE": tile,
    "SHAPE": shape, "RESIZE_NEAREST_NEIGHBOR": nearest, "DEPTH_TO_SPACE": depth_to_space,
}  # fmt: skip
