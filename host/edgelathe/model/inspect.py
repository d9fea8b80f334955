"""What is in a model: signature, parameters, multiply-accumulates, and each layer's share of the file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgelathe.model.graph import Layer, layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgelathe.core.signature import Signature, TensorInfo
    from edgelathe.model.types import Model


@dataclass(frozen=True)
class Inspection:
    """A model taken apart. `steps` names, by operator, the steps that can change such a layer."""

    name: str
    format: str
    bytes: int
    signature: Signature
    layers: tuple[Layer, ...]
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Weights of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample, as far as they are known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Layers whose multiply-accumulates depend on an open axis, and are not in `macs`."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)

    def to_json(self) -> dict[str, Any]:
        """`edgelathe.inspect/1`: sizes in bytes, shares as fractions of the file; `macs` of a layer may be null."""
        return {
            "schema": "edgelathe.inspect/1",
            "name": self.name,
            "format": self.format,
            "bytes": self.bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "macs_unknown": list(self.unknown),
            "inputs": [_tensor(t) for t in self.signature.inputs],
            "outputs": [_tensor(t) for t in self.signature.outputs],
            "layers": [self._layer(layer) for layer in self.layers],
            "steps": sorted({s for layer in self.layers for s in self.steps.get(layer.op, ())}),
        }

    def _layer(self, layer: Layer) -> dict[str, Any]:
        return asdict(layer) | {
            "inputs": list(layer.inputs),
            "outputs": list(layer.outputs),
            "shape": None if layer.shape is None else list(layer.shape),
            "share": layer.bytes / self.bytes,
            "steps": list(self.steps.get(layer.op, ())),
        }


def inspect(model: Model, steps: Mapping[str, tuple[str, ...]] | None = None) -> Inspection:
    """Take a model apart. `steps` by operator come from the layer that knows them."""
    return Inspection(model.name, model.format, model.bytes, model.signature, layers(model), steps or {})


def _tensor(info: TensorInfo) -> dict[str, Any]:
    doc: dict[str, Any] = {"name": info.name, "shape": list(info.shape), "dtype": info.dtype}
    return doc if info.scale is None else doc | {"scale": info.scale, "zero_point": info.zero_point}
