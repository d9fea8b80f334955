"""Time per layer of an engine that TensorRT made, in turns with calls that its profiler does not see.

TensorRT names a layer after the nodes that it fused: `conv1 + relu1`; after the first and the last of a part that its
compiler took whole: `{ForeignNode[a...b]}`; and copies of its own after the tensor's reader. Source: NVIDIA, TensorRT
documentation, "Performance Best Practices", on profiling layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.measure.trace_profiler import Subject, in_turns
from edgelathe.measure.trace_rows import Rounds, Row, Trace, centre, main_layer, middle, reconciled
from edgelathe.model.marked import marks
from edgelathe.model.regions import Kernel, regions

if TYPE_CHECKING:
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.measure.trace_plan import TracePlan
    from edgelathe.model.types import Model

#: `trtexec` tells averages of a run of its own: so many runs, the fewest for an interval over them.
_RUNS = 6
#: The agent cuts times off to whole microseconds: on average half of one is lost.
_CUT_OFF_NS = 500.0
_OWN = re.compile(r"^(Reformatting CopyNode|Reformat)")
_PART = re.compile(r"ForeignNode\[(.*)\.\.\.(.*)\]")


def by_layers(
    device: Device,
    models: Sequence[tuple[str, Model]],
    options: Sequence[SessionOptions],
    inputs: Sequence[Mapping[str, NDArray[np.generic]]],
    plan: TracePlan,
    tick: Callable[[float], None],
) -> list[Trace]:
    """A trace of each ONNX model that TensorRT runs.

    Raises ModelFailure where the device cannot run one, AgentRefusal where its TensorRT tells no times.
    """
    return in_turns(device, models, options, inputs, plan, tick, _trace)


def _trace(s: Subject) -> Trace:
    found = s.profiled.traced()
    averages = found["calls"] == 1
    seen = [found, *(s.profiled.traced() for _ in range(_RUNS - 1))] if averages else [found]
    nodes: list[Mapping[str, Any]] = found["nodes"]
    total = centre(np.array([middle(b.ns[1:]) for b in s.blocks]))
    rounds = [_averages(seen, n["name"]) if averages else _rounds(s, n) for n in nodes]
    kernels = [_kernel(s, str(n["name"]), str(n["op"])) for n in nodes]
    rows = [
        Row(
            covered, main_layer(s.layers, covered).op if covered else k.op or "layer of TensorRT", k.op, "TensorRT", "",
            "operator" if covered else "runtime", times, 1.0, 1.0,
        )
        for k, covered, times in zip(kernels, regions(s.layers, kernels), rounds, strict=True)
    ]  # fmt: skip
    unit_ms, rest = reconciled(rows, total, math.inf)
    said = [*s.plain.warnings, *s.profiled.warnings, *_beside(s)]
    return Trace(
        s.name, s.model.format, s.layers, s.options, "profiler", total,
        None if averages else centre(np.array(s.profiled_ms)), (*rows, *rest), unit_ms,
        blocks=tuple(s.blocks), warnings=tuple(dict.fromkeys(said)),
    )  # fmt: skip


def _kernel(s: Subject, name: str, op: str) -> Kernel:
    """The layers that a name mentions: all of them, or the ends of a part, whose inside is between what they read."""
    if _OWN.match(name):
        return Kernel(op or "Reformat", ())
    place = {layer.outputs[0]: i for i, layer in enumerate(s.layers)}

    def positions(text: str) -> tuple[int, ...]:
        outputs = (s.marks.outputs[k] for k in marks(text))
        return tuple(place[o] for o in outputs if o in place)

    part = _PART.search(name)
    if part is None:
        named = positions(name)
        return Kernel(op, named, whole=not named)
    first, last = positions(part[1]), positions(part[2])
    made = {o: i for i, layer in enumerate(s.layers) for o in layer.outputs}
    reads = tuple(made[t] for i in first for t in s.layers[i].inputs if t in made)
    return Kernel(op, (*first, *last), reads if first else None, whole=not (first or last))


def _rounds(s: Subject, node: Mapping[str, Any]) -> Rounds:
    """ms of a call in each round, the first call of each block left out; calls before them were for warming up."""
    ns = np.array(node["ns"], np.float64)[-len(s.blocks) * s.calls :].reshape(len(s.blocks), s.calls) + _CUT_OFF_NS
    return np.array([middle(block[1:]) for block in ns])


def _averages(seen: Sequence[Mapping[str, Any]], name: str) -> Rounds:
    """ms of a call in each run of the program."""
    ns = [n["ns"][0] for found in seen for n in found["nodes"] if n["name"] == name]
    return (np.array(ns, np.float64) + _CUT_OFF_NS) / 1e6


def _beside(s: Subject) -> list[str]:
    """What the time outside of the layers is."""
    splits = [b.more["split"] for b in s.blocks if b.more.get("split")]
    if not splits:
        return []
    into, out = (float(np.median([d[k] for d in splits])) / 1e3 for k in ("copy_in_ns", "copy_out_ns"))
    return [f"outside of operators: copies to the GPU take {into:.3g} us, back {out:.3g} us, the rest is its start"]
