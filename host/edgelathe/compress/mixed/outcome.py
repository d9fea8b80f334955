"""What a finished model is worth on calibration samples, those first that no fit has seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph.fold import infer_shapes
from edgelathe.compress.sensitivity.errors import Error
from edgelathe.compress.types import Note
from edgelathe.compress.weights import problems
from edgelathe.core import dataset
from edgelathe.core.device import SessionOptions
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from edgelathe.stats import metrics

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

_FEWEST, _MOST = 16, 64  # samples outside of the fit
# Integers computed as the floats that they stand for: the same on every machine.
_PLAIN = SessionOptions("onnxruntime", "CPUExecutionProvider", config={"session.disable_quant_qdq": "1"})


def answers(model: Model, made: Model, data: Dataset, held: Dataset) -> Note:
    """What the result is worth on samples that no rounding was fitted to; where there are few of them, on `held`."""
    fitted = problems.count_of(_shaped(model), data)
    unseen = np.setdiff1d(np.arange(len(data)), dataset.spread(len(data), fitted))
    said = "samples outside of the fit" if len(unseen) >= _FEWEST else "samples of the fit itself, which flatter it"
    if len(unseen) >= _FEWEST:
        held = dataset.take(data, unseen[dataset.spread(len(unseen), _MOST)])
    want, have = run.outputs(model, held.inputs)[0], run.outputs(made, held.inputs, _PLAIN)[0]
    text = f"in integers: {Error.of(want, have).db:.1f} dB at the output of {len(held)} {said}"
    if metrics.load_metric(held.metric, Path(held.name).parent).classes and want.size > len(want):
        changed = (want.reshape(len(want), -1).argmax(1) != have.reshape(len(have), -1).argmax(1)).sum()
        text += f", {changed} answers changed"
    return Note("model", True, text)


def _shaped(model: Model) -> ir.Model:
    found = onnx_model.to_ir(model)
    infer_shapes(found)
    return found
