"""`sparse`: small weights become zero, layer by layer; shapes stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph import moves as g
from edgelathe.compress.types import LINEAR, Applied, Context, Note, StepSpec, option
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.core.profile import Hardware
    from edgelathe.model.types import Model

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_DEFAULT = 0.05
WARNING = (
    "zeros alone make a file neither smaller nor faster: a dense runtime stores and multiplies them like any number"
)


@dataclass(frozen=True)
class Options:
    """Options of `sparse`; one of the two is given."""

    threshold: float | None = option(
        None, f"weights below this share of their layer's largest become 0 ({_DEFAULT:g} where nothing is given)",
        low=0.0, high=1.0,
    )  # fmt: skip
    amount: float | None = option(
        None, "share of each layer's weights that become 0, smallest first", low=0.0, high=1.0
    )


def apply(model: Model, options: Options, context: Context) -> Applied:
    """Zero weights by magnitude (Han et al., "Learning both weights and connections", 2015), without retraining.

    Notes give the share of zeros per layer. Raises UserError where both `threshold` and `amount` are given.
    """
    _one_of(options)
    import onnx_ir.passes.common as passes

    work = onnx_model.to_ir(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work)
    names, notes, done = g.Names(work.graph), [], set[int]()
    for node in g.standard_nodes(work.graph):
        value = node.inputs[1] if node.op_type in _WEIGHTED and len(node.inputs) > 1 else None
        w = g.array(value)
        if w is None or w.ndim < 2 or w.dtype.kind != "f" or id(value) in done:
            continue
        own = g.options_for(options, node, context.overrides)
        if own is None:
            notes.append(Note(g.layer(node), False, "skipped by the recipe"))
            continue
        _one_of(own)
        new = np.where(zeroed(w, own), w.dtype.type(0), w)
        done.add(id(_replaced(node, value, new, names)))
        notes.append(Note(g.layer(node), True, f"{(new == 0).mean():.1%} zeros"))
    if not done:
        return Applied(model, (*notes, Note("model", False, "no layer with weights")))
    return Applied(onnx_model.from_ir(work, model.name), (*notes, Note("model", True, WARNING)))


def zeroed(w: NDArray[Any], options: Options) -> NDArray[np.bool_]:
    """Which weights become 0. Of equal magnitudes the first ones go."""
    size = np.abs(w)
    if options.amount is None:
        limit = (_DEFAULT if options.threshold is None else options.threshold) * size.max(initial=0.0)
        return np.asarray(size < limit)
    out = np.zeros(w.size, bool)
    out[np.argsort(size, axis=None, kind="stable")[: round(options.amount * w.size)]] = True
    return out.reshape(w.shape)


def _replaced(node: ir.Node, value: ir.Value | None, data: NDArray[Any], names: g.Names) -> ir.Value:
    """New weights for every node that shares the old ones."""
    new = g.set_constant(node, 1, data, names)
    if value is not None and value is not new and value.uses():
        value.replace_all_uses_with(new)
        del g.graph_of(node).initializers[str(value.name)]
    return new


def _one_of(options: Options) -> None:
    if options.threshold is not None and options.amount is not None:
        raise UserError("sparse", "both `threshold` and `amount` are given", "leave one of them out")


def _resolve(options: Options, _: Hardware) -> Options:
    _one_of(options)
    if options.amount is None and options.threshold is None:
        return replace(options, threshold=_DEFAULT)
    return options


SPEC = StepSpec("small weights become zero", Options, apply, resolve=_resolve, ops=LINEAR, large=True)
