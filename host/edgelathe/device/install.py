"""Putting runtimes on a device, and taking everything away again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from edgelathe.core.errors import DeviceError
from edgelathe.device import wheels
from edgelathe.device.errors import AgentRefusal, ChangedHostKey, ConnectionLost, NoPython, Progress, UnknownHostKey
from edgelathe.device.open import Device, agent_root, connect, open_device
from edgelathe.device.probe import from_answer
from edgelathe.device.transport import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgelathe.core.device import Probe, Target

#: Runtimes that pip installs; others (tensorrt) come with the device's system.
FROM_INDEX = ("onnxruntime", "ai-edge-litert", "tflite-runtime")
#: The older TFLite runtime: the last Python that it was built for, and the numpy that it was built against.
OLD_TFLITE, OLD_TFLITE_PYTHON, OLD_TFLITE_NUMPY = "tflite-runtime", (3, 11), "numpy<2"
_CPU = frozenset({"CPUExecutionProvider", "CPU", "XNNPACK"})
_NO_NETWORK = (
    "NewConnectionError", "ConnectTimeoutError", "Temporary failure in name resolution", "Name or service not known",
    "Network is unreachable",
)  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """What the device can run now, and what is to be said about it."""

    probe: Probe
    notes: tuple[str, ...] = ()


def install(
    target: Target, *, wheels_dir: Path | None = None, ssh_config: Path | None = None, progress: Progress | None = None
) -> Installed:
    """Make an environment with the runtimes of the device's profile under the agent's root.

    From the device's own index: the host's versions where there are such for its Python, else the newest; from
    `wheels_dir`: those wheels of the folder that fit. Raises DeviceError where no runtime can be installed, UserError
    where no wheel fits.
    """
    if target.url == "local":
        with open_device(target, progress=progress) as device:
            note = "the local device runs on this Python: nothing is to be installed"
            return Installed(device.probe, (note,))
    with open_device(target, ssh_config=ssh_config, progress=progress, venv=False) as device:
        base = device.probe
        kept = accelerated(base)
        if kept:
            return Installed(base, (f"{kept} of the device's own Python is kept",))
        names = wanted(base)
        notes = _send(device, wheels_dir, names, progress) if wheels_dir else _fetch(device, names, progress)
        probe = from_answer(device.name, device.client.request("probe").head, target.profile)
    if not probe.runtimes:
        broken = "; ".join(f"{b['name']}: {b['why']}" for b in probe.extra.get("broken") or ())
        mend = "give wheels that fit with --wheels DIR, or another Python with --python PATH"
        raise DeviceError(target.name, f"no runtime can be imported there ({broken or 'none is there'})", mend)
    notes += tuple(f"{b['name']} is there but cannot be imported: {b['why']}" for b in probe.extra.get("broken") or ())
    return Installed(probe, notes)


def uninstall(target: Target, *, ssh_config: Path | None = None, progress: Progress | None = None) -> tuple[str, ...]:
    """Remove everything that edgelathe put on the device; names of other files that were in its root, and stay.

    A device whose environment or Python is broken is cleared by its shell. Raises DeviceError.
    """
    try:
        with open_device(target, ssh_config=ssh_config, progress=progress, venv=False) as device:
            return tuple(device.client.request("wipe").head["left"])
    except (ConnectionLost, UnknownHostKey, ChangedHostKey):
        raise
    except (AgentRefusal, NoPython, DeviceError) as e:
        return _clear(target, ssh_config, e)


def wanted(probe: Probe) -> tuple[str, ...]:
    """Runtimes to install, in the order of the device's profile; of the two for TFLite models only the first."""
    from edgelathe.core import profile

    order = [c.runtime for c in profile.load(probe.profile).runtimes] if probe.profile else list(FROM_INDEX)
    names = [n for n in dict.fromkeys(order) if n in FROM_INDEX]
    tflite = [n for n in names if n != "onnxruntime"]
    return tuple(n for n in names if n not in tflite[1:])


def accelerated(probe: Probe) -> str:
    """A runtime of the plain Python with an accelerator that the profile wants, as makers of boards ship them; else "".

    An environment with the index's own build, which has no such accelerator, would hide it.
    """
    from edgelathe.core import profile

    for choice in profile.load(probe.profile).runtimes if probe.profile else ():
        runtime = probe.runtime(choice.runtime)
        hidden = choice.runtime in FROM_INDEX  # others are found from within an environment too
        if runtime and hidden and choice.provider in runtime.providers and choice.provider not in _CPU:
            return f"{runtime.name} {runtime.version} with {choice.provider}"
    return ""


