"""Constants in a narrower float type: whether it holds them, and how they stand in a graph, behind a Cast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import Names, array, constant, layer, skips
from edgelathe.compress.types import Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

_NODE = 60  # bytes of one more node in the file, about
_LOST = 0.01  # size of the error of a constant that is still one of rounding: twice what bfloat16 makes at most
_TOLD = 0.001  # share of weights that is worth a word
_BLOCK = 1 << 20  # numbers that are looked at together
_LATER = 1 << 24  # bytes of a constant from which on it is made narrower only as it is written


@dataclass(frozen=True)
class Narrow:
    """A float type of two bytes.

    Attributes:
        name: as ONNX's documents call it.
        largest: finite number.
        normal: the smallest number above 0 that has all its digits.
    """

    name: str
    largest: float
    normal: float

    def cast(self, data: NDArray[np.float32]) -> NDArray[Any]:
        """Rounded to nearest, ties to even; numbers beyond the largest become infinite."""
        import ml_dtypes

        with np.errstate(over="ignore"):  # said by `unfit`
            return data.astype(np.float16 if self.name == "float16" else ml_dtypes.bfloat16)

    def unfit(self, data: NDArray[np.float32]) -> str:
        """Why the type cannot hold these numbers, "" where it can. Infinite ones (masks) it holds as they are."""
        return self.beyond(data) or self.faint(data)

    def beyond(self, data: NDArray[np.float32]) -> str:
        """Why the type cannot hold the largest of these numbers, else ""."""
        largest = max((np.abs(part).max(initial=0.0) for part in _finite(data)), default=0.0)
        return f"beyond {self.name}'s {self.largest:g}" if largest > self.largest else ""

    def faint(self, data: NDArray[np.float32]) -> str:
        """Why the type cannot hold the bulk of these numbers, else ""; none may be beyond its largest."""
        size = lost = 0.0
        for part in _finite(data):
            plain = part.astype(np.float64)
            size = math.hypot(size, float(np.linalg.norm(plain)))
            lost = math.hypot(lost, float(np.linalg.norm(plain - self.cast(part).astype(np.float64))))
        return f"too small for {self.name}: {100 * lost / size:.2g}% would be lost" if lost > _LOST * size else ""

    def small(self, data: NDArray[np.float32]) -> str:
        """Which share of the numbers becomes 0 or loses digits at the low end; "" where hardly any."""
        gone = faint = 0
        for part in _blocks(data):
            gone += np.count_nonzero((part != 0) & (self.cast(part) == 0))
            faint += np.count_nonzero((part != 0) & (np.abs(part) < self.normal))
        zero, some = gone / max(1, data.size), (faint - gone) / max(1, data.size)
        words = [f"{100 * n:.2g}% {what}" for n, what in ((zero, "become 0"), (some, "are subnormal")) if n > _TOLD]
        return f", {', '.join(words)}" if words else ""


FLOAT16 = Narrow("float16", 65504.0, 2.0**-14)
BFLOAT16 = Narrow("bfloat16", float.fromhex("0x1.fep127"), 2.0**-126)


def store(graph: ir.Graph, names: Names, kind: Narrow, overrides: Mapping[str, Mapping[str, Any]]) -> Iterator[Note]:
    """Each float32 constant that is large enough goes behind a Cast, which the runtime computes once, at load."""
    import onnx_ir as ir

    for value in tuple(graph.initializers.values()):
        data, uses = array(value), value.uses()
        if data is None or data.dtype != np.float32 or not uses or data.nbytes // 2 <= _NODE or value.is_graph_output():
            continue
        readers = list(dict.fromkeys(u.node for u in uses))
        if any(skips(n, overrides) for n in readers):
            yield Note(layer(readers[0]), False, "skipped by the recipe")
            continue
        if why := kind.unfit(data):
            yield Note(layer(readers[0]), False, f"'{value.name}' has values {why}")
            continue
        name = str(value.name)
        del graph.initializers[name]
        half = kind.cast(data) if data.nbytes < _LATER else _later(kind, value)
        cast = ir.node("Cast", [constant(graph, half, name)], {"to": ir.DataType.FLOAT}, name=names())
        cast.outputs[0].name = names()
        graph.insert_before(graph[0], cast)
        value.replace_all_uses_with(cast.outputs[0])
        yield Note(layer(readers[0]), True, f"'{name}' stored as {kind.name}{kind.small(data)}")


def _later(kind: Narrow, value: ir.Value) -> ir.LazyTensor:
    """The constant in its narrower type, made each time that it is asked for: of many large ones none is held."""
    import onnx_ir as ir

    wide = value.const_value
    assert wide is not None
    assert isinstance(wide.shape, ir.Shape)
    dtype = ir.DataType.FLOAT16 if kind is FLOAT16 else ir.DataType.BFLOAT16
    return ir.LazyTensor(lambda: ir.tensor(kind.cast(wide.numpy()), dtype), dtype, wide.shape, name=wide.name)


def _blocks(data: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """All numbers, so many at a time that what is made of them is small beside a large constant."""
    flat = data.reshape(-1)
    return (flat[at : at + _BLOCK] for at in range(0, flat.size, _BLOCK))


def _finite(data: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (part[np.isfinite(part)] for part in _blocks(data))
