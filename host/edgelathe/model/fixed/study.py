"""What a simulation says about a model: `edgelathe.simulate/1`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelathe.core.errors import UserError
from edgelathe.model.fixed.errors import Sums
from edgelathe.model.fixed.predictions import Classification, Regression, classification, regression
from edgelathe.model.fixed.prepare import is_float
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.fixed.prepare import Wanted
    from edgelathe.model.fixed.simulate import Simulation
    from edgelathe.model.fixed.types import LayerError
    from edgelathe.model.types import Model


@dataclass(frozen=True, eq=False)
class Study:
    """A simulation, scored.

    Attributes:
        metric: of the dataset.
        exact: the metric of the float model; `simulated`: that in fixed point.
        n: samples.
        output: errors of the first output.
        classification: for metrics of classes, `regression` for others or where a function was asked for.
    """

    metric: str
    exact: float
    simulated: float
    n: int
    output: Sums
    classification: Classification | None
    regression: Regression | None
    layers: tuple[LayerError, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of the document that are about errors."""
        return {
            "metric": self.metric,
            "float": self.exact,
            "simulated": self.simulated,
            "samples": self.n,
            "error": {
                "mse": self.output.mse,
                "sqnr_db": self.output.sqnr_db,
                "cosine": self.output.cosine,
                "classification": self.classification and self.classification.to_json(),
                "regression": self.regression and self.regression.to_json(),
            },
            "layers": [asdict(layer) for layer in self.layers],
        }


def study(found: Simulation, data: Dataset, function: str | None = None) -> Study:
    """Score a simulation by the dataset's metric; without labels by agreement with the float model.

    `function` is f of the regression error, a name or `module:function`. Raises UserError where outputs are NaN or
    labels do not fit.
    """
    folder = Path(data.name).parent
    metric = metrics.load_metric(data.metric, folder)
    wanted = metrics.targets(metric, data.labels, found.exact)
    exact, simulated = (_value(metric, outputs, wanted, data.name) for outputs in (found.exact, found.real))
    output = Sums()
    output.add(found.exact, found.real)
    by_class = classification(found.exact, found.real, data.labels) if metric.classes else None
    by_value = None
    if function is not None or not metric.classes:
        by_value = regression(found.exact, found.real, function or "identity", folder)
    return Study(metric.name, exact, simulated, len(found.real), output, by_class, by_value, found.layers)


def document(scored: Study, path: str, model: Model, wanted: Wanted, recipe: str | None) -> dict[str, Any]:
    """`edgelathe.simulate/1`. `path` and `model`: what was given and what was run; `recipe`: what lies between."""
    arithmetic = wanted.arithmetic
    return {
        "schema": "edgelathe.simulate/1",
        "model": path,
        "format": model.format,
        "sha256": model.sha256,
        "recipe": recipe,
        "against": "float model" if recipe or is_float(model) else "the same model without rounding",
        "arithmetic": {
            "weights": wanted.bits.weights,
            "activations": wanted.bits.activations,
            "accumulator": arithmetic.accumulator,
            "accumulator_wide": arithmetic.wide,
            "overflow": arithmetic.overflow,
            "kernels": "saturating" if wanted.narrow else arithmetic.kernels,
            "rounding": arithmetic.rounding,
        },
        **scored.to_json(),
    }


def _value(metric: metrics.Metric, outputs: NDArray[Any], targets: NDArray[Any], where: str) -> float:
    try:
        return metrics.evaluate(metric, outputs, targets, where).value
    except metrics.OutputError as e:
        raise UserError(where, str(e), "check the model: an activation may have overflowed") from e
