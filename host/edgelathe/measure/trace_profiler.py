"""Time per kernel from the runtime's own profiler, in turns with calls that it does not see."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.measure.trace_rows import Kind, Rounds, Row, Trace, centre, main_layer, middle, reconciled
from edgelathe.model import graph, marked
from edgelathe.model.regions import MOVES, Kernel, regions

if TYPE_CHECKING:
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.device.session import Session, Timed
    from edgelathe.measure.trace_plan import TracePlan
    from edgelathe.model.graph import Layer
    from edgelathe.model.types import Model

#: The profiler cuts times off to whole microseconds: on average it loses half of one.
_CUT_OFF_NS = 500.0
#: Events that the agent reads at the end, all calls together; more would take too much of a small device's memory.
_MOST_EVENTS = 40_000
#: What the profiler does for a kernel beside each tensor whose shape it writes down, in tensors. From chains of tiny
#: operators (1 input: 1.4 us on x86), float models (3 inputs: 2.4 us) and integer ones (8 inputs: 3.3 us).
_RECORD = 2
#: Providers that compile parts of a graph into one kernel each.
_COMPILING = frozenset(
    f"{name}ExecutionProvider"
    for name in ("Tensorrt", "NvTensorRTRTX", "OpenVINO", "QNN", "CoreML", "Nnapi", "VitisAI")
)
#: Type names of ONNX Runtime's profile.
_DTYPES = {"float": "float32", "double": "float64", "bfloat16": "bfloat16"}


@dataclass
class Subject:
    """One model on the device twice: as it is, and with the profiler.

    `blocks` of the one, and the middle in ms of those of the other, have `calls` calls each; before them the profiler
    saw `dropped` calls.
    """

    name: str
    model: Model
    layers: tuple[Layer, ...]
    marks: marked.Marked
    options: SessionOptions
    plain: Session
    profiled: Session
    calls: int = 1
    blocks: list[Timed] = field(default_factory=list)
    profiled_ms: list[float] = field(default_factory=list)
    dropped: int = 0


def profile(
    device: Device,
    models: Sequence[tuple[str, Model]],
    options: Sequence[SessionOptions],
    inputs: Sequence[Mapping[str, NDArray[np.generic]]],
    plan: TracePlan,
    tick: Callable[[float], None],
) -> list[Trace]:
    """A trace of each model that ONNX Runtime runs.

    Raises ModelFailure where the device cannot run one, AgentRefusal where its runtime writes no profile.
    """
    return in_turns(device, models, options, inputs, plan, tick, lambda s: _trace(s, s.profiled.traced()))


def in_turns(
    device: Device,
    models: Sequence[tuple[str, Model]],
    options: Sequence[SessionOptions],
    inputs: Sequence[Mapping[str, NDArray[np.generic]]],
    plan: TracePlan,
    tick: Callable[[float], None],
    finish: Callable[[Subject], Trace],
) -> list[Trace]:
    """In each round, in random order, a block of calls of each model with and one without the profiler.

    `finish` makes the trace of what came of a model, while its sessions are open. Raises as `profile`.
    """
    chance = random.Random(plan.seed)
    with ExitStack() as stack:
        subjects = [
            _opened(stack, device, name, model, how, fed, plan.require_provider)
            for (name, model), how, fed in zip(models, options, inputs, strict=True)
        ]
        for s in subjects:
            _warm(s, plan)
        turns: list[tuple[Subject, bool]] = [(s, profiling) for s in subjects for profiling in (False, True)]
        for number in range(plan.rounds):
            chance.shuffle(turns)
            for s, profiling in turns:
                _block(s, profiling, number)
            tick((number + 1) / plan.rounds)
        return [finish(s) for s in subjects]


def _opened(
    stack: ExitStack,
    device: Device,
    name: str,
    model: Model,
    how: SessionOptions,
    fed: Mapping[str, Any],
    require_provider: str | None,
) -> Subject:
    marks = marked.mark(model)
    pair = []
    for profiling in (
        True,
        False,
    ):  # TensorRT makes one engine for both, and tells its layers where asked to
        session = stack.enter_context(
            device.open_session(marks.model, how, profile=profiling, require_provider=require_provider)
        )
        session.feed(fed)
        pair.append(session)
    profiled, plain = pair
    return Subject(name, model, graph.layers(model), marks, replace(how, provider=plain.provider), plain, profiled)


def _warm(s: Subject, plan: TracePlan) -> None:
    """Both sessions run until caches and clocks are warm; from the time of a call follows how many make a block."""
    times = s.plain.time(2, plan.warm_ms).ns
    per_call = middle(times[len(times) // 2 :])
    most = _MOST_EVENTS // (plan.rounds + 1) // (len(s.layers) + 2)
    s.calls = max(2, min(int(plan.block_ms / per_call), most))
    s.dropped = len(s.profiled.trace(s.calls))


def _block(s: Subject, profiling: bool, number: int) -> None:
    first = number * s.calls
    if profiling:
        s.profiled_ms.append(middle(s.profiled.trace(s.calls, first)[1:]))
    else:
        s.blocks.append(s.plain.time(s.calls, 0.0, first))


def _trace(s: Subject, found: Mapping[str, Any]) -> Trace:
    total = centre(np.array([middle(b.ns[1:]) for b in s.blocks]))  # the first call comes after another session
    nodes: list[Mapping[str, Any]] = found["nodes"]
    warnings = list(dict.fromkeys((*s.plain.warnings, *s.profiled.warnings)))
    rounds = len(s.blocks)
    if found["calls"] < s.dropped + rounds * s.calls:
        warnings.append(f"the profiler recorded {found['calls']} of {s.dropped + rounds * s.calls} calls")
        rounds = max(1, (found["calls"] - s.dropped) // s.calls)
    kernels = _kernels(s, nodes)
    covered = regions(s.layers, kernels)
    costs = _costs(nodes, found["calls"])
    rows = [
        _row(s, n, kernel, at, cost, _rounds(s, n, rounds, found["calls"]), n["times"] / found["calls"])
        for n, kernel, at, cost in zip(nodes, kernels, covered, costs, strict=True)
    ]
    kernels_ns = (
        np.sum([n["ns"] for n in nodes], axis=0) + _CUT_OFF_NS * sum(n["times"] for n in nodes) / found["calls"]
    )
    unit_ms, rest = reconciled(rows, total, middle((np.array(found["call_ns"]) - kernels_ns)[s.dropped :]))
    return Trace(
        s.name, s.model.format, s.layers, s.options, "profiler", total, centre(np.array(s.profiled_ms)),
        (*rows, *rest), unit_ms,
        blocks=tuple(s.blocks), warnings=tuple(warnings),
    )  # fmt: skip


def _rounds(s: Subject, node: Mapping[str, Any], rounds: int, calls: int) -> Rounds:
    """ms of a call in each round, the first call of each block left out; what the cutting off lost is put back."""
    ns = np.array(node["ns"], np.float64) + _CUT_OFF_NS * node["times"] / calls
    blocks = (ns[s.dropped + i * s.calls :][: s.calls] for i in range(rounds))
    return np.array([middle(b[1:]) for b in blocks])


def _kernels(s: Subject, nodes: Sequence[Mapping[str, Any]]) -> list[Kernel]:
    """The layers that each node's name mentions, or what it puts out where the host makes the same of the model."""
    place = {layer.outputs[0]: i for i, layer in enumerate(s.layers)}
    made = marked.made_for(s.marks, s.options)

    def positions(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(place[o] for o in (s.marks.outputs[k] for k in numbers) if o in place)

    kernels = []
    for node in nodes:
        named, known = positions(s.marks.numbers(node["name"])), made.get(node["name"])
        if known and not named and node["op"] not in MOVES:
            named = positions(known.outputs)
        reads = None if known is None or known.inputs is None else positions(known.inputs)
        moved = node["op"] in MOVES and all(s.layers[i].op != node["op"] for i in named) and not node["within"]
        whole = not named and node["provider"] in _COMPILING and node["op"] not in MOVES
        kernels.append(Kernel(node["op"], () if moved else named, reads, whole))
    return kernels


def _costs(nodes: Sequence[Mapping[str, Any]], calls: int) -> list[float]:
    """What the profiler's part of each node's time is in proportion to: the tensors that it writes down, see `_RECORD`.

    Of a node with a subgraph it is also what the profiler does around the kernels in there, about as much as inside.
    """
    own = [n["times"] / calls * (_RECORD + 1 + len(n["types"])) for n in nodes]
    inner: dict[str, float] = {}
    for n, cost in zip(nodes, own, strict=True):
        if n["within"] is not None:
            inner[n["within"]] = inner.get(n["within"], 0.0) + cost
    return [cost + inner.get(n["name"], 0.0) for n, cost in zip(nodes, own, strict=True)]


def _row(
    s: Subject, node: Mapping[str, Any], kernel: Kernel, covered: tuple[int, ...], cost: float, rounds: Rounds,
    runs: float,
) -> Row:  # fmt: skip
    inner = node["within"] is not None
    op = kernel.op if inner or not covered else main_layer(s.layers, covered).op
    dtype = next((t for t in node["types"] if t), "")
    kind: Kind = "operator" if covered else "runtime"
    return Row(covered, op, kernel.op, node["provider"], _DTYPES.get(dtype, dtype), kind, rounds, runs, cost)
