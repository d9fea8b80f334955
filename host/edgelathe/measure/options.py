"""How a model is run on a device."""

from __future__ import annotations

from dataclasses import replace

from edgelathe.core.device import SessionOptions
from edgelathe.core.profile import Profile
from edgelathe.device.open import Device
from edgelathe.model import metadata
from edgelathe.model.types import Model
from edgelathe.recipes.ready import choose_session, from_text


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
