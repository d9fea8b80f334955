"""Which layers of a model each kernel covers: a runtime fuses layers, and a kernel's name tells but one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgelathe.model.graph import Layer

#: What a runtime does to tensors on its own account; with another layer's name in theirs they are still its own.
MOVES = frozenset(("ReorderInput", "ReorderOutput", "Transpose", "Cast", "MemcpyToHost", "MemcpyFromHost", "Reshape"))
#: Layers that are fused into the one behind them; all others go into the one before.
_FORWARD = frozenset(("DequantizeLinear", "Pad", "DEQUANTIZE", "PAD"))
_PRODUCTS = re.compile(r".*(MatMul|Gemm).*")


@dataclass(frozen=True)
class Kernel:
    """What ran: its operator, and the layers (by position) that its name mentions; none: it is the runtime's own.

    `reads`: the layers whose outputs it takes in, where that is known: all between them and the named ones are its own.
    `whole`: a part of the graph that a provider compiled, whose name tells none of its layers.
    """

    op: str
    named: tuple[int, ...]
    reads: tuple[int, ...] | None = None
    whole: bool = False


def family(op: str) -> str:
    """One word for an operator and its fused and quantized forms: `Conv` for `FusedConv` and `QLinearConv`."""
    if _PRODUCTS.fullmatch(op):
        return "MatMul"
    return re.sub(r"^(QLinear|Nhwc|NhwcFused|Fused|Nchwc|Q)(?=[A-Z])|Integer$", "", re.sub(r"^NhwcFused", "", op))


def regions(layers: Sequence[Layer], kernels: Sequence[Kernel]) -> list[tuple[int, ...]]:
    """Positions of the layers that each kernel covers, ascending; kernels in the order in which they ran.

    Each layer goes to the kernel that names it. Of the others, those between a named layer and the nearest one before
    it that does what the kernel does were fused into it (a convolution named after its activation); compiled parts have
    the largest connected ones of those that are left; then each goes to the kernel of the layer before it (activations,
    sums, rounding), where there is none to that of the one behind it.
    Layers that no kernel can have run (folded into constants) are nowhere.
    """
    owner: dict[int, int] = {}
    for number, kernel in enumerate(kernels):
        for at in kernel.named:
            owner.setdefault(at, number)
    made = {o: i for i, layer in enumerate(layers) for o in layer.outputs}
    before = [[made[t] for t in layer.inputs if t in made] for layer in layers]
    after: list[list[int]] = [[] for _ in layers]
    for i, sources in enumerate(before):
        for s in sources:
            after[s].append(i)
    for number, kernel in enumerate(kernels):
        kinds = {family(layers[at].op) for at in kernel.named}
        if kernel.reads is not None:
            for at in _between(before, kernel.named, {*kernel.reads, *owner}):
                owner[at] = number
        elif kinds and family(kernel.op) not in kinds:
            for at in _way_back(layers, before, kernel, owner):
                owner[at] = number
    compiled = [number for number, kernel in enumerate(kernels) if kernel.whole]
    largest = sorted(_parts(before, owner), key=len, reverse=True)[: len(compiled)]
    for number, part in zip(compiled, sorted(largest), strict=False):
        owner.update(dict.fromkeys(part, number))
    order = range(len(layers))
    _adopt((i for i in order if layers[i].op not in _FORWARD), before, owner, max)
    _adopt(reversed(order), after, owner, min)
    _adopt(order, before, owner, max)
    found: list[set[int]] = [set(kernel.named) for kernel in kernels]
    for at, number in owner.items():
        found[number].add(at)
    return [tuple(sorted(f)) for f in found]


def _adopt(
    order: Iterable[int], beside: Sequence[Sequence[int]], owner: dict[int, int], choose: Callable[[list[int]], int]
) -> None:
    for i in order:
        if i not in owner and (owners := [owner[s] for s in beside[i] if s in owner]):
            owner[i] = choose(owners)


def _parts(before: Sequence[Sequence[int]], owner: dict[int, int]) -> list[list[int]]:
    """Layers that nobody has claimed, in connected parts, each ascending."""
    part: dict[int, list[int]] = {}
    for at, sources in enumerate(before):
        if at in owner:
            continue
        mine = [at]
        for s in sources:
            if s not in owner and part[s] is not mine:
                mine = sorted({*mine, *part[s]})
                part.update(dict.fromkeys(mine, mine))
        part[at] = mine
    return list({id(p): p for p in part.values()}.values())


def _between(before: Sequence[Sequence[int]], ends: Sequence[int], stop: set[int]) -> list[int]:
    """All layers before the ends, as far as those where to stop."""
    found, queue = set(ends), list(ends)
    for at in queue:
        fresh = [s for s in before[at] if s not in found and s not in stop]
        found.update(fresh)
        queue += fresh
    return sorted(found.difference(ends))


def _way_back(
    layers: Sequence[Layer], before: Sequence[Sequence[int]], kernel: Kernel, owner: dict[int, int]
) -> list[int]:
    """Unclaimed layers from the kernel's named ones back to the nearest of its family, that one included."""
    came: dict[int, int | None] = dict.fromkeys(kernel.named)
    queue = list(kernel.named)
    for at in queue:
        for source in before[at]:
            if source in came or source in owner:
                continue
            came[source] = at
            if family(layers[source].op) == family(kernel.op):
                way, step = [], source
                while step not in kernel.named:
                    way.append(step)
                    step = came[step]  # type: ignore[assignment]  # only the named ones came from nowhere
                return way
            queue.append(source)
    return []
