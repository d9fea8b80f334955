"""What a class of devices is and can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RuntimeChoice:
    """One way to run models, in the profile's order of preference: runtime, provider, threads, session entries."""

    runtime: str
    provider: str
    threads: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A class of devices. What is fast is a starting guess that measurement overrules.

    Attributes:
        name: as in `--profile`.
        title: in words.
        machine: `uname -m`; None fits any.
        match: regular expressions on the device's board model (device tree), the first that fits makes it a match.
        runtimes: ways to run, in order of preference.
        features: normalized: `sdot i8mm fp16 bf16 avx2 avx512 vnni tensor-cores`.
        fast_dtypes: `float32 float16 int8 int4`, fastest first.
        channel_multiple: widths that fill the vector units are multiples of this.
        memory_bytes: RAM of the smallest device of the class.
        sensors: labels of temperature sensors; rails: labels of power rails.
        recipes: default recipe space by model format.
    """

    name: str
    title: str
    machine: str | None
    match: tuple[str, ...]
    runtimes: tuple[RuntimeChoice, ...]
    features: frozenset[str]
    fast_dtypes: tuple[str, ...]
    channel_multiple: int
    memory_bytes: int
    sensors: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()
    recipes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Hardware:
    """What a recipe's open choices are resolved by: the profile's facts, overruled by the device's own where probed."""

    machine: str | None
    features: frozenset[str]
    channel_multiple: int = 8
