"""A global AVERAGE_POOL_2D as MEAN, which may have a scale of its own.

An integer AVERAGE_POOL_2D has the scale of what it reads. Means over a whole image span a small part of that range, so
its output would have but a few of the 256 levels, in front of the classifier. MEAN rescales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.tflite.file import File
from edgelathe.model import io, tflite

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgelathe.model.types import Model

_VERSION = 2  # of MEAN: the first that takes int8


def global_means(model: Model, allowed: Callable[[str], bool]) -> Model:
    """The model with each pool over a whole image, of no padding and no activation, as MEAN; the same function.

    `allowed`: whether the operator of that output may be changed.
    """
    graph = tflite.parse(model.data).main
    found = [
        i
        for i, op in enumerate(graph.operators)
        if _is_global(graph, op) and allowed(graph.tensors[op.outputs[0]].name)
    ]
    if not found:
        return model
    from ai_edge_litert import schema_py_generated as schema

    file = File(model.data)
    axes = file.add_constant("edgelathe/spatial_axes", np.array([1, 2], np.int32))
    code = file.code("MEAN", _VERSION)
    for i in found:
        op, options = file.graph.operators[i], schema.ReducerOptionsT()
        options.keepDims = True
        op.opcodeIndex, op.inputs = code, [op.inputs[0], axes]
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.ReducerOptions, options
    return io.from_bytes(file.data(), "tflite", model.name)


def _is_global(graph: tflite.Subgraph, op: tflite.Operator) -> bool:
    if op.op != "AVERAGE_POOL_2D" or op.options is None:
        return False
    read, made = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    whole = read.shape[1:3] == (op.options.number(4, "i"), op.options.number(3, "i"))
    return read.dtype == "float32" and whole and made.shape[1:3] == (1, 1) and not op.options.number(5, "b")
