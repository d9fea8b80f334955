"""How long a trace takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TracePlan:
    """Rounds of blocks: in each round a block of every session, in random order from `seed`.

    `block_ms`: of calls; `warm_ms`: of calls before anything counts; `parts`: most parts that a model is cut into where
    the runtime has no profiler; `together`: most sessions that are open at once then; `shapes`: of
    inputs that no data are given for (see `measure.inputs`); `require_provider`: a session on another one is a failure.
    """

    rounds: int = 16
    block_ms: float = 60.0
    warm_ms: float = 300.0
    parts: int = 24
    together: int = 8
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    require_provider: str | None = None
    seed: int = 0
