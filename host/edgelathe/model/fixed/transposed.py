"""Transposed convolution: every input value spreads its products over a window of the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.products import kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.products import Window


@dataclass(frozen=True, eq=False)
class Spread:
    """The weights of a transposed convolution, ready for many images.

    Attributes:
        w: [c, kh, kw, out], in the type that is computed in.
        window: where the windows lie in the output; `pads` say how much of them lies outside of it.
        output: (height, width) of what comes out.
    """

    w: NDArray[Any]
    window: Window
    output: tuple[int, int]

    @classmethod
    def of(cls, w: NDArray[Any], window: Window, output: tuple[int, int]) -> Spread:
        """Weights [out, kh, kw, c] as files have them."""
        return cls(np.ascontiguousarray(w.transpose(3, 1, 2, 0)), window, output)

    @classmethod
    def exact(cls, w: NDArray[Any], window: Window, output: tuple[int, int], *, bound: float) -> Spread:
        """Integer weights for integer inputs of at most `bound` in size: every sum will be exact."""
        largest = float(np.abs(w.astype(np.float64)).reshape(len(w), -1).sum(axis=1).max(initial=0))
        return cls.of(w.astype(kind(bound * largest)), window, output)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What inputs are to be cast to."""
        return self.w.dtype

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """x [n, h, w, c] -> [n, oh, ow, out], in `dtype`."""
        (n, h, w, c), (kh, kw, out) = x.shape, self.w.shape[1:]
        (sy, sx), (height, width) = self.window.strides, self.output
        (top, _), (left, _) = self.window.pads
        parts = (x.reshape(-1, c) @ self.w.reshape(c, -1)).reshape(n, h, w, kh, kw, out)
        rows, columns = (h - 1) * sy + 1, (w - 1) * sx + 1
        total = np.zeros((n, max(rows + kh - 1, top + height), max(columns + kw - 1, left + width), out), x.dtype)
        for i, j in np.ndindex(kh, kw):
            total[:, i : i + rows : sy, j : j + columns : sx] += parts[:, :, :, i, j]
        return total[:, top : top + height, left : left + width]
