"""What is seen of one layer in a float model and in what became of it, summed over samples; causes and what to try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.sensitivity import matched
from edgelathe.compress.sensitivity.errors import EXACT_DB, Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.matched import Match

BAD_DB = 20.0  # from where on a figure is named as a cause, as the next two
_CLIPPED, _UNLIKE = 0.01, 8.0
_GOOD_DB = 40.0  # what 8 bits leave of a first layer
_RESCALED, _ALIKE = 0.2, 0.9  # equalization: a channel is another by 2**0.2 at least, but the same up to that factor
REDUCE = "int8(reduce=auto)"


@dataclass(frozen=True)
class Mends:
    """What the steps of a format can do about each cause, "" where nothing.

    `more_bits`: whether the step takes `weights` for a layer.
    """

    overflow: str = "bf16"
    shared: str = "int8(per_channel=true)"
    clipped: str = "int8(scale=minmax) or scale=percentile"
    unlike: str = "int8(equalize=always)"
    more_bits: bool = True


MENDS = Mends()


@dataclass(frozen=True)
class LayerFound:
    """One layer of the compressed model against the float one.

    Attributes:
        layer, op: as in the float model.
        sqnr_db: signal to noise of its output, factors that equalization gave to channels taken out; 200: equal.
        fall_db: how much worse that is than what the layers before it have: large where an error begins.
        channel_db: the same for its middle channel: low where wide channels hide what narrow ones lost.
        clipped: share of its values beyond the range of its grid, None where it has none.
        channel_ratio: largest |value| of its widest channel over that of the middle one, in the float model.
        weight_ratio: the same for weights that share one scale, else None.
        dead: channels that are constant in the float model.
        lost: channels that are constant now and were not.
        saturating: share of output channels that can saturate where products are added in 16 bits.
        overflow: whether values are not finite that were.
        bits: of its weights in the file, where they have fewer than 8; else None.
        causes: in words.
        tries: what to try, but for `more`.
        more: the next thing to do for the layer itself: twice the bits, at most 8, then float.
    """

    layer: str
    op: str
    sqnr_db: float
    fall_db: float
    channel_db: float
    clipped: float | None
    channel_ratio: float
    weight_ratio: float | None
    dead: int
    lost: int
    saturating: float
    overflow: bool
    bits: int | None
    causes: tuple[str, ...]
    tries: tuple[str, ...]
    more: str

    def to_json(self) -> dict[str, Any]:
        """An entry of `layers` of an explanation."""
        plain = {
            k: round(v, 6) if isinstance(v, float) else v for k, v in vars(self).items() if k not in ("tries", "more")
        }
        return plain | {"causes": list(self.causes)}


def ranked(seen: Mapping[str, Seen], saturating: Mapping[str, float]) -> tuple[LayerFound, ...]:
    """The layers that could be compared, worst first; `saturating`: share of channels, by layer."""
    db = {name: s.db for name, s in seen.items() if s.comparable}
    found = []
    for name, own in db.items():
        start = min((db[s] for s in seen[name].sources if s in db), default=_GOOD_DB)
        found.append(seen[name].found(min(start, _GOOD_DB) - own, saturating.get(name, 0.0)))
    return tuple(sorted(found, key=lambda la: la.sqnr_db))


class Seen:
    """Sums over the samples of one layer in both models, channel by channel."""

    def __init__(self, match: Match, mends: Mends = MENDS) -> None:
        self._match, self._mends, self.comparable = match, mends, True
        self._sums = np.zeros((3, 0))  # of f*f, f*a and a*a
        self._ends: NDArray[Any] | None = None  # least and greatest of f and of a
        self._clipped = self._count = 0
        self._overflow = False

    def add(self, f: NDArray[Any], a: NDArray[Any], raw: NDArray[Any] | None, n: int) -> None:
        """Add the first `n` of float values [n, ...], those of the new model, and those before they went on a grid."""
        if f.size != a.size or a.dtype.kind != "f" or len(f) < n or f.ndim < 2:
            self.comparable = False  # pruned, or computed in integers
            return
        f, a = (_by_channel(v.reshape(f.shape)[:n].astype(np.float64), self._match.axis) for v in (f, a))
        if not np.isfinite(a).all():
            self._overflow |= bool(np.isfinite(f).all())
            a = np.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0)
        sums = np.stack([(f * f).sum(1), (f * a).sum(1), (a * a).sum(1)])
        self._sums = sums if not self._sums.size else self._sums + sums
        ends = np.stack([f.min(1), f.max(1), a.min(1), a.max(1)])
        if self._ends is not None:
            least, most = np.minimum(ends, self._ends), np.maximum(ends, self._ends)
            ends = np.stack([least[0], most[1], least[2], most[3]])
        self._ends = ends
        span, (low, high) = self._match.span, self._match.clamp
        if span is not None and raw is not None:
            x = raw[:n]
            if low is not None or high is not None:
                x = np.clip(x, low, high)
            self._clipped += int(np.count_nonzero((x < span.low) | (x > span.high)))
            self._count += x.size

    @property
    def sources(self) -> tuple[str, ...]:
        """The layers that it reads."""
        return self._match.sources

    @property
    def db(self) -> float:
        """Signal to noise of all channels."""
        return -EXACT_DB if self._overflow else Error(float(self._sums[0].sum()), float(self._noise.sum())).db

    def found(self, fall: float, saturating: float) -> LayerFound:
        """All of it, once something was added; `fall` in dB, and the share of channels that are `saturating`."""
        assert self._ends is not None
        f_low, f_high, a_low, a_high = self._ends
        dead, now = f_low == f_high, a_low == a_high
        db = self.db
        middle = float(
            np.median([Error(float(s), float(n)).db for s, n in zip(self._sums[0], self._noise, strict=True)])
        )
        clipped = self._clipped / self._count if self._count else None
        ratio = matched.spread(np.maximum(np.abs(f_low), np.abs(f_high)))
        lost = int((now & ~dead).sum())
        causes, tries = _advice(
            self._match, self._mends, min(db, middle), clipped, ratio, lost, saturating, overflow=self._overflow
        )
        bits = self._match.bits
        more = f"weights = {min(2 * bits, 8)}" if bits and self._mends.more_bits else "skip = true"
        return LayerFound(
            self._match.layer, self._match.op, db, fall, middle, clipped, ratio, self._match.weight_ratio,
            int(dead.sum()), lost, saturating, self._overflow, bits, causes, tries, more,
        )  # fmt: skip

    @property
    def _noise(self) -> NDArray[np.float64]:
        """Of each channel; one that is the float one but for a factor has that taken out: equalization's, no error."""
        ff, fa, aa = self._sums
        with np.errstate(divide="ignore", invalid="ignore"):
            factor, alike = fa / aa, fa * fa / (ff * aa)
            moved = (fa > 0) & (np.abs(np.log2(factor)) > _RESCALED) & (alike > _ALIKE)
            noise = np.where(moved, ff - fa * fa / aa, ff - 2 * fa + aa)
        return np.asarray(np.maximum(noise, 0.0))


def _advice(
    of: Match, mends: Mends, db: float, clipped: float | None, ratio: float, lost: int, saturating: float, *,
    overflow: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """Causes in words and what to try, the likeliest first."""
    found: list[tuple[str, str]] = []
    if overflow:
        found.append(("values overflow", mends.overflow))
    if saturating:
        share = f"{saturating:.0%} of its channels can saturate in 16-bit sums (x86 without VNNI)"
        found.append((share, REDUCE))
    if of.weight_ratio is not None and of.weight_ratio > _UNLIKE and db < BAD_DB:
        found.append((f"weights of channels {of.weight_ratio:.0f}x apart share a scale", mends.shared))
    if clipped is not None and clipped > _CLIPPED:
        found.append((f"{clipped:.1%} of its values clipped", mends.clipped))
    if ratio > _UNLIKE and db < BAD_DB:
        found.append((f"its widest channel is {ratio:.0f}x the middle one", mends.unlike))
    if lost:
        found.append((f"{lost} channels became constant", ""))
    return tuple(cause for cause, _ in found), tuple(dict.fromkeys(t for _, t in found if t))


def _by_channel(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """[channels, everything else]."""
    moved = np.moveaxis(values, axis, 0)
    return moved.reshape(len(moved), -1)
