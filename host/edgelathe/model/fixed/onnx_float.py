"""Operators in float, as the ONNX standard defines them: ours where speed matters, else onnx's reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import onnx_contrib
from edgelathe.model.fixed import onnx_products as products
from edgelathe.model.fixed.onnx_graph import Node, captured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.products import Window

Arrays = Sequence[Any]


def run(node: Node, inputs: Arrays, outside: Mapping[str, NDArray[Any]] | None = None) -> list[NDArray[Any]]:
    """The outputs of one node. `outside`: tensors that its branches read.

    Raises UserError where neither we nor onnx's reference has the operator.
    """
    ours = node.domain in ("", "com.microsoft")
    if ours and node.op in UNARY:
        return [np.asarray(UNARY[node.op](node, inputs[0]))]
    if ours and node.op == "DynamicQuantizeLinear":
        return [np.asarray(a) for a in onnx_contrib.dynamic_quantize(inputs[0])]
    rule = (_RULES.get(node.op) or onnx_contrib.RULES.get(node.op)) if ours else None
    if rule is not None:
        made = rule(node, inputs)
        if made is not None:
            return [np.asarray(made)]
    return reference(node, inputs, outside or {})


def reference(node: Node, inputs: Arrays, outside: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """By onnx's reference evaluator, a node at a time."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx.ml"):
        what = f"the simulator has no operator {node.domain}.{node.op}"
        raise UserError(node.name, what, "export the model for ONNX's own operators")
    given = {n: a for n, a in zip(node.inputs, inputs, strict=False) if n and a is not None}
    given |= {n: outside[n] for n in captured(node.proto) if n in outside}
    graph = onnx.helper.make_graph(
        [node.proto],
        "node",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.UNDEFINED, None) for n in given],
        [onnx.helper.make_tensor_value_info(o, onnx.TensorProto.UNDEFINED, None) for o in node.outputs if o],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, node.version)])
    try:
        found = ReferenceEvaluator(model).run(None, given)
    except Exception as e:  # it raises whatever numpy does
        text = " ".join(str(e).split())[:160]
        raise UserError(
            node.name, f"the simulator cannot compute {node.op}: {text}", "export it in another form"
        ) from e
    return [np.asarray(f) for f in found]


def average(x: NDArray[Any], window: Window, include_pad: bool) -> NDArray[Any]:
    """AveragePool of x [n, c, *space], one tap after another in float32."""
    cut = window.cut(x)
    total = np.zeros(cut.shape[: 2 + len(window.size)], np.float32)
    for tap in np.ndindex(*window.size):
        total += products.tap(cut, tap)
    return np.asarray(total / counts(window, x.shape[2:], include_pad).astype(np.float32), np.float32)


def counts(window: Window, space: Sequence[int], include_pad: bool) -> NDArray[np.int64]:
    """How many positions each window averages over: [1, 1, *out]. What ceil_mode adds never counts."""
    ones = np.ones((1, 1, *space), np.int64)
    if include_pad:
        ones = np.pad(ones, ((0, 0), (0, 0), *window.pads), constant_values=1)
        window = replace(window, pads=((0, 0),) * len(window.size))
    axes = tuple(range(-len(window.size), 0))
    return np.asarray(window.cut(ones).sum(axis=axes), np.int64)


def _conv(node: Node, inputs: Arrays) -> Any:
    x, w, *bias = inputs
    window = products.window(node, x.shape[2:], w.shape[2:])
    out = products.conv(x, w, window, node.get("group", 1))
    return out + bias[0].reshape(1, -1, *[1] * (x.ndim - 2)) if bias and bias[0] is not None else out


def _gemm(node: Node, inputs: Arrays) -> Any:
    a, b, *c = inputs
    out = (a.T if node.get("transA", 0) else a) @ (b.T if node.get("transB", 0) else b)
    if node.get("alpha", 1.0) != 1.0:
        out = np.float32(node.get("alpha", 1.0)) * out
    return out + np.float32(node.get("beta", 1.0)) * c[0] if c and c[0] is not None else out


def _pool_average(node: Node, inputs: Arrays) -> Any:
    x = inputs[0]
    window = products.window(node, x.shape[2:], node.attributes["kernel_shape"])
    return average(x, window, bool(node.get("count_include_pad", 0)))


def _pool_max(node: Node, inputs: Arrays) -> Any:
    x = inputs[0]
    if len([o for o in node.outputs if o]) > 1:
        return None
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    window = products.window(node, x.shape[2:], node.attributes["kernel_shape"])
    cut = window.cut(x, low)
    out = products.tap(cut, (0,) * len(window.size))
    for tap in np.ndindex(*window.size):
        out = np.maximum(out, products.tap(cut, tap))
    return out


def _mean_over_image(_node: Node, inputs: Arrays) -> Any:
    return inputs[0].mean(axis=tuple(range(2, inputs[0].ndim)), keepdims=True)


def _softmax(node: Node, inputs: Arrays) -> Any:
    x = inputs[0]
    if node.version < 13:  # the rest is one row from the axis on
        axis = node.get("axis", 1) % x.ndim
        rows = x.reshape(int(np.prod(x.shape[:axis])), -1)
        return _normalized(rows, -1).reshape(x.shape)
    return _normalized(x, node.get("axis", -1))


