"""A compressed model that no longer answers: said at once, with the reason, and not found out on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.compress.tflite.explain import explain
from edgelathe.core.signature import NOT_NUMBERS

if TYPE_CHECKING:
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model
    from edgelathe.recipes.run import Built

_GLANCE = 32  # samples


def warning(model: Model, built: Built, data: Dataset | None) -> str:
    """Why the model is no better than chance on a few calibration samples; "" where it is, or there are none.

    The whole explanation is made only where it is needed.
    """
    if data is None or built.model.sha256 == model.sha256 or model.signature.inputs != built.model.signature.inputs:
        return ""
    if model.signature.outputs[0].dtype in NOT_NUMBERS:
        return ""
    if not explain(model, built.model, data, samples=_GLANCE, layers=False).chance:
        return ""
    found = explain(model, built.model, data, built.config, layers=not model.external)
    said = f"{found.changed} of {found.n} answers changed" if found.changed is not None else "outputs are not numbers"
    return f"the model fell to chance on calibration samples: {said}; {found.sentence()}"
