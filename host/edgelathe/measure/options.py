"""How a model is run on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgelathe.core.device import Probe, SessionOptions
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.profile import Profile, runtimes_for
from edgelathe.device.open import Device
from edgelathe.measure import affinity
from edgelathe.model import metadata
from edgelathe.model.types import Model
from edgelathe.recipes.ready import choose_session, from_text
from edgelathe_agent.protocol import RUNTIMES


def options_of(model: Model, profile: Profile, device: Device, threads: int | None) -> SessionOptions:
    """How a model is run: as its metadata ask, where the device has that runtime, else the profile's first way."""
    first = choose_session(profile, model.format, device.probe, threads)
    text = metadata.read(model, metadata.SESSION)
    if text is None:
        return first
    wanted = from_text(text)
    runtime = device.probe.runtime(wanted.runtime)
    if runtime is None or (runtime.providers and wanted.provider not in runtime.providers):
        return first
    return replace(wanted, threads=threads or wanted.threads)


def changed(
    options: SessionOptions, model: Model, profile: Profile, probe: Probe, *,
    threads: int | None = None, cpus: str | None = None, runtime: str | None = None, provider: str | None = None,
    config: Mapping[str, str] | None = None,
) -> SessionOptions:  # fmt: skip
    """The options with what the user asked for in their place.

    A runtime is taken as the profile has it, else with its plain CPU provider. Raises UserError for a runtime of
    another format, and for a runtime, provider or CPU that the device does not have.
    """
    if runtime is not None and runtime != options.runtime:
        options = _with_runtime(runtime, model, profile, probe, provider)
    there = probe.runtime(options.runtime)
    if provider is not None:
        known = there.providers if there else ()
        if known and provider not in known:
            what = f"{options.runtime} on {probe.name} has no provider '{provider}'"
            raise UserError("--provider", what, nearest(provider, known))
        options = replace(options, provider=provider)
    return replace(
        options,
        threads=threads or options.threads,
        cpus=affinity.cpus(cpus, probe) if cpus else options.cpus,
        config={**options.config, **(config or {})},
    )


def _with_runtime(runtime: str, model: Model, profile: Profile, probe: Probe, provider: str | None) -> SessionOptions:
    row, there = RUNTIMES.get(runtime), probe.runtime(runtime)
    if row is None:
        raise UserError("--runtime", f"no runtime '{runtime}'", nearest(runtime, RUNTIMES))
    if there is None:
        installed = ", ".join(r.name for r in probe.runtimes) or "none"
        mend = f"there: {installed}; {_source(runtime, probe)}"
        raise UserError("--runtime", f"{probe.name} has no {runtime}", mend)
    if row.format != model.format:
        raise UserError("--runtime", f"{runtime} takes {row.format} models, not {model.format}", "leave it out")
    rows = [c for c in runtimes_for(profile, model.format, probe) if c.runtime == runtime]
    chosen = next((c for c in rows if provider in (None, c.provider)), None)
    if chosen:
        return SessionOptions(runtime, chosen.provider, chosen.threads, dict(chosen.config))
    plain = next((p for p in there.providers if "CPU" in p), there.providers[0] if there.providers else "CPU")
    return SessionOptions(runtime, provider or plain)


def _source(runtime: str, probe: Probe) -> str:
    """Where a runtime comes from."""
    if RUNTIMES[runtime].program:
        return "it comes with the board's system"
    return f"pip install {runtime}" if probe.name == "local" else f"`edgelathe device install {probe.name}`"
