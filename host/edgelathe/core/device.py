"""What the host knows of a device: the registered target, what the probe answered, how a session runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Target:
    """One reachable machine as the user named it.

    `url` is `local` or `ssh://[user@]host[:port]`; `root` the agent's folder there (None: the default);
    `python` the interpreter that the virtual environment is made from (None: found on the device).
    """

    name: str
    url: str
    root: str | None = None
    python: str | None = None
    profile: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Runtime:
    """An inference runtime found on a device; `name` as in result files."""

    name: str
    version: str
    providers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """What a device is, as its agent answered; `profile` is the one that fits it best.

    `features` are lower-case CPU flags (`avx2`, `avx512_vnni`, `asimddp`, ...), as the kernel names them.
    `extra` keeps every other field of the answer (clocks, temperature, free space, ...).
    """

    name: str
    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    runtimes: tuple[Runtime, ...]
    emulated: bool
    features: frozenset[str] = frozenset()
    model: str | None = None
    profile: str | None = None
    sensors: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def runtime(self, name: str) -> Runtime | None:
        """The runtime of that name, if the device has it."""
        return next((r for r in self.runtimes if r.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The fields of `edgelathe.probe/1`, without its `schema`."""
        doc = asdict(self)
        doc["features"] = sorted(self.features)
        doc["runtimes"] = [{**asdict(r), "providers": list(r.providers)} for r in self.runtimes]
        doc["sensors"] = [dict(s) for s in self.sensors]
        extra = doc.pop("extra")
        return {**extra, **doc}


@dataclass(frozen=True)
class SessionOptions:
    """How a model runs: what is measured is what is to be deployed.

    `runtime` is `onnxruntime`, `tflite-runtime`, `ai-edge-litert` or `tensorrt`; `config` holds the runtime's own
    session entries, as text, and those of its execution provider as `provider.NAME`. `cpus` are the numbers of the
    CPUs that it may run on; none: any.
    """

    runtime: str
    provider: str
    threads: int = 1
    config: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The `options` of a candidate: provider, threads, config, and cpus where it is bound to some."""
        bound = {"cpus": list(self.cpus)} if self.cpus else {}
        return {"provider": self.provider, "threads": self.threads, "config": dict(self.config), **bound}

    @classmethod
    def from_json(cls, runtime: str, doc: Mapping[str, Any]) -> SessionOptions:
        """The inverse of `to_json`."""
        return cls(runtime, doc["provider"], doc["threads"], doc["config"], tuple(doc.get("cpus", ())))
