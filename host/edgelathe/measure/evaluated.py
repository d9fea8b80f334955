"""One model's outputs over a data set, kept on the host block by block: what is cut off goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.measure.early import Answer, Ask, answered
from edgelathe.measure.partial import Partial
from edgelathe.measure.stream import stream
from edgelathe.model import run
from edgelathe.model.types import Model

Array = NDArray[np.generic]


class BadOutputError(UserError):
    """A model ran, and what came out are no numbers that could be scored."""

    kind = "outputs"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What one model answered.

    Attributes:
        options: what its session was.
        raw: its first output [n, ...] as stored, of as many samples as were measured.
        ended: how it ended; `continue`: with the last sample, or cut off.
        warnings: of the session, and what was taken up.
        partial: what is on disk, to be removed once nobody needs it.
        interrupted: the user stopped it; `raw` holds what was there by then.
    """

    options: SessionOptions
    raw: Array
    ended: Answer
    warnings: tuple[str, ...]
    partial: Partial
    interrupted: bool = False


def evaluated(
    device: Device, model: Model, how: SessionOptions, data: Dataset, ask: Ask | None, *,
    fresh: bool = False, require_provider: str | None = None,
    tick: Callable[[int, int], None] = lambda done, n: None,
) -> Evaluated:  # fmt: skip
    """Run a model on every sample, or until `ask` is answered, or the user stops it.

    Args:
        device: an open one.
        model: as it runs there.
        how: how it runs there.
        data: bound to the model.
        ask: from `early.settled`; None: nothing is asked.
        fresh: do not take up what was cut off.
        require_provider: a session on another one is a failure.
        tick: told how many of the n samples are done.

    Raises:
        ModelFailure: the device cannot run it. KeyboardInterrupt: stopped before the first sample.
    """
    n = len(data)
    with device.open_session(model, how, require_provider=require_provider) as session:
        partial = Partial(_key(device, model, how, session.version, data))
        if fresh:
            partial.remove()
        parts = partial.load()
        begun = sum(map(len, parts))
        taken_up = (f"{begun:,} of {n:,} samples were measured before it was cut off",) if begun else ()
        ran = replace(how, provider=session.provider)
        warnings = (*taken_up, *session.warnings)
        if partial.ended and parts:
            raw = np.concatenate(parts)
            return Evaluated(ran, raw, ask(raw) if ask and len(raw) < n else "continue", warnings, partial)

        def hear(block: Array, done: int) -> None:
            partial.append(block)
            parts.append(block)
            tick(done, n)

        batch = run.batch_size(model.signature)
        blocks = stream(session, data.inputs, batch=batch, first=begun, forget=device.forget)
        try:
            raw, ended = answered(blocks, n, ask, before=tuple(parts), hear=hear)
        except KeyboardInterrupt:
            if not parts:
                raise
            return Evaluated(ran, np.concatenate(parts), "continue", warnings, partial, interrupted=True)
    partial.end()
    return Evaluated(ran, raw, ended, warnings, partial)


def failed(name: str, model: Model, how: SessionOptions, why: ModelFailure | BadOutputError | None) -> dict[str, Any]:
    """The result of a model that could not be evaluated; None: the user stopped it before its first sample."""
    error = ("interrupted", "stopped before it was measured", "run it again")
    kind, what, mend = error if why is None else (why.kind, why.what, why.mend)
    return {
        "model": name, "format": model.format, "runtime": how.runtime, "options": how.to_json(),
        "accuracy": None, "parity": None, "error": {"kind": kind, "what": what, "mend": mend}, "warnings": [],
    }  # fmt: skip


def _key(device: Device, model: Model, how: SessionOptions, version: str, data: Dataset) -> dict[str, object]:
    probe = device.probe
    where = [device.target.url, probe.machine, probe.cpu]
    ran = {"runtime": how.runtime, "version": version, **how.to_json()}
    return {"model": model.sha256, "data": data.sha256, "device": where, "session": ran}
