"""What weights of so many bits take in the file."""

from __future__ import annotations

import functools
import math

import numpy as np

from edgelathe.compress.graph import opset
from edgelathe.compress.graph.moves import Names
from edgelathe.compress.graph.packed import Packer, packed_bytes
from edgelathe.compress.mixed.limits import FLOAT, HALF
from edgelathe.compress.weights.levels import NORMAL_BITS, Levels


def stored_bytes(elements: int, channels: int, bits: float) -> int:
    """What weights take in the file: packed, with scale, zero point and offset a channel, and the unpacking nodes.

    `bits` that are no whole number stand between two widths.
    """
    if bits >= FLOAT:
        return 4 * elements
    if bits == HALF:
        return 2 * elements
    low = math.floor(bits)
    if low < bits:
        below, above = (stored_bytes(elements, channels, b) for b in (low, low + 1))
        return round(below + (above - below) * (bits - low))
    return packed_bytes(elements, low) + (5 + (low in NORMAL_BITS)) * channels + unpacking_bytes(low)


@functools.cache
def unpacking_bytes(bits: int) -> int:
    """What the nodes of one more constant of so many bits take in the file, beside what several share."""
    one, plain = (_packed_graph(b, 2) - _packed_graph(b, 1) for b in (bits, 8))
    return one - plain if bits < 8 else 0


@functools.cache
def shared_bytes(bits: int) -> int:
    """What the constants of so many bits share in the file: tables that they are unpacked by."""
    return _packed_graph(bits, 1) - _packed_graph(8, 1) - unpacking_bytes(bits) if bits < 8 else 0


def _packed_graph(bits: int, count: int) -> int:
    """Bytes of a graph of so many packed constants, the packed integers left out."""
    import onnx_ir as ir

    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset.LOWEST}, name="g")
    packer, packed = Packer(graph, Names(graph)), 0
    for i in range(1, count + 1):
        shape = (16, 8 * i)
        if bits in NORMAL_BITS:
            table = Levels.normal(bits).values or ()
            packer.moved(np.full(shape, table[0] + 1, np.int8), bits, table, np.ones(16, np.int8), 0)
            packed += 16
        else:
            packer.integers(np.resize(np.array([-1, 0, i], np.int8).clip(-2, 1), shape), bits, np.int8)
        packed += packed_bytes(math.prod(shape), bits)
    return int(ir.serde.serialize_graph(graph).ByteSize()) - packed