def _normalized(x: NDArray[Any], axis: int) -> NDArray[Any]:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def _batch_normalization(node: Node, inputs: Arrays) -> Any:
    if node.get("training_mode", 0) or len([o for o in node.outputs if o]) > 1:
        return None
    x, scale, bias, mean, variance = (np.asarray(a) for a in inputs)
    shape = (1, -1, *[1] * (x.ndim - 2))
    factor = scale / np.sqrt(variance + np.float32(node.get("epsilon", 1e-5)))
    return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)


def _layer_normalization(node: Node, inputs: Arrays) -> Any:
    if len([o for o in node.outputs if o]) > 1:
        return None
    x, scale, *bias = inputs
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + np.float32(node.get("epsilon", 1e-5)))
    out = centred / spread * scale
    return out + bias[0] if bias and bias[0] is not None else out


def _clip(node: Node, inputs: Arrays) -> Any:
    x = inputs[0]
    low, high = bounds(node, inputs[1:])
    if low is None and high is None:
        return x
    return np.clip(x, *(None if b is None else x.dtype.type(b) for b in (low, high)))


def bounds(node: Node, rest: Arrays) -> tuple[float | None, float | None]:
    """Between which numbers a Relu or Clip clamps; None: no bound. Raises TypeError where they are computed."""
    if node.op == "Relu":
        return 0.0, None
    if node.version < 11:
        return node.get("min", None), node.get("max", None)
    low, high = ([*rest, None, None])[:2]
    return (None if low is None else float(low), None if high is None else float(high))


def _erf(x: NDArray[Any]) -> NDArray[Any]:
    """Error function by a rational approximation, error below 1.5e-7 (Abramowitz and Stegun, 7.1.26), in float64."""
    a = np.abs(x.astype(np.float64))
    t = 1 / (1 + 0.3275911 * a)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(x) * (1 - poly * np.exp(-a * a)), x.dtype)


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)), x.dtype)


def _gelu(node: Node, x: NDArray[Any]) -> NDArray[Any]:
    half = x.dtype.type(0.5)
    if node.get("approximate", "none") == "tanh" or node.op == "FastGelu":
        inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
        return np.asarray(half * x * (1 + np.tanh(inner)))
    return np.asarray(half * x * (1 + _erf(x * x.dtype.type(np.sqrt(0.5)))))


def _f(node: Node, name: str, default: float) -> np.float32:
    return np.float32(node.get(name, default))


# Functions of one number: also looked up in tables.
UNARY: Mapping[str, Callable[[Node, Any], Any]] = {
    "Relu": lambda _, x: np.maximum(x, x.dtype.type(0)),
    "LeakyRelu": lambda n, x: np.where(x < 0, _f(n, "alpha", 0.01) * x, x),
    "Sigmoid": lambda _, x: _sigmoid(x),
    "Tanh": lambda _, x: np.tanh(x),
    "HardSigmoid": lambda n, x: np.clip(_f(n, "alpha", 0.2) * x + _f(n, "beta", 0.5), np.float32(0), np.float32(1)),
    "HardSwish": lambda _, x: x * np.clip(x / np.float32(6) + np.float32(0.5), np.float32(0), np.float32(1)),
    "Elu": lambda n, x: np.where(x < 0, _f(n, "alpha", 1.0) * np.expm1(np.minimum(x, 0)), x),
    "Gelu": _gelu,
    "FastGelu": _gelu,
    "QuickGelu": lambda n, x: x * _sigmoid(_f(n, "alpha", 1.702) * x),
    "Mish": lambda _, x: x * np.tanh(np.logaddexp(x.dtype.type(0), x)),
    "Softplus": lambda _, x: np.logaddexp(x.dtype.type(0), x),
    "Erf": lambda _, x: _erf(x),
    "Exp": lambda _, x: np.exp(x),
    "Neg": lambda _, x: -x,
    "Abs": lambda _, x: np.abs(x),
}


def _matmul(_node: Node, inputs: Arrays) -> Any:
    return np.matmul(inputs[0], inputs[1])


def _transpose(node: Node, inputs: Arrays) -> Any:
    return np.ascontiguousarray(np.transpose(inputs[0], node.get("perm", None)))


def _reshape(node: Node, inputs: Arrays) -> Any:
    x = inputs[0]
    wanted = [int(d) for d in inputs[1]]
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(node: Node, inputs: Arrays) -> Any:
    x, axis = inputs[0], node.get("axis", 1)
    axis = axis if axis >= 0 else axis + x.ndim
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _concat(node: Node, inputs: Arrays) -> Any:
    return np.concatenate(inputs, axis=node.attributes["axis"])


_RULES: Mapping[str, Callable[[Node, Arrays], Any]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "AveragePool": _pool_average,
    "MaxPool": _pool_max,
    "GlobalAveragePool": _mean_over_image,
    "Softmax": _softmax,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "Clip": _clip,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Concat": _concat,
    "Add": lambda _, i: i[0] + i[1],
    "Sub": lambda _, i: i[0] - i[1],
    "Mul": lambda _, i: i[0] * i[1],
    "Identity": lambda _, i: i[0],
    "Dropout": lambda n, i: None if len([o for o in n.outputs if o]) > 1 else i[0],
}
