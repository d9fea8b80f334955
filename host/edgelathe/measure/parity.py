"""Whether a device answers as this host does, and why not where it does not."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.integer.int8 import is_narrow_x86
from edgelathe.core.errors import UserError
from edgelathe.core.profile_types import Hardware, normalize
from edgelathe.core.provider_options import of_provider, of_runtime
from edgelathe.model import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgelathe.core.device import Probe, SessionOptions
    from edgelathe.model.types import Model

Array = NDArray[np.generic]

_ON = ("1", "True", "true")


@dataclass(frozen=True)
class Parity:
    """Outputs on the device against those on this host, over the first `n` samples.

    Attributes:
        same, flips: samples whose decision (the largest output) is the same, and is another; None where the outputs
            decide nothing.
        exact: samples with the same output to the last bit.
        max_abs: largest difference of an output, in its stored unit.
        mean_abs: mean of each sample's largest difference.
        first_flip: number of the first sample whose decision flips.
        reference: what ran here.
        missing: what ran on the device and cannot here, so that `reference` stands in for it; empty: it is the same.
        why: what is known to make such a difference; empty where nothing is.
    """

    n: int
    same: int | None
    flips: int | None
    exact: int
    max_abs: float
    mean_abs: float
    first_flip: int | None
    reference: str
    missing: str = ""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """The `parity` of `edgelathe.eval/1`."""
        return asdict(self)


def parity(
    model: Model, inputs: Mapping[str, Array], how: SessionOptions, outputs: Array, probe: Probe, *, decides: bool
) -> Parity | None:
    """Run the same samples here, with the same runtime and options or with what stands in for them, and compare.

    Args:
        model: as it ran on the device.
        inputs: n samples per model input.
        how: how it ran there.
        outputs: [n, ...], its first output there.
        probe: of the device.
        decides: whether the largest output is an answer.

    Gives None where nothing here runs such a model.
    """
    here = reference(model, how)
    if here is None:
        return None
    host = run.outputs(model, inputs, here)
    n = len(outputs)
    mine, theirs = host[0].reshape(n, -1), outputs.reshape(n, -1)
    alike = mine == theirs
    with np.errstate(invalid="ignore"):  # where both are infinite
        apart = np.where(alike, 0.0, np.abs(mine.astype(np.float64) - theirs.astype(np.float64))).max(1, initial=0.0)
    flipped = mine.argmax(1) != theirs.argmax(1) if decides and mine.shape[1] > 1 else None
    flips = None if flipped is None else int(flipped.sum())
    return Parity(
        n=n,
        same=None if flips is None else n - flips,
        flips=flips,
        exact=int(alike.all(1).sum()),
        max_abs=float(apart.max(initial=0.0)),
        mean_abs=float(apart.mean()),
        first_flip=int(flipped.argmax()) if flipped is not None and flips else None,
        reference=f"{_spelled(here)} on {platform.machine()}",
        missing="" if here == how else _spelled(how),
        why=_why(model, how, here, probe) if apart.any() else "",
    )


def reference(model: Model, how: SessionOptions) -> SessionOptions | None:
    """How this host runs what the device ran: alike where it can, else on its CPU; None: not at all.

    A device's GPU is not here, mostly: the host's CPU computes the same function, in another order and precision.
    """
    if run.available(how):
        return how
    try:
        plain = run.default_options(model)
    except UserError:
        return None
    same = how.runtime == plain.runtime
    return replace(plain, threads=how.threads, config=of_runtime(how.config) if same else {})


def remarks(found: Parity | None) -> list[str]:
    """What is to be said of it."""
    if found is None:
        return ["parity is unknown: this host has no runtime for such a model"]
    out = []
    if found.missing:
        out.append(f"this host has no {found.missing}: parity is with {found.reference}, which stands in for it")
    if found.flips:
        why = f": {found.why}" if found.why else ""
        out.append(f"{found.flips} of {found.n} answers differ from this host's{why}")
    return out


def _spelled(how: SessionOptions) -> str:
    return f"{how.runtime} ({how.provider})"


def _why(model: Model, how: SessionOptions, here: SessionOptions, probe: Probe) -> str:
    found = cause(model, this_host(), Hardware(probe.machine, normalize(probe.features), 1))
    if here == how:
        return found
    half = any(k.endswith("fp16_enable") or k == "fp16" for k, v in of_provider(how.config).items() if v in _ON)
    words = "computes in half precision" if half else f"has other kernels than {_spelled(here)}"
    other = f"{_spelled(how)} {words}"
    return f"{other}; {found}" if found else other


def cause(model: Model, host: Hardware, device: Hardware) -> str:
    """What is known to make integer kernels of these two machines differ on this model; empty: nothing.

    On x86 without VNNI a kernel adds two products of uint8 and int8 in saturating 16 bits (VPMADDUBSW), which
    full-range weights overflow; Arm and VNNI add them in 32 bits.
    """
    narrow = [name for name, machine in (("this host", host), ("the device", device)) if is_narrow_x86(machine)]
    if narrow and model.format == "onnx" and _saturates(model):
        return (
            f"uint8 inputs meet int8 weights of full range, whose sums saturate in 16 bits on {' and '.join(narrow)} "
            "(x86 without VNNI): compress with --device, so that the weights fit its kernels"
        )
    if host.machine != device.machine:
        return f"kernels of {host.machine} and {device.machine} add and round in another order"
    return ""


def this_host() -> Hardware:
    """This machine's features, as its kernel lists them; none where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    flags = next((line.partition(":")[2].lower().split() for line in text.splitlines() if line.startswith("flags")), [])
    return Hardware(platform.machine(), normalize(frozenset(flags)), 1)


def _saturates(model: Model) -> bool:
    """Whether int8 weights beyond -64..64 are multiplied with uint8 values somewhere."""
    from edgelathe.model.onnx import to_ir

    graph = to_ir(model).graph
    weights = [v.const_value.numpy() for v in graph.initializers.values() if v.const_value is not None]
    wide = any(w.dtype == np.int8 and w.ndim > 1 and np.abs(w.astype(np.int16)).max(initial=0) > 64 for w in weights)
    return wide and any(w.dtype == np.uint8 and w.ndim == 0 for w in weights)  # zero points of uint8 activations
