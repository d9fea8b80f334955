"""`bias-correct` for TFLite: the mean error of every output channel is taken out of the bias that the file holds.

A kernel clamps what a layer makes, so the error is not looked at there but told from means of what the layer reads:
W' E[x'] + b' - W E[x] - b, which is the mean error before the clamp. Source as for ONNX: Nagel et al., 2019, 4.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.corrections import held_out
from edgelathe.compress.sensitivity.errors import Error
from edgelathe.compress.tflite.aside import Runs
from edgelathe.compress.tflite.file import File
from edgelathe.compress.tflite.frontier import Frontier
from edgelathe.compress.tflite.layers import AXES, layers
from edgelathe.compress.types import LINEAR_TFLITE, Applied, Context, Note, StepSpec
from edgelathe.model import io, run, tflite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edgelathe.compress.tflite.layers import Layer
    from edgelathe.model.types import Model

    Array = NDArray[np.float64]

STEP = "bias-correct"
_RUNS = 128
_FEWEST, _LIVE = 16, 300_000_000  # runs at least; bytes of values that are kept, about


@dataclass(frozen=True)
class Options:
    """`bias-correct` of a TFLite file has no options: no BatchNormalization is left in one to foretell errors from."""


@dataclass(frozen=True, eq=False)
class Bias:
    """The bias of a layer [channels] in real numbers, and what its integers count; `unit` None: they are reals."""

    now: Array
    unit: Array | None

    def stored(self, bias: Array) -> Array:
        """What becomes of a bias when it is stored."""
        if self.unit is None:
            return np.asarray(bias.astype(np.float32).astype(np.float64))
        return np.asarray(np.clip(np.rint(bias / self.unit), -(2.0**31) + 1, 2.0**31 - 1) * self.unit)


def apply(model: Model, _options: Options, context: Context) -> Applied:
    """Correct the biases of a quantized file toward the float model, from the front, where that holds on other samples.

    Raises UserError where nothing was quantized, or there are too few samples.
    """
    data, twin = context.samples(STEP), context.quantized_from(STEP)
    runs = Runs.of(model, twin, data, _count(twin), STEP)
    file, before = File(model.data), File(twin.data)
    graphs = [tflite.parse(m.data).main for m in (model, twin)]
    walks = (Frontier(file, graphs[0], runs.mine, data.name), Frontier(before, graphs[1], runs.theirs, data.name))
    notes = list(_walk((file, before), (graphs[0], graphs[1]), walks, runs.fold, context))
    if not any(n.done for n in notes):
        return Applied(model, (*notes, Note("model", False, "no bias gains")))
    made = io.from_bytes(file.data(), "tflite", model.name)
    want, old, new = (run.real(run.outputs(m, runs.held.inputs), m.signature) for m in (twin, model, made))
    errors = [sum((Error.of(a, b) for a, b in zip(want, have, strict=True)), Error()) for have in (old, new)]
    said = (
        f"answers on {len(runs.held)} samples held out: {errors[0].db:.2f} -> {errors[1].db:.2f} dB of signal to noise"
    )
    if not errors[1].noise < errors[0].noise:
        return Applied(model, (Note("model", False, f"biases left as they were, {said}"),))
    return Applied(made, (*notes, Note("model", True, said)))


def _walk(
    files: tuple[File, File],
    graphs: tuple[tflite.Subgraph, tflite.Subgraph],
    walks: tuple[Frontier, Frontier],
    fold: NDArray[np.int64],
    context: Context,
) -> Iterator[Note]:
    """Correct layer after layer of the first file, in place."""
    twins = {la.name: la for la in layers(graphs[1])}
    for la in layers(graphs[0]):
        name = la.name.removesuffix("_q") if la.name not in twins else la.name
        twin = twins.get(name)
        for walk, at in zip(walks, (la, twin), strict=True):
            if at is not None:
                walk.advance(at.index)
        why = _why_not(la, twin, name, walks, context)
        if why or twin is None:
            yield Note(name, False, why)
            continue
        bias = _bias(files[0], graphs[0], la)
        w, real = (_weights(f, g, k) for f, g, k in zip(files, graphs, (la, twin), strict=True))
        error = _made(w, la, walks[0]) + bias.now - _made(real, twin, walks[1]) - _bias(files[1], graphs[1], twin).now
        mean = error[fold != held_out.HELD].mean(axis=0)
        shift = bias.stored(bias.now - mean) - bias.now
        taken = held_out.gains(error, fold) & (shift != 0)
        if not taken.any():
            yield Note(name, False, "no channel gains")
            continue
        new = bias.now + np.where(taken, shift, 0.0)
        files[0].set_constant(la.bias, new if bias.unit is None else np.rint(new / bias.unit))
        rest = error[fold == held_out.HELD].mean(axis=0)
        sizes = [math.sqrt(float(np.square(e).mean())) for e in (rest, rest + np.where(taken, shift, 0.0))]
        text = f"{taken.sum()} of {taken.size} channels, mean error {sizes[0]:.3g} -> {sizes[1]:.3g}"
        yield Note(name, True, text)


def _why_not(la: Layer, twin: Layer | None, name: str, walks: tuple[Frontier, Frontier], context: Context) -> str:
    import fnmatch

    skip = [v["skip"] for p, v in context.overrides.items() if "skip" in v and fnmatch.fnmatchcase(name, p)]
    if skip and skip[-1]:
        return "skipped by the recipe"
    if twin is None or twin.shape != la.shape:
        return "the float model has no such layer"
    if la.bias < 0 or twin.bias < 0 or la.shared:
        return "it has no bias of its own"
    if not (walks[0].has(la.source) and walks[1].has(twin.source)):
        return "it reads nothing that samples decide"
    return ""


def _made(weights: Array, la: Layer, walk: Frontier) -> Array:
    """The mean [runs, channels] of what real weights [g, o, f] make of what the layer reads."""
    out = []
    for x in walk.real(la.source):
        rows = la.rows(x, np.arange(la.places(x)))
        out.append(np.einsum("gof,gf->go", weights, rows.mean(axis=0, dtype=np.float64)).reshape(-1))
    return np.stack(out)


def _weights(file: File, graph: tflite.Subgraph, la: Layer) -> Array:
    """Real weights as [g, o, f]."""
    tensor, stored = graph.tensors[la.weight], file.constant(la.weight).astype(np.float64)
    if tensor.scales and not tensor.dtype.startswith("float"):
        scale = np.asarray(tensor.scales, np.float64)
        shape = [-1 if i == AXES[la.op] else 1 for i in range(stored.ndim)]
        stored = stored * (scale.reshape(shape) if scale.size > 1 else scale[0])
    return np.asarray(la.grouped(stored), np.float64)


def _bias(file: File, graph: tflite.Subgraph, la: Layer) -> Bias:
    tensor, stored = graph.tensors[la.bias], file.constant(la.bias).reshape(-1).astype(np.float64)
    if tensor.dtype.startswith("float"):
        return Bias(stored, None)
    unit = np.broadcast_to(np.asarray(tensor.scales, np.float64), stored.shape).copy()
    return Bias(stored * unit, unit)


def _count(model: Model) -> int:
    """How many runs are looked at, so that the values kept between layers stay within bounds."""
    graph: Any = tflite.parse(model.data).main
    largest = max((4 * t.elements for t in graph.tensors if not t.constant), default=1)
    return max(_FEWEST, min(_RUNS, _LIVE // (4 * largest)))


SPEC = StepSpec(
    "mean errors of output channels taken out of the biases, after a quantizing step",
    Options,
    apply,
    needs=frozenset({"data"}),
    ops=LINEAR_TFLITE,
    corrects=True,
)