def attempts(names: Sequence[str], python: tuple[int, int]) -> Iterator[tuple[str, ...]]:
    """Sets of requirements for pip, the best first: the host's versions, any version, the older TFLite runtime, less.

    numpy is pinned for the host's own Python only: elsewhere the version may lack a wheel, and pip would compile it.
    """
    numpy = _pin("numpy") if python == sys.version_info[:2] else "numpy"
    yield (*map(_pin, names), numpy)
    yield (*names, "numpy")
    if "ai-edge-litert" in names and python <= OLD_TFLITE_PYTHON:
        older = tuple(OLD_TFLITE if n == "ai-edge-litert" else n for n in names)
        yield (*older, OLD_TFLITE_NUMPY)
    if len(names) > 1:
        yield from ((name, "numpy") for name in names)


def _pin(name: str) -> str:
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name


def _fetch(device: Device, names: Sequence[str], progress: Progress | None) -> tuple[str, ...]:
    """Let the device's pip install; what is to be said where it is not the first choice."""
    major, minor = device.probe.python.split(".")[:2]
    refused: AgentRefusal | None = None
    for number, requirements in enumerate(attempts(names, (int(major), int(minor)))):
        lines: list[str] = []

        def hear(line: str, lines: list[str] = lines) -> None:
            lines.append(line)
            if progress:
                progress(line)

        try:
            device.client.request("install", {"requirements": list(requirements), "wheels": []}, hear)
        except AgentRefusal as e:
            refused = e
            if e.kind != "install" or not e.what.startswith("pip:"):
                raise
            if any(sign in line for line in lines for sign in _NO_NETWORK):
                mend = "give the device a network, or wheels from here with --wheels DIR"
                raise DeviceError(device.name, "it does not reach its package index", mend) from e
            continue
        missing = [n for n in names if not any(r.startswith(n) for r in requirements)]
        return (f"{', '.join(missing)} could not be installed there",) if number and missing else ()
    assert refused is not None
    raise refused


def _send(device: Device, folder: Path, names: Sequence[str], progress: Progress | None) -> tuple[str, ...]:
    """Send the wheels that fit and let the agent unpack them."""
    chosen = wheels.choose(folder, _offered(folder, names, device.probe), device.probe)
    entries = []
    for path in chosen.wheels:
        if progress:
            progress(f"sending {path.name}")
        entries.append({"name": path.name, "sha256": device.push(path)})
    device.client.request("install", {"requirements": [], "wheels": entries}, progress)
    device.client.request("remove", {"sha256": [e["sha256"] for e in entries]})
    return (f"not in {folder}: {', '.join(chosen.missing)}",) if chosen.missing else ()


def _offered(folder: Path, names: Sequence[str], probe: Probe) -> tuple[str, ...]:
    """What to take from a folder: of each format a runtime that fits, and numpy; the first name where nothing does."""
    there = wheels.fitting(folder, probe)
    usable = [n for n in names if n in there]
    if OLD_TFLITE in there and "ai-edge-litert" in names and "ai-edge-litert" not in there:
        usable.append(OLD_TFLITE)
    return (*(usable or names[:1]), "numpy")


#: Clears a root by the shell: $1 the root, the rest the names that are edgelathe's. Only where its marker stands.
_CLEAR = (
    "r=$1; shift; case $r in [~]|[~]/*) r=$HOME${r#?};; [$]HOME*) r=$HOME${r#?????};; esac; "
    '[ -e "$r" ] || exit 0; cd "$r" || exit 3; r=$(pwd -P); '
    '[ -f agent/.edgelathe ] || { [ -z "$(ls -A .)" ] && cd / && rmdir "$r"; exit $(( $? * 4 )); }; '
    'for n in "$@"; do rm -rf "./$n" || exit 5; done; cd / && rmdir "$r" 2>/dev/null || ls -A "$r"'
)  # fmt: skip
#: All names that the agent makes in its root (edgelathe_agent.tidy.OURS), the marker's folder last.
OURS = ("cas", "engines", "venv", "venv.new", "venvs", "tmp", "tune", "agent")


def _clear(target: Target, ssh_config: Path | None, why: DeviceError) -> tuple[str, ...]:
    transport = connect(target, ssh_config)
    try:
        done = run(transport, ["/bin/sh", "-c", _CLEAR, "sh", agent_root(target), *OURS])
    except TimeoutError:
        raise why from None
    finally:
        transport.close()
    if done.code == 0:
        return tuple(done.out.decode(errors="replace").split("\n")[:-1])
    if done.code == 4:
        mend = "nothing was removed; name the right folder with --root when adding the device"
        raise DeviceError(target.name, f"{agent_root(target)} is not edgelathe's own", mend)
    raise DeviceError(
        target.name, f"cannot be cleared: {done.err or done.code}", f"remove {agent_root(target)} there yourself"
    )
