"""Everything that a `fit` needs, checked before a device is asked for anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgelathe.core import budget, dataset
from edgelathe.core.budget import Limit
from edgelathe.core.dataset import Dataset
from edgelathe.core.duration import milliseconds
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.profile_types import RUNTIMES
from edgelathe.core.recipe import Recipe
from edgelathe.device.session import CALL_SECONDS
from edgelathe.fit.beside import Asked
from edgelathe.fit.job import Job
from edgelathe.measure import answers
from edgelathe.model import io
from edgelathe.model.types import Model
from edgelathe.recipes import read
from edgelathe.stats import metrics
from edgelathe.stats.metrics import Metric

PROVIDERS = frozenset(provider for _, providers in RUNTIMES.values() for provider in providers)

#: What a limit on these needs to know.
_DURATIONS = {"latency.paced": ("period", "33ms"), "latency.sustained": ("sustain", "5min")}


@dataclass(frozen=True)
class Setup:
    """A job with its files read, bound to the model and checked."""

    job: Job
    model: Model
    data: Dataset
    calib: Dataset
    metric: Metric
    limits: tuple[Limit, ...]
    recipes: tuple[tuple[str, Recipe], ...]
    holdout: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    asked: Asked = field(default_factory=Asked)
    call_seconds: float = CALL_SECONDS


def setup(job: Job) -> Setup:
    """Read and check all that the job names. Raises UserError naming the file or option at fault."""
    limits = budget.parse_all(job.budget)
    asked = Asked(limits, *_durations(job, limits), job.rail, job.meter)
    patience = milliseconds(job.call_limit, "--call-limit", bare="s") / 1e3 if job.call_limit else CALL_SECONDS
    if job.require_provider and job.require_provider not in PROVIDERS:
        raise UserError(
            "--require-provider", f"no provider '{job.require_provider}'", nearest(job.require_provider, PROVIDERS)
        )
    if "-" in (Path(job.model).name, Path(job.data).name):
        raise UserError("fit", "reads no stream, so that it can be resumed", "give files")
    recipes = tuple((text, read.read(text)) for text in job.recipe)
    model = io.load(Path(job.model))
    where = Path(job.model).name
    answers.check(model, where)
    raw = dataset.load(job.data)
    warnings: list[str] = []
    if job.calib is None:
        calib_at, eval_at, rule = dataset.holdout(raw)
        calib, data = dataset.take(raw, calib_at), dataset.take(raw, eval_at)
        warnings.append(
            f"no --calib: {len(calib)} of the {len(raw)} samples of {raw.name} are for calibration, not evaluated on"
        )
    else:
        calib, data, rule = dataset.load(job.calib), raw, {}
    data = dataset.bind(data, model.signature, where)
    calib = dataset.bind(calib, model.signature, where)
    warnings += dataset.compare(calib, data)
    metric = metrics.load_metric(data.metric, Path(job.data).parent)
    budget.suit(limits, metric.name, metric.unit, metric.better)
    return Setup(job, model, data, calib, metric, limits, recipes, rule, tuple(warnings), asked, patience)


def _durations(job: Job, limits: tuple[Limit, ...]) -> tuple[float, float]:
    """`period` and `sustain` in ms, 0 where no limit needs them. Raises UserError for one that is missing or idle."""
    found = []
    for metric, (option, example) in _DURATIONS.items():
        text = getattr(job, option)
        asked = next((limit for limit in limits if limit.metric == metric), None)
        if asked and text is None:
            raise UserError(f"budget '{asked.expr}'", f"--{option} is not given", f"add it, as in --{option} {example}")
        if text is not None and not asked:
            raise UserError(f"--{option}", f"no limit is on {metric}", f"add one, or leave --{option} out")
        found.append(milliseconds(text, f"--{option}") if text is not None else 0.0)
    if not any(limit.metric == "energy" for limit in limits) and (job.rail or job.meter):
        raise UserError("--meter" if job.meter else "--rail", "no limit is on energy", "add one, or leave it out")
    return found[0], found[1]
