"""Calibration without data: images made up, and those kept on which the model answers as on its training images.

Candidates are scenes with the statistics of photographs: overlapping discs and boxes of any size (dead leaves; Lee,
Mumford and Huang, Occlusion Models for Natural Images, 2001) and noise whose amplitude falls with frequency as 1/f
(Field, 1987), in correlated colours. Where the graph still has its BatchNormalization nodes, the images are kept whose
channel means and variances add up to those that the nodes store from training (the aim of ZeroQ, Cai et al., 2020,
reached here by greedy selection instead of gradients: moments of images add up). Else those are kept on which the
model is surest, class by class. Made-up images are not the user's: what is calibrated on them says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate import ranges
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgelathe.model.types import Model

NAME = "synthetic"  # of the dataset; in place of a path
WARNING = (
    "no calibration data: ranges come from synthetic images, and the accuracy on real ones is at risk; "
    "give some real samples with --data"
)
# Usual ranges of preprocessed images; the last is what ImageNet's means and deviations make of 0..255.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.1, 2.6))
_COUNT, _CANDIDATES, _TRIED = 64, 192, 24


@dataclass(frozen=True, eq=False)
class Synthetic(Dataset):
    """Made-up images, bound to the model; `how` says in words how they were chosen, for notes and metadata."""

    how: str = ""


@dataclass(frozen=True, eq=False)
class _Norm:
    """What one BatchNormalization stores of its input `value`: mean and deviation, float64 [channels]."""

    value: str
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def make(model: Model, declared: tuple[float, float] | None = None, count: int = _COUNT, seed: int = 0) -> Synthetic:
    """Images for calibrating `model`, which should be the one from before its BatchNormalization was folded.

    Args:
        model: with one float32 input of images, [n, channels, h, w] or [n, h, w, channels].
        declared: lowest and highest value of the input; None: the range of `RANGES` that the model answers best to.
        count: images to give.
        seed: of the candidates.

    Raises UserError where the input is not that of images.
    """
    shape, last = _image_shape(model)
    norms = _norms(model)
    scenes = _scenes(shape, last, max(_CANDIDATES, 2 * count), np.random.default_rng(seed))
    low, high = declared or _range(model, norms, scenes[:_TRIED])
    images = scenes * np.float32(high - low) + np.float32(low)
    if norms:
        chosen = _herd(_moments(model, norms, images), count)
        how = f"synthetic images that match {len(norms)} BatchNormalization layers"
    else:
        chosen = _surest(run.outputs(model, {model.signature.inputs[0].name: images})[0], count)
        how = "synthetic images of natural statistics (the graph has no BatchNormalization to match)"
    span = f"input {low:g} to {high:g} " + ("as declared" if declared else "guessed")
    how = f"{how}, {span}"
    return Synthetic(NAME, {model.signature.inputs[0].name: images[chosen]}, warnings=(f"{WARNING} ({how})",), how=how)


def _image_shape(model: Model) -> tuple[tuple[int, int, int], bool]:
    """(h, w, channels) of the input, and whether channels are its last axis."""
    inputs = model.signature.inputs
    mend = "give real samples with --data"
    if len(inputs) != 1 or inputs[0].dtype != "float32":
        raise UserError(model.name, "calibration without data needs a model with one float32 input", mend)
    shape = inputs[0].shape
    if len(shape) != 4 or (shape[1] not in (1, 3, 4) and shape[3] not in (1, 3, 4)):
        raise UserError(model.name, f"calibration without data makes images, input {list(shape)} is none", mend)
    last = shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)
    c, h, w = (shape[3], shape[1], shape[2]) if last else (shape[1], shape[2], shape[3])
    return (h or 224, w or 224, c or 3), last


def _scenes(shape: tuple[int, int, int], last: bool, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Scenes in 0..1, float32 [count, ...] in the model's layout."""
    h, w, c = shape
    out = np.empty((count, h, w, c), np.float32)
    for i in range(count):
        leaves, noise = _leaves(h, w, c, rng), _noise(h, w, c, rng)
        share = rng.beta(0.6, 0.6)
        scene = share * leaves + (1 - share) * noise
        contrast, level = rng.uniform(0.6, 1.6), rng.normal(0.48, 0.12)
        out[i] = np.clip((scene - 0.5) * contrast + level, 0, 1)
    return out if last else np.ascontiguousarray(out.transpose(0, 3, 1, 2))


