"""`bench` and `eval`: measure models on a device without changing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edgelathe.cli.shell import DeviceOption, ProfileOption, Shell, command

if TYPE_CHECKING:
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.model.types import Model

app = typer.Typer()

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX or TFLite files.", show_default=False)]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads, instead of the profile's.")]


@command(app)
def bench(
    shell: Shell,
    models: Models,
    device: DeviceOption = "local",
    data: Annotated[str | None, typer.Option(metavar="D", help="Run on these samples, not on random ones.")] = None,
    threads: Threads = None,
    profile: ProfileOption = None,
    min_time: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds to measure each model at least.")
    ] = 2.0,
    max_time: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds to measure each model at most.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order of blocks and of random inputs.")] = 0,
) -> None:
    """Measure and compare latencies on a device.

    Several models are timed in turns and compared in pairs. Warm-up until the series is steady, then blocks in random
    order, so that drift of the machine hits all models alike.
    """
    from edgelathe.core import dataset
    from edgelathe.measure.bench import bench_document
    from edgelathe.measure.interleave import BenchPlan

    samples = dataset.load(data) if data else None
    plan = BenchPlan(min_ms=min_time * 1000, max_ms=max(max_time, min_time) * 1000)
    with _opened(shell, models, device, profile, threads) as (on, loaded, options, said), shell.progress() as bar:
        document = bench_document(on, loaded, options, samples, plan, remarks=said, seed=seed, tick=bar.move)
    shell.answer(document)


@command(app, "eval")
def eval_(
    shell: Shell,
    models: Models,
    data: Annotated[str, typer.Option(metavar="D", help="Samples and labels.")],
    device: DeviceOption = "local",
    threads: Threads = None,
    profile: ProfileOption = None,
) -> None:
    """Measure accuracy on a device.

    Also tells whether its answers are those of this host. Samples are preprocessed here, so that host and device see
    the same bytes.
    """
    from edgelathe.core import dataset
    from edgelathe.measure.accuracy import eval_document

    samples = dataset.load(data)
    with _opened(shell, models, device, profile, threads) as (on, loaded, options, said), shell.progress() as bar:
        document = eval_document(on, loaded, options, samples, remarks=said, tick=bar.move)
    shell.answer(document)


class Opened(NamedTuple):
    """An open device, the models with their names, how each runs there, and what is to be said about that."""

    device: Device
    models: list[tuple[str, Model]]
    options: list[SessionOptions]
    remarks: tuple[str, ...]


@contextmanager
def _opened(shell: Shell, models: list[str], device: str, profile: str | None, threads: int | None) -> Iterator[Opened]:
    """The device with the models loaded (before it is asked for anything) and how each is to run there."""
    from edgelathe.core import profile as profiles
    from edgelathe.device.open import open_device
    from edgelathe.measure.options import options_of
    from edgelathe.model import io
    from edgelathe.recipes.ready import remarks

    loaded = [(name, io.load(Path(name))) for name in models]
    named = profiles.load(profile) if profile else None
    with shell.store() as store:
        target = shell.target(device, store)
    with open_device(target, ssh_config=shell.ssh_config) as opened:
        chosen = named or profiles.choose(target.profile, opened.probe)
        said = [text for _, model in loaded for text in remarks(chosen, model.format, opened.probe)]
        options = [options_of(model, chosen, opened, threads) for _, model in loaded]
        yield Opened(opened, loaded, options, tuple(dict.fromkeys(said)))
