"""How much each layer's bit width costs the model: the error at its output, and its accuracy, layer by layer.

Each layer's weights alone are rounded, as `int8` would store them, to each width in turn; all else stays float.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate import scales
from edgelathe.compress.forward import partial
from edgelathe.compress.graph.fold import fold
from edgelathe.compress.graph.moves import array, refuse_quantized
from edgelathe.compress.integer import weighted
from edgelathe.compress.sensitivity import passes, screening
from edgelathe.compress.sensitivity.passes import Answer, Change, Error, Float, Job
from edgelathe.compress.sensitivity.screening import Screen
from edgelathe.compress.types import Note
from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.graph import layers as graph_layers
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.sensitivity.passes import Block
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.result import Accuracy
    from edgelathe.model.cut_onnx import Suffix
    from edgelathe.model.types import Model
    from edgelathe.stats.metrics import Metric

WIDTHS = (8, 4, 2)
_COUNTED = 1 << 16  # values that the grid of a layer's input is fitted to
# An early end: with the SQNR known to so many dB (before a closing Softmax, behind which few samples make most of the
# error), and the drop to 1.5 points or a fifth of itself.
_REACH_DB, _REACH, _REACH_SHARE = 0.5, 0.015, 0.2
Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class Width:
    """One layer at one bit width.

    Attributes:
        bits: of the weights.
        activations: bits of the layer's input, None: float.
        sqnr_db: signal to noise at the model's output (the worst of several); 200 where nothing differs.
        hidden_db: the same before a closing Softmax or Sigmoid, None where there is none.
        weights_db: signal to noise of the weights themselves.
        accuracy: the metric of the data, with its drop against the float model in pairs; None where outputs are NaN.
        changed: how many answers differ from the float model's, None where the metric knows no answers.
        bytes: what the weights take, scales included.
        n: on how many samples answers are known.
        sampled: how many, of all sorts, the signal to noise is of; of the others only those were run whose answer the
            change might turn.
    """

    bits: int
    activations: int | None
    sqnr_db: float
    hidden_db: float | None
    weights_db: float
    accuracy: Accuracy | None
    changed: int | None
    bytes: int
    n: int
    sampled: int

    def to_json(self) -> dict[str, Any]:
        """An entry of `layers[].widths`."""
        plain = {k: _rounded(v) for k, v in vars(self).items()}
        return plain | {"accuracy": self.accuracy.to_json() if self.accuracy else None}


@dataclass(frozen=True)
class Layer:
    """One layer: `macs` of one sample, None where not known; `float_bytes` of its weights as float32."""

    layer: str
    op: str
    parameters: int
    macs: int | None
    macs_share: float | None
    float_bytes: int
    widths: tuple[Width, ...]

    @property
    def mean_db(self) -> float:
        """What layers are ranked by: the mean over the widths of the SQNR in dB."""
        return sum(w.sqnr_db for w in self.widths) / len(self.widths)

    def at(self, bits: int) -> Width:
        """The entry of one width."""
        return next(w for w in self.widths if w.bits == bits)

    def to_json(self) -> dict[str, Any]:
        """An entry of `layers`."""
        plain = {k: _rounded(v) for k, v in vars(self).items()} | {"mean_db": _rounded(self.mean_db)}
        return plain | {"widths": [w.to_json() for w in self.widths]}


@dataclass(frozen=True)
class Sensitivity:
    """All layers, worst first, with the float model's own accuracy; `skipped` says of other layers why."""

    layers: tuple[Layer, ...]
    baseline: Accuracy
    labels: bool
    skipped: tuple[Note, ...]

    def to_json(self) -> dict[str, Any]:
        """The measured part of `edgelathe.sensitivity/1`."""
        return {
            "n": self.baseline.n,
            "metric": self.baseline.metric,
            "labels": self.labels,
            "baseline": self.baseline.to_json(),
            "layers": [{"rank": i, **layer.to_json()} for i, layer in enumerate(self.layers, 1)],
            "skipped": [{"layer": n.layer, "why": n.what} for n in self.skipped],
        }


