"""That a model's answers can be measured: said of the model, before a device is asked for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.core.dataset_bind import check_answer, no_samples_axis
from edgelathe.core.errors import UserError
from edgelathe.measure.inputs import random_inputs
from edgelathe.model import run

if TYPE_CHECKING:
    from edgelathe.model.types import Model


def check(model: Model, where: object) -> None:
    """All outputs are arrays of numbers, with an axis of samples where several go into a call. Raises UserError.

    `where` names the model in messages. A fixed length of axis 0 above 1 counts samples; outputs of another length say
    that it does not. What a file declares of outputs may be missing or stale: where it differs, the model is run.
    """
    for info in model.signature.outputs:
        check_answer(info, where)
    batch = run.batch_size(model.signature)
    if batch == 1 or all(info.shape[:1] == (batch,) for info in model.signature.outputs):
        return
    if not _by_samples(model, batch):
        longest = next(info for info in model.signature.inputs if info.shape[:1] == (batch,))
        raise no_samples_axis(longest, where)


def _by_samples(model: Model, batch: int) -> bool:
    """Whether each output of a call on random inputs has `batch` rows; also where this host cannot run the model."""
    try:
        found = run.session(model)(random_inputs(model.signature, 0, samples=1))
    except UserError:  # the device may, on other inputs
        return True
    return all(o.shape[:1] == (batch,) for o in found)
