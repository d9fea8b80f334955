"""What a device answered for one model. The loop never sees a device: measuring is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Accuracy, Candidate, Latency
from edgelathe.model.types import Model


@dataclass(frozen=True, eq=False)
class Measured:
    """One measurement.

    Attributes:
        options: with the provider that really ran.
        claims: value and one-sided bounds per budget metric, in ms, bytes, fractions, 1/s.
        ratios: the same for the ratio to the baseline, from interleaved blocks, where there is one.
        outputs: [n, ...] of the first output; n is smaller than the dataset where evaluation stopped early.
        rejected: why this candidate is out although it ran, or empty.
        stopped: why its evaluation ended early, or empty.
        energy, grade: as in a candidate.
    """

    options: SessionOptions
    latency: Latency
    accuracy: Accuracy
    claims: Mapping[str, Claim]
    ratios: Mapping[str, Claim]
    outputs: NDArray[np.generic]
    load_ms: float
    peak_bytes: int | None = None
    warnings: tuple[str, ...] = ()
    rejected: str = ""
    stopped: str = ""
    energy: Mapping[str, Any] | None = None
    grade: Mapping[str, Any] | None = None


class Measure(Protocol):
    """How the loop measures; `fit.rig` does it on a device."""

    def baseline(self) -> Measured:
        """The uncompressed model, on every sample."""

    def candidate(
        self, model: Model, options: SessionOptions, outputs: NDArray[np.generic], *, whole: bool
    ) -> Measured:
        """A candidate, interleaved with the baseline whose `outputs` are given; `whole`: without early stop."""


@dataclass(frozen=True)
class Entry:
    """A candidate with its evidence, as kept in the store."""

    candidate: Candidate
    claims: Mapping[str, Claim] = field(default_factory=dict)
    ratios: Mapping[str, Claim] = field(default_factory=dict)
    recipe_toml: str = ""

    @property
    def measured(self) -> bool:
        """Whether there are figures to judge."""
        return self.candidate.latency is not None

    def evidence(self) -> dict[str, dict[str, Any]]:
        """Claims and ratios as plain values, ratios under `METRIC x`."""
        plain = {k: c.to_json() for k, c in self.claims.items()}
        return plain | {f"{k} x": c.to_json() for k, c in self.ratios.items()}

    @classmethod
    def restore(cls, candidate: Candidate, evidence: Mapping[str, Mapping[str, Any]], recipe_toml: str) -> Entry:
        """The inverse of `evidence`."""
        claims = {k: Claim.from_json(v) for k, v in evidence.items()}
        return cls(
            candidate,
            {k: c for k, c in claims.items() if not k.endswith(" x")},
            {k.removesuffix(" x"): c for k, c in claims.items() if k.endswith(" x")},
            recipe_toml,
        )

    @classmethod
    def of(cls, candidate: Candidate, m: Measured, recipe_toml: str) -> Entry:
        """A candidate with what was measured filled in."""
        filled = candidate.with_(
            status="rejected" if m.rejected else "measured",
            why=m.rejected or m.stopped,
            options=m.options,
            latency=m.latency,
            accuracy=m.accuracy,
            throughput=1000 / m.latency.mean,
            peak_bytes=m.peak_bytes,
            load_ms=m.load_ms,
            energy=m.energy,
            grade=m.grade,
            warnings=candidate.warnings + m.warnings,
        )
        return cls(filled, m.claims, m.ratios, recipe_toml)
