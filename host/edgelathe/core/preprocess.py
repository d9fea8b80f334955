"""Preprocessing, in one fixed order: resize, crop, channels, mean and std, layout."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgelathe.core.dataset_types import Array

CHANNELS = ("RGB", "BGR", "gray")
LAYOUTS = {"NHWC->NCHW": (0, 3, 1, 2), "NCHW->NHWC": (0, 2, 3, 1)}
BLOCK = 1 << 24  # elements that are turned into float32 at a time: 64 MB


@dataclass(frozen=True)
class Preprocess:
    """What is done to stored samples; None leaves that part out.

    Attributes:
        resize: pixels of the short side (the other keeps the ratio), or (height, width). Bilinear, antialiased.
        crop: the centre square of so many pixels, or (height, width).
        channels: `RGB`, `BGR` or `gray`; stored arrays are taken to be RGB.
        mean, std: one number or one per channel, in the units of the stored values: x = (x - mean) / std in float32.
        layout: `NHWC->NCHW` or `NCHW->NHWC`.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    channels: str | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    layout: str | None = None

    @property
    def geometric(self) -> bool:
        """Whether samples are looked at as images, one by one."""
        return self.resize is not None or self.crop is not None or self.channels is not None


def parse(table: Mapping[str, Any], where: str) -> Preprocess:
    """A `[preprocess]` table. Raises UserError naming the key at fault."""
    names = [f.name for f in fields(Preprocess)]
    for key in table:
        if key not in names:
            raise UserError(f"{where}: preprocess.{key}", "unknown key", nearest(key, names))
    values = dict(table)
    for key in ("resize", "crop"):
        if key in values:
            values[key] = _pixels(values[key], f"{where}: preprocess.{key}")
    for key, choices in (("channels", CHANNELS), ("layout", tuple(LAYOUTS))):
        if key in values and values[key] not in choices:
            mend = nearest(str(values[key]), choices)
            raise UserError(f"{where}: preprocess.{key}", f"{values[key]!r} is not possible", mend)
    for key in ("mean", "std"):
        if key in values:
            values[key] = _numbers(values[key], f"{where}: preprocess.{key}", positive=key == "std")
    return Preprocess(**values)


def apply(samples: Sequence[Array] | Array, steps: Preprocess, where: str) -> Array:
    """All samples [n, ...] after the steps; float32 where mean or std are given, else in the stored dtype.

    `samples` is an array [n, ...] or a sequence of images [h, w, c] that may differ in size until they are resized.
    Raises UserError naming the sample that does not fit.
    """
    if steps.geometric or not isinstance(samples, np.ndarray):
        samples = _gather(samples, steps, where)
    if steps.layout is not None and samples.ndim != 4:
        shape = "x".join(map(str, samples.shape))
        raise UserError(f"{where}: preprocess.layout", f"the data are {shape}, not images", "leave layout out")
    if steps.mean is not None or steps.std is not None:
        return _normalize(samples, steps, where)
    return np.ascontiguousarray(samples.transpose(LAYOUTS[steps.layout])) if steps.layout else samples


def _gather(samples: Sequence[Array] | Array, steps: Preprocess, where: str) -> Array:
    """Images one by one through resize, crop and channels, into one array [n, h, w, c]."""
    out: Array | None = None
    for i in range(len(samples)):
        image = _image(samples[i], steps, where, i)
        if out is None:
            out = np.empty((len(samples), *image.shape), image.dtype)
        if image.shape != out.shape[1:]:
            ours, first = ("x".join(map(str, s)) for s in (image.shape, out.shape[1:]))
            raise UserError(
                where, f"sample {i} is {ours}, the first is {first}", "set resize and crop under [preprocess]"
            )
        out[i] = image
    assert out is not None, "datasets are not empty"
    return out