def _colour(c: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A colour: channels share most of their brightness."""
    return np.clip(rng.uniform(0, 1) + rng.normal(0, 0.13, c), 0, 1)


def _leaves(h: int, w: int, c: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Discs and boxes over one another, radii distributed as r**-3."""
    y, x = np.mgrid[:h, :w]
    out = np.broadcast_to(_colour(c, rng), (h, w, c)).copy()
    size = max(h, w)
    least = max(1.5, 0.04 * size)
    for _ in range(int(rng.integers(4, 40))):
        r = min(least / np.sqrt(rng.uniform(1e-3, 1)), 0.5 * size)
        cy, cx, aspect = rng.uniform(0, h), rng.uniform(0, w), np.exp(rng.normal(0, 0.5))
        dy, dx = (y - cy) * aspect, (x - cx) / aspect
        inside = (dy * dy + dx * dx < r * r) if rng.random() < 0.6 else (np.maximum(abs(dy), abs(dx)) < r)
        out[inside] = _colour(c, rng) + (dx[inside] / (2 * r) * rng.normal(0, 0.3))[:, None]
    return out


def _noise(h: int, w: int, c: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of amplitude f**-alpha, alpha about 1, mean 0.5."""
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    frequency[0, 0] = 1
    amplitude = frequency ** -rng.uniform(0.7, 1.6)
    amplitude[0, 0] = 0
    grey, colours = rng.normal(size=(h, w, 1)), rng.normal(size=(h, w, c))
    spectrum = np.fft.rfft2(grey + 0.4 * colours, axes=(0, 1)) * amplitude[..., None]
    field = np.fft.irfft2(spectrum, (h, w), axes=(0, 1))
    return np.asarray(0.5 + 0.22 * field / max(float(field.std()), 1e-12), np.float64)


def _norms(model: Model) -> list[_Norm]:
    """The BatchNormalization nodes whose statistics are constants; TFLite has none."""
    if model.format != "onnx":
        return []
    import onnx

    graph = onnx_model.to_proto(model).graph
    constants = {t.name: t for t in graph.initializer}
    out = []
    for node in graph.node:
        if node.op_type == "BatchNormalization" and node.input[3] in constants and node.input[4] in constants:
            mean, var = (onnx.numpy_helper.to_array(constants[n]).astype(np.float64) for n in node.input[3:5])
            if np.isfinite(mean).all() and np.isfinite(var).all():
                out.append(_Norm(node.input[0], mean, np.sqrt(np.maximum(var, 1e-12))))
    return out


def _moments(model: Model, norms: Sequence[_Norm], images: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far each image's moments are from the stored ones: [images, features], every layer of equal weight.

    Of the inputs of a BatchNormalization, in its own units: mean, and mean square less one. Dead channels count not.
    """
    call = ranges.capture(model, [n.value for n in norms])
    name, out = model.signature.inputs[0].name, []
    batch = run.batch_size(model.signature)
    for i in range(len(images)):
        found = call({name: np.repeat(images[i : i + 1], batch, axis=0)})
        row = []
        for norm in norms:
            alive = norm.deviation > 1e-4 * max(float(norm.deviation.max()), 1e-12)
            x = np.moveaxis(found[norm.value][0], 0, -1).reshape(-1, len(norm.mean))[:, alive]
            z = (x - norm.mean[alive]) / norm.deviation[alive]
            row.append(np.concatenate([z.mean(0), np.square(z).mean(0) - 1]) / np.sqrt(max(1, 2 * alive.sum())))
        out.append(np.concatenate(row))
    return np.stack(out)


def _herd(features: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Indices of the images whose features add up to least, one after another, each at most once."""
    total = np.zeros(features.shape[1])
    left, out = np.ones(len(features), bool), []
    squares = (features**2).sum(1)
    for _ in range(min(count, len(features))):
        cost = np.where(left, squares + 2 * (features @ total), np.inf)
        best = int(cost.argmin())
        out.append(best)
        left[best] = False
        total += features[best]
    return np.array(out)


def _surest(output: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the images with the surest answers, class by class in turn; the first ones where there are none."""
    flat = output.reshape(len(output), -1)
    if flat.shape[1] < 2:
        return np.arange(min(count, len(flat)))
    answer, margin = flat.argmax(1), np.sort(flat, axis=1)[:, -1] - np.sort(flat, axis=1)[:, -2]
    order = np.argsort(-margin, kind="stable")
    turn = np.zeros(len(flat), np.int64)
    for k in np.unique(answer):
        mine = order[answer[order] == k]
        turn[mine] = np.arange(len(mine))
    return np.asarray(np.lexsort((-margin, turn))[:count], np.int64)


def _range(model: Model, norms: Sequence[_Norm], scenes: NDArray[np.float32]) -> tuple[float, float]:
    """The usual range that the model answers best to.

    With BatchNormalization: the least distance from its statistics. Else the most information of the answer about the
    image: entropy of the mean answer less mean entropy of the answers (Salimans et al., 2016), which is little where
    values are far too small (all answers alike) or too large (saturated).
    """
    name = model.signature.inputs[0].name
    worth = []
    for low, high in RANGES:
        images = scenes * np.float32(high - low) + np.float32(low)
        if norms:
            worth.append(-float(np.square(_moments(model, norms, images).mean(0)).sum()))
        else:
            worth.append(_information(run.outputs(model, {name: images})[0]))
    return RANGES[int(np.argmax(worth))]


def _information(output: NDArray[np.float32]) -> float:
    p = output.reshape(len(output), -1).astype(np.float64)
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-2):
        p = np.exp(p - p.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
    p = np.maximum(p, 1e-12)
    mean = p.mean(0)
    return float((p * np.log(p)).sum(1).mean() - (mean * np.log(mean)).sum())
