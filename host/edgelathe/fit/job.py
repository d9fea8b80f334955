"""What the user asked of one `fit`, complete and plain, so that it can be kept and resumed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgelathe.core.errors import UserError, nearest

_PATHS = ("model", "data", "calib", "out")


@dataclass(frozen=True)
class Job:
    """The options of a `fit`; paths are absolute.

    `max_time` is in seconds; `threads` overrides the profile's; `device` is `local`, a registered name or an ssh URL.
    `period` and `sustain` are durations such as `33ms`, for `latency.paced` and `latency.sustained`; `rail` names the
    sensor and `meter` the command that `energy` is measured by; `tune` makes the device quiet meanwhile;
    `call_limit` is a duration in which a model has to answer.
    """

    model: str
    data: str
    budget: tuple[str, ...]
    out: str
    calib: str | None = None
    profile: str | None = None
    device: str = "local"
    recipe: tuple[str, ...] = ()
    threads: int | None = None
    max_trials: int | None = None
    max_time: float | None = None
    require_provider: str | None = None
    lenient: bool = False
    allow_emulated: bool = False
    period: str | None = None
    sustain: str | None = None
    rail: str | None = None
    meter: str | None = None
    tune: bool = False
    call_limit: str | None = None
    force: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budget:
            raise UserError("fit", "no budget", "give limits, as in --budget 'size<=0.5x' --budget 'accuracy.drop<=1%'")
        for name in ("threads", "max_trials", "max_time"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"fit: {name}", f"{value} is not positive", "give more than 0")

    def to_json(self) -> dict[str, Any]:
        """Every field, for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Job:
        """The inverse of `to_json`."""
        return cls(**{**doc, "budget": tuple(doc["budget"]), "recipe": tuple(doc["recipe"])})


def absolute(options: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The options that are given (not None), their relative paths seen from `base`."""
    given = {k: v for k, v in options.items() if v is not None}
    for name in _PATHS:
        if name in given:
            given[name] = str((base / Path(given[name]).expanduser()).resolve())
    for name in ("profile", "recipe"):
        if name in given:
            given[name] = _files(given[name], base)
    return given


def make(given: Mapping[str, Any]) -> Job:
    """A job from its options. Raises UserError naming what is missing."""
    for name, example in (("model", "model.onnx"), ("data", "--data eval.npz"), ("out", "-o out")):
        if name not in given:
            raise UserError(f"fit: {name}", "is missing", f"give it, as in {example}")
    return Job(**{**given, **{k: tuple(given.get(k, ())) for k in ("budget", "recipe")}})


def read(path: Path) -> dict[str, Any]:
    """The options in a FIT.toml, named as on the command line. Raises UserError naming the key at fault."""
    try:
        doc = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UserError(path, f"cannot be read: {e}", "give a TOML file with model, data, budget and out") from None
    kinds = {f.name: _KINDS[str(f.type)] for f in fields(Job)}
    doc = {key.replace("-", "_"): value for key, value in doc.items()}
    for key, value in doc.items():
        if key not in kinds:
            raise UserError(path, f"unknown key '{key}'", nearest(key, kinds))
        kind, words = kinds[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{path}: {key}", f"{value!r} is not {words}", f"give {words}")
        if kind is list and not all(isinstance(v, str) for v in value):
            raise UserError(f"{path}: {key}", "holds more than texts", f"give {words}")
    return absolute(doc, path.resolve().parent)


_KINDS: Mapping[str, tuple[Any, str]] = {
    "str": (str, "a text"),
    "str | None": (str, "a text"),
    "tuple[str, ...]": (list, "a list of texts"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float | None": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}


def _files(value: Any, base: Path) -> Any:
    """Names stay, `.toml` files become absolute."""
    if isinstance(value, str):
        return str((base / Path(value).expanduser()).resolve()) if value.endswith(".toml") else value
    return tuple(_files(v, base) for v in value)