@dataclass(frozen=True, eq=False)
class Scene:
    """A float model on its samples, with the layers that may be rounded and how its answers are scored.

    Attributes:
        float: the folded model and its values.
        layers, skipped: those with weights, and why others have none.
        metric, labels: of the data.
        macs: of each layer for one sample, None where not known.
        means: of each channel of what a layer reads, by that value's name, on the first chunk of samples.
    """

    float: Float
    layers: tuple[Weighted, ...]
    skipped: tuple[Note, ...]
    metric: Metric
    labels: NDArray[Any] | None
    macs: Mapping[str, int | None]
    means: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, model: Model, data: Dataset, run_all: partial.Map) -> Scene:
        """Fold the model and run it. Raises UserError where it is no float ONNX model, or has no layer with weights."""
        if model.format != "onnx":
            raise UserError(
                f"{model.name}.tflite", "sensitivity cuts ONNX graphs only", "give the ONNX model it was converted from"
            )
        ir_model = onnx_model.to_ir(model)
        refuse_quantized(ir_model.graph, model.name)
        fold(ir_model)
        found, left = weighted.layers(ir_model)
        if not found:
            why = f": {left[0].layer}: {left[0].what}" if left else ""
            raise UserError(model.name, f"has no layer whose weights can be rounded{why}", "see `edgelathe inspect`")
        folded = onnx_model.from_ir(ir_model, model.name)
        table = graph_layers(folded)
        held = sum(4 * math.prod(d or 1 for d in la.shape) for la in table if la.shape is not None)  # bytes a sample
        chunks = partial.chunks_of(folded, data, max(1, passes.BLOCK_BYTES // max(1, held)))
        reference = Float.of(onnx_model.to_proto(folded), model.name, chunks, run_all)
        metric = metrics.load_metric(data.metric, Path(data.name).parent)
        macs = {layer.name: layer.macs for layer in table}
        means = passes.input_means(reference, found)
        return cls(reference, tuple(found), tuple(left), metric, data.labels, macs, means)

    def accuracy(self, outputs: NDArray[Any]) -> Accuracy | None:
        """Of a changed model, in pairs with the float one; None where outputs are NaN."""
        try:
            labels = None if self.labels is None else self.labels[: len(outputs)]
            return metrics.compare_accuracy(self.metric, self.float.head(len(outputs)), outputs, labels)[0]
        except metrics.OutputError:
            return None

    def changed(self, outputs: NDArray[Any]) -> int | None:
        """How many answers are not the float model's."""
        if not self.metric.classes:
            return None
        answers = (v.reshape(len(v), -1).argmax(1) for v in (self.float.head(len(outputs)), outputs))
        return int(np.not_equal(*answers).sum())


def measure(
    scene: Scene, widths: Sequence[int], activations: int | None = None, *, early: bool = False,
    tick: Tick = lambda what, part: None,
) -> Sensitivity:  # fmt: skip
    """Round each layer alone to each width.

    Of classes answers are known of all samples, the signal to noise of the first ones (`screening`).

    Args:
        scene: the float model on its samples, in random order.
        widths: bits of the weights, 2 to 8.
        activations: bits that the layer's input is rounded to as well, 2 to 8; None: it stays float.
        early: leave a width of a layer alone once it is settled.
        tick: told of progress.

    Raises:
        UserError: outputs or labels do not fit the metric.
    """
    cuts = {la.name: cut for la in scene.layers if (cut := passes.cut(scene.float.proto.graph, la))}
    alive = [layer for layer in scene.layers if layer.name in cuts]
    store = _store(len(alive) * len(widths), scene.float.chunks.samples, scene.float.head(1))
    keys = [(la.name, j) for la in alive for j in range(len(widths))]
    found = {key: _Found(scene, row, early) for key, row in zip(keys, store, strict=True)}
    changes: dict[str, list[Change]] = {}
    todo = set(keys)
    while todo:
        for block, jobs in _work(scene, cuts, found, todo, changes, (widths, activations), early=early):
            for i, (job, answer) in enumerate(zip(jobs, block.settle(jobs), strict=True), 1):
                found[job.layer.name, job.number].add(answer, job.rows)
                part = (block.which.start * block.of.chunks.size + block.count * i / len(jobs)) / len(store[0])
                tick(f"layer {alive.index(job.layer) + 1} of {len(alive)}", min(part, 1.0))
        todo = {key for key in todo if not found[key].holds}
        for key in todo:  # a sample that was left out might turn after all: all of them once more
            found[key].restart()
    baseline = metrics.evaluate(scene.metric, scene.float.first, scene.labels)
    total = sum(m or 0 for m in scene.macs.values())
    rows = []
    for layer in alive:
        entries = [
            found[layer.name, j].width(layer, b, activations, changes[layer.name][j]) for j, b in enumerate(widths)
        ]
        macs = scene.macs.get(layer.name)
        share = macs / total if macs is not None and total else None
        rows.append(Layer(layer.name, layer.op, layer.elements, macs, share, layer.bytes(None), tuple(entries)))
    dead = tuple(Note(la.name, False, "no output hangs on it") for la in scene.layers if la.name not in cuts)
    rows.sort(key=lambda la: la.mean_db)
    return Sensitivity(tuple(rows), baseline, scene.labels is not None, (*scene.skipped, *dead))


def _work(
    scene: Scene, cuts: Mapping[str, Suffix], found: Mapping[tuple[str, int], _Found], todo: set[tuple[str, int]],
    changes: dict[str, list[Change]], how: tuple[Sequence[int], int | None], *, early: bool,
) -> Iterator[tuple[Block, list[Job]]]:  # fmt: skip
    """Block after block, what is to be run on it; `changes` are made from the first one."""
    scores = scene.float.scores if scene.metric.name == "top1" else None
    layers = [la for la in scene.layers if any(name == la.name for name, _ in todo)]
    most = screening.LEAST if early else None
    for block in passes.blocks(scene.float, {la.name: cuts[la.name] for la in layers}, most, begin=screening.LEAST):
        fresh = [la for la in layers if la.name not in changes]
        made = scene.float.map(lambda la: _changes(scene, la, block, *how), fresh)  # noqa: B023  # runs now
        changes |= zip((la.name for la in fresh), made, strict=True)
        if not block.which.start:
            _check(scene, block)
        margin = screening.margins(block.known(scores)) if scores and block.apart else None
        jobs = [
            Job(la, cuts[la.name], j, change, found[la.name, j].rows(margin))
            for la in layers
            for j, change in enumerate(changes[la.name])
            if (la.name, j) in todo and not found[la.name, j].settled
        ]
        if not jobs:
            break
        yield block, jobs


def _check(scene: Scene, block: Block) -> None:
    """Whether outputs and labels fit the metric, before the work: on the first block, or on all where it is small."""
    first = scene.float.head(block.count) if block.count >= screening.LEAST else scene.float.first
    metrics.evaluate(scene.metric, first, None if scene.labels is None else scene.labels[: len(first)])


class _Found:
    """What is known of one layer at one width so far."""

    def __init__(self, scene: Scene, outputs: NDArray[Any], early: bool) -> None:
        """`outputs`: room for the first output of all samples [n, ...]."""
        self._scene, self._early, self._screened = scene, early, True
        self.outputs = outputs
        self._begin()

    def _begin(self) -> None:
        self._n, self._sampled, self._screen = 0, 0, Screen()
        self._parts: list[Answer] = []
        self.settled = False

    def restart(self) -> None:
        """Forget all, and leave out no sample any more."""
        self._screened = False
        self._begin()

    def rows(self, margin: NDArray[np.float64] | None) -> NDArray[np.intp] | None:
        """Which of the next samples are to be run, by the margins of the float model's answers; None: all."""
        return self._screen.rows(margin) if margin is not None and self._screened else None

    @property
    def holds(self) -> bool:
        """Whether samples were rightly left out, by all that is known."""
        return self._screen.holds

    def add(self, answer: Answer, rows: NDArray[np.intp] | None) -> None:
        n = len(answer.first)
        self.outputs[self._n : self._n + n] = answer.first
        self._n += n
        self._screen.add(n if rows is None else len(rows), answer.gain)
        if rows is None:  # of some, chosen by their margin, errors would tell another story
            self._sampled += n
            self._parts.append(Answer(answer.first[:0], answer.errors))
        self.settled = self._early and self._n < len(self.outputs) and self._is_settled()

    def _is_settled(self) -> bool:
        """Whether error and loss are known well enough to rank by, and to plan with."""
        names, accuracy = self._scene.float.hidden or self._scene.float.outputs, self._accuracy()
        if (
            self._n < screening.LEAST
            or (names and passes.joined(self._parts).reach_db(names) > _REACH_DB)
            or accuracy is None
        ):
            return False
        drop, low, high = accuracy.drop, accuracy.drop_low, accuracy.drop_high
        if drop is None or low is None or high is None:
            return False
        return max(drop - low, high - drop) <= max(_REACH * max(1.0, abs(accuracy.value)), _REACH_SHARE * abs(drop))

    def _accuracy(self) -> Accuracy | None:
        return self._scene.accuracy(np.asarray(self.outputs[: self._n]))

    def width(self, layer: Weighted, bits: int, activations: int | None, change: Change) -> Width:
        w, answer = array(layer.node.inputs[1]), passes.joined(self._parts)
        assert w is not None
        output = answer.db(self._scene.float.outputs)
        return Width(
            bits,
            activations,
            passes.EXACT_DB if output is None else output,
            answer.db(self._scene.float.hidden),
            Error.of(w, change.constants[layer.weight]).db,
            self._accuracy(),
            self._scene.changed(np.asarray(self.outputs[: self._n])),
            layer.bytes(bits),
            self._n,
            self._sampled,
        )


def _changes(
    scene: Scene, layer: Weighted, block: Block, widths: Sequence[int], activations: int | None
) -> list[Change]:
    """The layer's constants at each width, and its input's rounding, to the range that the first block has."""
    rounding = _rounding(block.real(layer.source), activations) if activations else None
    return [Change(weighted.rounded(layer, bits, scene.means[layer.source]), rounding) for bits in widths]


def _rounding(values: NDArray[np.float32], bits: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """To the grid of least squared error, of those whose range is the values' or a part of it."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _COUNTED) | 1]  # an odd step misses no channel of 2, 4, 8, ...
    low, high = float(values.min()), float(values.max())

    def rounding(part: float) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        grid = scales.affine(low * part, high * part, signed=False, bits=bits)
        scale = np.float32(grid.scale)
        return lambda x: np.clip(np.rint(x / scale), grid.low - grid.zero, grid.high - grid.zero) * scale

    found = [rounding(part) for part in np.linspace(1.0, 0.1, 46)]
    return min(found, key=lambda f: float(np.square(f(some) - some).mean(dtype=np.float64)))


def _store(rows: int, samples: int, like: NDArray[Any]) -> NDArray[Any]:
    """Room for the outputs of every width of every layer; on disk where it is large."""
    shape = (rows, samples, *like.shape[1:])
    if math.prod(shape) * like.dtype.itemsize <= passes.BLOCK_BYTES:
        return np.empty(shape, like.dtype)
    with tempfile.TemporaryFile() as file:  # lives as long as the mapping
        return np.memmap(file, like.dtype, "w+", shape=shape)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
