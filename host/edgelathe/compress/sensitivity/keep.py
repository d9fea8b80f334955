"""Which layers are worth keeping in float, what that costs, and what it wins: measured together, not added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgelathe.compress.integer import weighted
from edgelathe.compress.sensitivity.errors import EXACT_DB
from edgelathe.compress.sensitivity.reference import Change, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.scene import Scene
    from edgelathe.compress.sensitivity.table import Sensitivity
    from edgelathe.core.result import Accuracy

COUNT = 3


@dataclass(frozen=True)
class Together:
    """A model of which several layers are rounded at once; fields as in `sensitivity.Width`, bytes of all weights."""

    accuracy: Accuracy | None
    changed: int | None
    sqnr_db: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """`all` and `kept` of an entry of `keep`."""
        accuracy = self.accuracy.to_json() if self.accuracy else None
        return vars(self) | {"accuracy": accuracy, "sqnr_db": round(self.sqnr_db, 6)}


@dataclass(frozen=True)
class Keep:
    """At one width: all layers rounded, against all but those that lose most alone.

    Attributes:
        bits: of the weights; activations stay float.
        layers: names of those that stay float, worst first.
        everything: all layers rounded.
        kept: all but these.
        macs_share: of the model's multiply-accumulates that stay in float; None where not known.
    """

    bits: int
    layers: tuple[str, ...]
    everything: Together
    kept: Together
    macs_share: float | None

    @property
    def extra_bytes(self) -> int:
        """What keeping them in float costs in the file."""
        return self.kept.bytes - self.everything.bytes

    @property
    def gain(self) -> float | None:
        """What it wins in the metric: how much smaller the drop is."""
        both = [t.accuracy.drop if t.accuracy else None for t in (self.everything, self.kept)]
        return None if both[0] is None or both[1] is None else both[0] - both[1]

    def to_json(self) -> dict[str, Any]:
        """An entry of `keep` in `edgelathe.sensitivity/1`."""
        return {
            "bits": self.bits,
            "layers": list(self.layers),
            "extra_bytes": self.extra_bytes,
            "macs_share": None if self.macs_share is None else round(self.macs_share, 6),
            "gain": None if self.gain is None else round(self.gain, 6),
            "all": self.everything.to_json(),
            "kept": self.kept.to_json(),
        }


def keep(
    found: Sensitivity, widths: Sequence[int], together: Callable[[int, Sequence[str]], Together], count: int = COUNT
) -> tuple[Keep, ...]:
    """For each width, the layers with the least SQNR at the output in float, and both models run on all samples.

    `together`: runs the model with all layers rounded to so many bits but those of some names.
    """
    return tuple(_keep(found, bits, together, count) for bits in widths)


def _keep(found: Sensitivity, bits: int, together: Callable[[int, Sequence[str]], Together], count: int) -> Keep:
    worst = sorted(found.layers, key=lambda la: la.at(bits).sqnr_db)[:count]
    names = tuple(la.layer for la in worst)
    shares = [la.macs_share for la in worst]
    share = None if None in shares else sum(s for s in shares if s is not None)
    everything, kept = (together(bits, out) for out in ((), names))
    return Keep(bits, names, everything, kept, share)


def run_together(scene: Scene, bits: int, out: Sequence[str]) -> Together:
    """The ONNX model with all layers rounded but `out`, on all samples."""
    constants: dict[str, NDArray[np.float32]] = {}
    size = 0
    for layer in scene.layers:
        size += layer.bytes(None if layer.name in out else bits)
        if layer.name not in out:
            constants |= weighted.rounded(layer, bits, scene.means[layer.source])
    answer = whole(scene.float, Change(constants))
    output = answer.db(scene.float.outputs)
    return Together(
        scene.accuracy(answer.first), scene.changed(answer.first), EXACT_DB if output is None else output, size
    )
