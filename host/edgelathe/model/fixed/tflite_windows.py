"""How TFLite's operators move over images: windows and paddings from their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelathe.model.fixed.products import Window, same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site

_SAME = 0


def conv_window(site: Site, w: NDArray[Any], image: NDArray[Any]) -> Window:
    """Of CONV_2D and DEPTHWISE_CONV_2D: weights [out, kh, kw, ...], image [n, h, w, c]."""
    first = 4 if site.op == "CONV_2D" else 5  # of the dilations: a depthwise one has its multiplier before them
    dilations = (site.number(first + 1, "i", 1), site.number(first, "i", 1))
    return _window(site, (w.shape[1], w.shape[2]), dilations, image.shape[1:3])


def pool_window(site: Site, image: NDArray[Any]) -> Window:
    """Of the pooling operators: image [n, h, w, c]."""
    return _window(site, (site.number(4, "i"), site.number(3, "i")), (1, 1), image.shape[1:3])


def spread_window(site: Site, w: NDArray[Any], output: Sequence[int]) -> Window:
    """Of TRANSPOSE_CONV, whose windows move over an output of (height, width): weights [out, kh, kw, c]."""
    return _window(site, (w.shape[1], w.shape[2]), (1, 1), output)


def _window(site: Site, size: tuple[int, int], dilations: tuple[int, int], space: Sequence[int]) -> Window:
    strides = (site.number(2, "i"), site.number(1, "i"))
    if 0 in (*size, *strides, *dilations):
        raise site.refused("has a window or stride of 0")
    if site.number(0) != _SAME:
        return Window(size, strides, dilations)
    pads = tuple(same(n, k, s, d) for n, k, s, d in zip(space, size, strides, dilations, strict=True))
    return Window(size, strides, dilations, pads)
