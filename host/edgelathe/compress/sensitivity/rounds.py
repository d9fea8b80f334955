"""What is done with block after block of samples, and at the end, whatever the model's format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from edgelathe.compress.sensitivity.errors import Error
from edgelathe.compress.sensitivity.known import suspects
from edgelathe.compress.sensitivity.table import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from dataclasses import Field

    import numpy as np
    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.errors import Answer
    from edgelathe.compress.sensitivity.known import Found, Key
    from edgelathe.compress.sensitivity.strata import Known


class Asked(Protocol):
    """A dataclass: one change of one layer, and which samples of a block are run; None: all."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def key(self) -> Key:
        """The layer's name, and the number of its width."""

    @property
    def rows(self) -> NDArray[np.intp] | None:
        """Numbers of samples."""


A = TypeVar("A", bound=Asked)
Settle = Callable[["Sequence[A]"], "Iterator[Answer]"]


def take_in(
    settle: Settle[A], jobs: Sequence[A], found: Mapping[Key, Found], widths: Sequence[int], known: Known | None,
    done: Callable[[A, float], None],
) -> None:  # fmt: skip
    """Run jobs on a block and keep what they answer; then those again whose samples another layer turned.

    Args:
        settle: what the model answers to each job, in order.
        jobs: to be run.
        found: by job, to which the answers are added.
        widths: bits by number.
        known: what the float model tells of the block's samples.
        done: told of each job, and which part of them is done.
    """
    for i, (job, answer) in enumerate(zip(jobs, settle(jobs), strict=True), 1):
        found[job.key].add(answer, job.rows, known)
        done(job, i / len(jobs))
    left = suspects(found, [job.key for job in jobs], widths, known)
    again = [replace(job, rows=left[job.key]) for job in jobs if job.key in left]
    for job, answer in zip(again, settle(again), strict=True):
        found[job.key].amend(answer, left[job.key])


def doubted(found: Mapping[Key, Found], todo: set[Key], margins: NDArray[np.float32] | None) -> set[Key]:
    """Those for which a sample that was left out might turn after all: begun anew, to be run on all of them."""
    again = {key for key in todo if not found[key].holds(margins)}
    for key in again:
        found[key].restart()
    return again


def entry(
    name: str, op: str, weights: NDArray[Any], rounded: Sequence[NDArray[Any]], size: Callable[[int | None], int],
    macs: Mapping[str, int | None], found: Mapping[Key, Found], how: tuple[Sequence[int], int | None],
) -> Layer:  # fmt: skip
    """The row of one layer.

    Args:
        name: of the layer.
        op: its operator.
        weights: as float.
        rounded: to each width.
        size: bytes that they take at so many bits; None: as float.
        macs: of all layers.
        found: what is known of the layer at each width.
        how: the widths, and the bits of the layer's input.
    """
    widths, activations = how
    entries = [
        found[name, j].width(bits, activations, Error.of(weights, rounded[j]).db, size(bits))
        for j, bits in enumerate(widths)
    ]
    own, total = macs.get(name), sum(m or 0 for m in macs.values())
    share = own / total if own is not None and total else None
    return Layer(name, op, weights.size, own, share, size(None), tuple(entries))
