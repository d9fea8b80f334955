"""What each layer loses at each bit width: the rows of the table, worst first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgelathe.compress.types import Note
    from edgelathe.core.result import Accuracy


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
        sampled: how many were run; the others' answers are known all the same, their noise is estimated (`strata`).
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


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