def _image(image: Array, steps: Preprocess, where: str, i: int) -> Array:
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        shape = "x".join(map(str, image.shape))
        raise UserError(
            where, f"sample {i} is {shape}, not height x width x channels", "leave resize, crop and channels out"
        )
    if steps.resize is not None:
        image = _resize(image, steps.resize)
    if steps.crop is not None:
        height, width = (steps.crop, steps.crop) if isinstance(steps.crop, int) else steps.crop
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        if top < 0 or left < 0:
            size = f"{image.shape[0]}x{image.shape[1]}"
            raise UserError(where, f"sample {i} is {size}, the crop {height}x{width}", "resize first, or crop less")
        image = image[top : top + height, left : left + width]
    if steps.channels == "gray" and image.shape[-1] == 3:
        # ITU-R BT.601 luma, as image libraries do it.
        gray = image.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
        return (np.round(gray).astype(image.dtype) if image.dtype.kind in "iu" else gray.astype(image.dtype))[..., None]
    if steps.channels == "BGR" and image.shape[-1] == 3:
        return image[..., ::-1]
    return image


def _resize(image: Array, size: int | tuple[int, int]) -> Array:
    from PIL import Image

    height, width = image.shape[:2]
    if isinstance(size, tuple):
        height, width = size
    elif height <= width:
        height, width = size, size * width // height
    else:
        height, width = size * height // width, size
    if image.shape[:2] == (height, width):
        return image
    mode = image.dtype if image.dtype == np.uint8 else np.dtype(np.float32)
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., c], mode)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for c in range(image.shape[-1])
    ]
    return np.stack(planes, -1)


def _normalize(samples: Array, steps: Preprocess, where: str) -> Array:
    mean = _channels(samples, 0.0 if steps.mean is None else steps.mean, f"{where}: preprocess.mean")
    std = _channels(samples, 1.0 if steps.std is None else steps.std, f"{where}: preprocess.std")
    axes = LAYOUTS[steps.layout] if steps.layout else tuple(range(samples.ndim))
    out = np.empty([samples.shape[a] for a in axes], np.float32)
    step = max(1, BLOCK // max(1, samples[0].size))
    for start in range(0, len(samples), step):
        with np.errstate(over="ignore"):
            block = samples[start : start + step].astype(np.float32)
            out[start : start + step] = ((block - mean) / std).transpose(axes)
        if not np.isfinite(out[start : start + step]).all():
            raise UserError(where, "values become infinite by mean and std", "scale the stored values")
    return out


def _channels(samples: Array, value: float | tuple[float, ...], where: str) -> Array:
    """The number, or the numbers along the channel axis: the last one that has so many entries, else the second."""
    if not isinstance(value, tuple):
        return np.asarray(np.float32(value))
    numbers = np.asarray(value, np.float32)
    if samples.ndim > 1 and samples.shape[-1] == len(numbers):
        return numbers
    if samples.ndim > 2 and samples.shape[1] == len(numbers):
        return numbers.reshape(-1, *[1] * (samples.ndim - 2))
    shape = "x".join(map(str, samples.shape[1:]))
    raise UserError(where, f"{len(numbers)} numbers for samples of {shape}", "give one number, or one per channel")


def _pixels(value: Any, where: str) -> int | tuple[int, int]:
    sizes = value if isinstance(value, list) else [value]
    if len(sizes) not in (1, 2) or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in sizes):
        raise UserError(where, f"{value!r} is no size in pixels", "give a whole number, or [height, width]")
    return (sizes[0], sizes[1]) if len(sizes) == 2 else sizes[0]


def _numbers(value: Any, where: str, *, positive: bool) -> float | tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in numbers
    ):
        raise UserError(where, f"{value!r} is no number", "give a number, or one per channel")
    if positive and min(numbers) <= 0:
        raise UserError(where, f"{min(numbers):g} is not above 0", "give the standard deviation of the stored values")
    return tuple(map(float, numbers)) if isinstance(value, list) else float(numbers[0])
