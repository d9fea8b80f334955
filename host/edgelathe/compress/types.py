"""What every transform takes and gives, and the row that makes it a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model.types import Model

#: Operators with weights that are multiplied, by format.
LINEAR = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
LINEAR_TFLITE = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"))

#: All of ONNX whose weights some step changes.
WEIGHTED = LINEAR | {"LSTM", "GRU", "RNN", "Gather"}


@dataclass(frozen=True)
class Note:
    """What a step did to one layer, or why not. `layer` is the original node's name."""

    layer: str
    done: bool
    what: str = ""


@dataclass(frozen=True)
class Applied:
    """The new model and a note per layer that the step looked at.

    `config` holds runtime session entries that the new model wants (ONNX Runtime's names and values).
    `twin`: the float model in the very form that was quantized, channels rescaled and operators rewritten, so that its
    layers make what those of `model` make but for rounding; None: that is the model which the step was given.
    `chosen`: options that the step chose by a search, by layer, for every layer that it could choose them for. As
    overrides of the recipe they give the same model without the search.
    """

    model: Model
    notes: tuple[Note, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    twin: Model | None = None
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a step may ask for beside its options.

    Attributes:
        data: calibration samples, preprocessed and bound to the model; None where the user gave none.
        overrides: per-layer options of the recipe, `{layer name or glob: {option: value}}`; `skip = true` leaves the
            layer as it is.
        seed: of every random choice, so that a recipe replays.
        reference: the model that the recipe began with; None where the step is run on its own.
        twin: the float form that the model was quantized from (`Applied.twin`); None where nothing was quantized yet.
    """

    data: Dataset | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    reference: Model | None = None
    twin: Model | None = None

    def samples(self, step: str) -> Dataset:
        """The calibration samples. Raises UserError, naming the step, where there are none."""
        if self.data is None or not len(self.data):
            raise UserError(step, "needs calibration data", "give them with --data")
        return self.data

    def original(self, step: str) -> Model:
        """`reference`. Raises UserError, naming the step, where it is run on its own."""
        if self.reference is None:
            raise UserError(step, "no step before it has changed the model", f"write it behind one, as in int8+{step}")
        return self.reference

    def quantized_from(self, step: str) -> Model:
        """`twin`. Raises UserError, naming the step, where nothing was quantized yet."""
        if self.twin is None:
            raise UserError(
                step, "no step before it has quantized the model", f"write it behind one, as in int8+{step}"
            )
        return self.twin


def option(
    default: Any,
    text: str,
    *,
    choices: Sequence[Any] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field of an options dataclass, with what recipe check, `--help` and the reference docs need.

    `default=None` is an open choice that the step's `resolve` fills from the hardware.
    """
    return dataclasses.field(
        default=default, metadata={"text": text, "choices": tuple(choices), "low": low, "high": high}
    )


def keep(options: Any, _: Hardware) -> Any:
    """The `resolve` of a step without open choices."""
    return options


@dataclass(frozen=True)
class StepSpec:
    """One step for one format.

    Attributes:
        text: one line of help.
        options: a frozen dataclass whose fields are made by `option`.
        apply: `(model, options, context) -> Applied`; pure and deterministic.
        needs: `data` where calibration samples are required.
        after: steps that are run before this one unless the recipe already has them.
        resolve: fills open choices (None) from the hardware.
        ops: operators whose layers the step can change, by the format's names; shown by `inspect`.
        final: the result takes no further step that changes weights (integer models).
        gives_twin: `Applied.twin` is set wherever the model was changed; what the step was given need not be kept.
        corrects: it corrects what steps before it did, and may follow a final one.
        large: it takes models whose weights no protobuf holds (`Model.external`).
        float32: it changes weights in float32 alone.
    """

    text: str
    options: type[Any]
    apply: Callable[[Model, Any, Context], Applied]
    needs: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    resolve: Callable[[Any, Hardware], Any] = keep
    ops: frozenset[str] = frozenset()
    final: bool = False
    gives_twin: bool = False
    corrects: bool = False
    large: bool = False
    float32: bool = False
